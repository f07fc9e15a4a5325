{{/* One container for each use case: they wait for each other where they write the same data. */}}
{{- define "mlplatform.materializePod" -}}
{{- $features := .Values.features -}}
{{ include "mlplatform.pod" (dict "root" . "account" "features" "priority" "control" "settings" $features) }}
restartPolicy: Never
containers:
  {{- range .Values.usecases }}
  - name: {{ include "mlplatform.dashed" .name }}
    image: {{ include "mlplatform.image" (dict "root" $ "role" "features") }}
    imagePullPolicy: IfNotPresent
    command: [python, -m, feature_repo, materialize, --usecase, {{ .name }}]
    {{- include "mlplatform.featuresContainer" (dict "root" $ "resources" $features.materialize.resources) | nindent 4 }}
  {{- end }}
volumes:
  {{- include "mlplatform.scratch" "1Gi" | nindent 2 }}
  {{- include "mlplatform.dataVolume" (dict "root" .) | nindent 2 }}
{{- end }}

{{/* What all feature containers have. Takes {root, resources, readOnly?}. */}}
{{- define "mlplatform.featuresContainer" -}}
envFrom:
  {{- include "mlplatform.environmentFrom" .root | nindent 2 }}
env:
  {{- include "mlplatform.redisEnvironment" "features" | nindent 2 }}
  {{- include "mlplatform.oneThread" . | nindent 2 }}
resources:
  {{- toYaml .resources | nindent 2 }}
securityContext:
  {{- include "mlplatform.containerSecurity" .root | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: data, mountPath: /data, readOnly: {{ .readOnly | default false }}}
{{- end }}
