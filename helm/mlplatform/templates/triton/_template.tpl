{{/* Labels of what the operator makes: Helm manages none of it. */}}
{{- define "mlplatform.tritonLabels" -}}
{{ include "mlplatform.selector" "triton" }}
app.kubernetes.io/name: mlplatform
app.kubernetes.io/managed-by: mlplatform-operator
{{- end }}

{{- define "mlplatform.tritonDeployment" -}}
{{- $triton := .Values.triton -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: triton
  labels:
    {{- include "mlplatform.tritonLabels" . | nindent 4 }}
  annotations:
    mlplatform.dev/model-digest: ""
    {{- if $triton.gpus }}
    mlplatform.dev/gpu-memory: {{ $triton.gpuMemoryMiB | quote }}
    {{- end }}
spec:
  replicas: {{ $triton.replicas }}
  revisionHistoryLimit: 0
  # It is never changed; a pod that has died is replaced.
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxSurge: 0, maxUnavailable: 1}
  selector:
    matchLabels:
      {{- include "mlplatform.selector" "triton" | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "mlplatform.tritonLabels" . | nindent 8 }}
      annotations:
        mlplatform.dev/model-digest: ""
    spec:
      {{- include "mlplatform.pod" (dict "root" . "account" "triton" "priority" "serving" "settings" $triton) | nindent 6 }}
      terminationGracePeriodSeconds: 30
      topologySpreadConstraints:
        {{- include "mlplatform.spread" "triton" | nindent 8 }}
      initContainers:
        # Fetches the model, verifies signature, manifest and digest, and lays it out. It alone
        # talks to the registry; the server has no credentials.
        - name: export
          image: {{ include "mlplatform.image" (dict "root" . "role" "operator") }}
          imagePullPolicy: IfNotPresent
          command: [python, -m, serving.triton.fetch]
          args: [--target, {{ $triton.target }}, --out, /models]
          envFrom:
            {{- include "mlplatform.environmentFrom" . | nindent 12 }}
          env:
            # A user that reads; it registers nothing and moves no alias.
            {{- include "mlplatform.registryEnvironment" "monitor" | nindent 12 }}
            {{- include "mlplatform.oneThread" . | nindent 12 }}
          resources:
            {{- toYaml $triton.export.resources | nindent 12 }}
          securityContext:
            {{- include "mlplatform.containerSecurity" . | nindent 12 }}
          # Why a model was refused is in the pod's status.
          terminationMessagePolicy: FallbackToLogsOnError
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            - {name: models, mountPath: /models}
            {{- include "mlplatform.publicKeyMount" . | nindent 12 }}
      containers:
        - name: triton
          image: {{ include "mlplatform.image" (dict "root" . "role" (eq $triton.target "server" | ternary "triton-gpu" "triton")) }}
          imagePullPolicy: IfNotPresent
          {{- if eq $triton.target "server" }}
          command: [tritonserver]
          args:
            - --model-repository=/models/repository
            - --model-control-mode=none
            - --disable-auto-complete-config
            - --exit-on-error=true
            - --strict-readiness=true
            - --http-port=8000
            - --allow-grpc=false
            - --metrics-port=8002
            # Callers have gone by then: preStop waited for them.
            - --exit-timeout-secs=3
          {{- end }}
          ports:
            - {name: http, containerPort: 8000}
            - {name: metrics, containerPort: 8002}
          env:
            - {name: OMP_NUM_THREADS, value: "1"}
          # Started: the model is loaded. Ready: it answers. The operator asks for the golden
          # answers besides, before the first request.
          startupProbe:
            httpGet: {path: /v2/health/ready, port: http}
            periodSeconds: 1
            timeoutSeconds: 3
            failureThreshold: 300
          readinessProbe:
            httpGet: {path: /v2/health/ready, port: http}
            periodSeconds: 2
            timeoutSeconds: 3
            failureThreshold: 3
          livenessProbe:
            httpGet: {path: /v2/health/live, port: http}
            periodSeconds: 10
            timeoutSeconds: 5
            failureThreshold: 6
          lifecycle:
            preStop:
              sleep: {seconds: 5}
          resources:
            requests:
              {{- toYaml $triton.resources.requests | nindent 14 }}
              {{- if $triton.gpus }}
              {{ $triton.gpuResource }}: {{ $triton.gpus }}
              {{- end }}
            limits:
              {{- toYaml $triton.resources.limits | nindent 14 }}
              {{- if $triton.gpus }}
              {{ $triton.gpuResource }}: {{ $triton.gpus }}
              {{- end }}
          securityContext:
            {{- include "mlplatform.containerSecurity" . | nindent 12 }}
          volumeMounts:
            - {name: tmp, mountPath: /tmp}
            - {name: models, mountPath: /models, readOnly: true}
            # The container runtime's own is 64 MiB, and on the node's account.
            - {name: shared-memory, mountPath: /dev/shm}
      volumes:
        {{- include "mlplatform.scratch" "256Mi" | nindent 8 }}
        - name: models
          emptyDir:
            sizeLimit: 2Gi
        - name: shared-memory
          emptyDir:
            medium: Memory
            sizeLimit: {{ $triton.sharedMemory }}
        {{- include "mlplatform.publicKeyVolume" . | nindent 8 }}
{{- end }}

{{- define "mlplatform.tritonService" -}}
apiVersion: v1
kind: Service
metadata:
  name: triton
  labels:
    {{- include "mlplatform.tritonLabels" . | nindent 4 }}
spec:
  type: ClusterIP
  selector:
    {{- include "mlplatform.selector" "triton" | nindent 4 }}
  ports:
    - {name: http, port: 8000, targetPort: http, protocol: TCP}
    - {name: metrics, port: 8002, targetPort: metrics, protocol: TCP}
{{- end }}
