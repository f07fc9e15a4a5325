{{/* A use case's name where Kubernetes allows no underscore. */}}
{{- define "mlplatform.dashed" -}}
{{ . | replace "_" "-" }}
{{- end }}

{{/* Labels that an object of a component is found by; they never change. Takes the component. */}}
{{- define "mlplatform.selector" -}}
app.kubernetes.io/part-of: mlplatform
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* Labels of every object. Takes {root, component, usecase?}. */}}
{{- define "mlplatform.labels" -}}
{{ include "mlplatform.selector" .component }}
app.kubernetes.io/name: mlplatform
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- with .usecase }}
mlplatform.dev/usecase: {{ include "mlplatform.dashed" . }}
{{- end }}
{{- end }}

{{/* Name, namespace and labels of an object. Takes {root, component, name, usecase?}. */}}
{{- define "mlplatform.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "mlplatform.labels" . | nindent 2 }}
{{- end }}

{{/* Where a role's image is, by digest. Takes {root, role}. */}}
{{- define "mlplatform.image" -}}
{{- $image := get .root.Values.images .role }}
{{- if and (not $image) (eq .role "triton-gpu") }}
{{- fail "triton.target is server and images.triton-gpu is not set: choose a release of nvcr.io/nvidia/tritonserver from 26.07 on, look its digest up (`crane digest nvcr.io/nvidia/tritonserver:26.07-py3`), and set images.triton-gpu.repository and .digest" }}
{{- end }}
{{- if not $image }}
{{- fail (printf "images.%s is not set: build and push the images with `make images`, which writes build/cluster/images.yaml, and pass that file with -f" .role) }}
{{- end }}
{{- printf "%s@%s" $image.repository $image.digest }}
{{- end }}

{{/* What Pod Security "restricted" asks of a container, and a root file system that is not written. */}}
{{- define "mlplatform.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/*
What every pod has. Takes {root, account, priority, token?, settings?}: `settings` is the component's
block of values, for nodeSelector and tolerations.
*/}}
{{- define "mlplatform.pod" -}}
serviceAccountName: mlplatform-{{ .account }}
automountServiceAccountToken: {{ .token | default false }}
# Variables that are named after Services look like our settings.
enableServiceLinks: false
{{- with include "mlplatform.priorityClass" . }}
priorityClassName: {{ . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  # A volume of many files is not walked through at each start.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $settings := .settings | default dict }}
{{- with $settings.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $settings.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Takes {root, priority}: serving, control or training. */}}
{{- define "mlplatform.priorityClass" -}}
{{- $classes := .root.Values.priorityClasses }}
{{- $classes.create | ternary (printf "%s-%s" .root.Release.Namespace .priority) (get $classes.existing .priority) }}
{{- end }}

{{/* The settings of all roles. */}}
{{- define "mlplatform.environmentFrom" -}}
- configMapRef:
    name: mlplatform
{{- end }}

{{/* Variables out of a Secret whose keys are their names. Takes {secret, keys}. */}}
{{- define "mlplatform.secretEnvironment" -}}
{{- range $index, $key := .keys }}
{{- if $index }}{{ "\n" }}{{ end -}}
- name: {{ $key }}
  valueFrom:
    secretKeyRef:
      name: {{ $.secret }}
      key: {{ $key }}
{{- end }}
{{- end }}

{{- define "mlplatform.ledgerEnvironment" -}}
{{ include "mlplatform.secretEnvironment" (dict "secret" "mlplatform-ledger" "keys" (list "MLPLATFORM_LEDGER_URL")) }}
{{- end }}

{{/* Takes the registry's user: trainer, operator or monitor. */}}
{{- define "mlplatform.registryEnvironment" -}}
{{ include "mlplatform.secretEnvironment" (dict "secret" (printf "mlplatform-registry-%s" .) "keys" (list "MLPLATFORM_REGISTRY_USERNAME" "MLPLATFORM_REGISTRY_PASSWORD")) }}
{{- end }}

{{/* Takes the Redis user: gateway, features, archiver or operator. */}}
{{- define "mlplatform.redisEnvironment" -}}
{{ include "mlplatform.secretEnvironment" (dict "secret" (printf "mlplatform-redis-%s" .) "keys" (list "MLPLATFORM_REDIS_URL")) }}
{{- end }}

{{/* Numerical libraries take one thread each; without it, as many as the node has cores. */}}
{{- define "mlplatform.oneThread" -}}
- {name: OMP_NUM_THREADS, value: "1"}
- {name: POLARS_MAX_THREADS, value: "1"}
{{- end }}

{{/* The only places that a container may write to besides its volumes. Takes a size. */}}
{{- define "mlplatform.scratch" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ . }}
{{- end }}

{{- define "mlplatform.publicKeyMount" -}}
- name: public-key
  mountPath: /var/run/mlplatform/signing/public
  readOnly: true
{{- end }}

{{- define "mlplatform.publicKeyVolume" -}}
- name: public-key
  configMap:
    name: mlplatform-signing
{{- end }}

{{/* Takes {root, readOnly?}. */}}
{{- define "mlplatform.dataVolume" -}}
- name: data
  persistentVolumeClaim:
    claimName: {{ .root.Values.storage.data.existingClaim | default "mlplatform-data" }}
    {{- if .readOnly }}
    readOnly: true
    {{- end }}
{{- end }}

{{/* Pods are replaced when what they read at their start has changed. */}}
{{- define "mlplatform.configurationChecksum" -}}
mlplatform.dev/configuration: {{ include (print .Template.BasePath "/configuration/configmap.yaml") . | sha256sum | trunc 16 }}
{{- end }}

{{/* Replicas of one component lie on different nodes and zones where there are such. Takes the component. */}}
{{- define "mlplatform.spread" -}}
{{- range $index, $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
{{- if $index }}{{ "\n" }}{{ end -}}
- maxSkew: 1
  topologyKey: {{ $key }}
  # A laptop has one node: better two on it than one.
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "mlplatform.selector" $ | nindent 6 }}
{{- end }}
{{- end }}

{{/* Gateways: the least that was asked for, and what the use cases' peak needs. */}}
{{- define "mlplatform.gatewayReplicas" -}}
{{- $needed := 0 }}
{{- range .Values.usecases }}
{{- $needed = add $needed ((.gateway | default dict).replicas | default 0) }}
{{- end }}
{{- max $needed (int .Values.gateway.replicas) }}
{{- end }}

{{/* Names of the use cases as JSON. */}}
{{- define "mlplatform.usecaseNames" -}}
{{- $names := list }}
{{- range .Values.usecases }}
{{- $names = append $names .name }}
{{- end }}
{{- $names | toJson }}
{{- end }}

{{/*
Of a process that makes a file after its first good pass and touches it after each further one.
There is no liveness by its age: it grows old while Redis or the disk is away, which no restart would
cure, and what has stopped for another reason has its alert (ArchiverBehind, FeatureViewStale). Takes the file.
*/}}
{{- define "mlplatform.readyFile" -}}
readinessProbe:
  exec: {command: [test, -e, {{ . }}]}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}

{{/* Names that the registry is called by inside the cluster, and through a port-forward. */}}
{{- define "mlplatform.registryHosts" -}}
{{- $hosts := list }}
{{- range list "mlplatform-registry" (printf "mlplatform-registry.%s" .Release.Namespace) (printf "mlplatform-registry.%s.svc" .Release.Namespace) (printf "mlplatform-registry.%s.svc.cluster.local" .Release.Namespace) }}
{{- $hosts = append $hosts (printf "%s:5000" .) }}
{{- end }}
{{- /* The port of `make ui`. */ -}}
{{- $hosts = concat $hosts (list "localhost:8802" "127.0.0.1:8802") }}
{{- $hosts | toJson }}
{{- end }}
