{{- define "mlplatform.registrySetupPod" -}}
{{ include "mlplatform.pod" (dict "root" . "account" "registry" "priority" "control" "settings" .Values.registry) }}
restartPolicy: Never
containers:
  - name: setup
    image: {{ include "mlplatform.image" (dict "root" . "role" "registry") }}
    imagePullPolicy: IfNotPresent
    command: [python, -m, mlplatform.clients.registry.accounts]
    envFrom:
      {{- include "mlplatform.environmentFrom" . | nindent 6 }}
    env:
      {{- include "mlplatform.registryEnvironment" "admin" | nindent 6 }}
      {{- range list "trainer" "operator" "monitor" }}
      - name: MLPLATFORM_ACCOUNT_{{ upper . }}_PASSWORD
        valueFrom:
          secretKeyRef:
            name: mlplatform-registry-{{ . }}
            key: MLPLATFORM_REGISTRY_PASSWORD
      {{- end }}
    resources:
      requests: {cpu: 20m, memory: 128Mi}
      limits: {cpu: 500m, memory: 384Mi}
    securityContext:
      {{- include "mlplatform.containerSecurity" . | nindent 6 }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
volumes:
  {{- include "mlplatform.scratch" "64Mi" | nindent 2 }}
{{- end }}
