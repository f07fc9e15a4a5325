{{/* A pod of a Ray cluster, or the one that submits to it. Takes {root, container, settings}. */}}
{{- define "mlplatform.rayPod" -}}
metadata:
  labels:
    {{- include "mlplatform.selector" "ray" | nindent 4 }}
    app.kubernetes.io/name: mlplatform
spec:
  {{- include "mlplatform.pod" (dict "root" .root "account" "pipeline" "priority" "training" "settings" .settings) | nindent 2 }}
  {{- $submits := eq .container "ray-job-submitter" }}
  {{- if $submits }}
  restartPolicy: Never
  {{- end }}
  containers:
    - name: {{ .container }}
      image: {{ include "mlplatform.image" (dict "root" .root "role" "ray") }}
      imagePullPolicy: IfNotPresent
      envFrom:
        {{- include "mlplatform.environmentFrom" .root | nindent 8 }}
      env:
        # On by default from 2.61 only; without it whoever reaches a port runs code here.
        - {name: RAY_AUTH_MODE, value: token}
      resources:
        requests:
          {{- toYaml .settings.resources.requests | nindent 10 }}
          {{- if .settings.gpus }}
          {{ .root.Values.triton.gpuResource }}: {{ .settings.gpus }}
          {{- end }}
        limits:
          {{- toYaml .settings.resources.limits | nindent 10 }}
          {{- if .settings.gpus }}
          {{ .root.Values.triton.gpuResource }}: {{ .settings.gpus }}
          {{- end }}
      securityContext:
        {{- include "mlplatform.containerSecurity" .root | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        {{- if not $submits }}
        - {name: data, mountPath: /data}
        - {name: shared-memory, mountPath: /dev/shm}
        {{- include "mlplatform.publicKeyMount" .root | nindent 8 }}
        {{- end }}
  volumes:
    {{- include "mlplatform.scratch" ($submits | ternary "256Mi" "8Gi") | nindent 4 }}
    {{- if not $submits }}
    {{- include "mlplatform.dataVolume" (dict "root" .root) | nindent 4 }}
    - name: shared-memory
      emptyDir:
        medium: Memory
        sizeLimit: {{ .root.Values.ray.sharedMemory }}
    {{- include "mlplatform.publicKeyVolume" .root | nindent 4 }}
    {{- end }}
{{- end }}

{{- define "mlplatform.rayJob" -}}
{{- $ray := .Values.ray -}}
{{- $submitter := dict "resources" (dict "requests" (dict "cpu" "100m" "memory" "512Mi") "limits" (dict "cpu" "500m" "memory" "1Gi")) -}}
apiVersion: ray.io/v1
kind: RayJob
metadata:
  name: training
  labels:
    {{- include "mlplatform.selector" "ray" | nindent 4 }}
    app.kubernetes.io/name: mlplatform
spec:
  entrypoint: ""
  submissionMode: K8sJobMode
  # Whether a training is tried again is the pipeline's decision.
  backoffLimit: 0
  activeDeadlineSeconds: {{ .Values.pipeline.deadlineSeconds }}
  shutdownAfterJobFinishes: true
  ttlSecondsAfterFinished: 60
  submitterPodTemplate:
    {{- include "mlplatform.rayPod" (dict "root" . "container" "ray-job-submitter" "settings" $submitter) | nindent 4 }}
  rayClusterSpec:
    rayVersion: {{ $ray.version | quote }}
    authOptions:
      mode: token
      secretName: mlplatform-ray
    headGroupSpec:
      serviceType: ClusterIP
      rayStartParams:
        dashboard-host: 0.0.0.0
      template:
        {{- include "mlplatform.rayPod" (dict "root" . "container" "ray-head" "settings" $ray.head) | nindent 8 }}
    workerGroupSpecs:
      - groupName: workers
        replicas: {{ $ray.worker.replicas }}
        minReplicas: {{ $ray.worker.replicas }}
        maxReplicas: {{ $ray.worker.replicas }}
        rayStartParams: {}
        template:
          {{- include "mlplatform.rayPod" (dict "root" . "container" "ray-worker" "settings" $ray.worker) | nindent 10 }}
{{- end }}
