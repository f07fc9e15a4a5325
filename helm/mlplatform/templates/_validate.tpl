{{/* Values that contradict each other are refused before anything is rendered, with what to do. */}}
{{- define "mlplatform.validate" -}}
{{- $values := .Values }}
{{- $full := ne $values.profile "minimal" }}
{{- if and $full (not $values.ray.enabled) }}
{{- fail (printf "profile is %s and ray.enabled is false: pipelines train on Ray clusters there; set ray.enabled: true, or profile: minimal" $values.profile) }}
{{- end }}
{{- if and (not $full) $values.ray.enabled }}
{{- fail "ray.enabled is true and profile is minimal, where a pipeline runs as one Job: set profile: full, or ray.enabled: false" }}
{{- end }}
{{- if eq $values.profile "gpu" }}
{{- if or (ne $values.triton.target "server") (not $values.triton.gpus) }}
{{- fail "profile is gpu and models are not served on GPUs: set triton.target: server and triton.gpus: 1, or profile: full" }}
{{- end }}
{{- end }}
{{- if and $values.triton.gpus (not $values.operator.gpuPreflight) }}
{{- fail "triton.gpus is set and operator.gpuPreflight is false: a rollout's second server could wait for a GPU for good; set operator.gpuPreflight: true" }}
{{- end }}
{{- $least := int (include "mlplatform.gatewayReplicas" .) }}
{{- $most := int $values.gateway.autoscaling.maxReplicas }}
{{- if and $values.gateway.autoscaling.enabled (lt $most $least) }}
{{- fail (printf "gateway.autoscaling.maxReplicas is %d and at least %d gateways are needed (gateway.replicas, or the use cases' peak): raise it" $most $least) }}
{{- end }}
{{- range $name := list "redis" "postgres" }}
{{- $store := get $values $name }}
{{- if and $store.enabled $store.managed.cidrs }}
{{- fail (printf "%s.enabled is true and %s.managed.cidrs is set: choose one; for a managed service set %s.enabled: false, and put its address into the Secrets" $name $name $name) }}
{{- end }}
{{- if and (not $store.enabled) (not $store.managed.cidrs) $values.networkPolicies.enabled }}
{{- fail (printf "%s.enabled is false and %s.managed.cidrs is empty: no network policy would let anybody reach it; set where the managed service is" $name $name) }}
{{- end }}
{{- end }}
{{- range $name := list "redis" "triton" }}
{{- $resources := (get $values $name).resources }}
{{- if ne (toString $resources.requests.memory) (toString $resources.limits.memory) }}
{{- fail (printf "%s.resources: the memory limit (%s) is not the request (%s): on a full node it would be the first to be ended, and with it what all requests need; make them equal" $name $resources.limits.memory $resources.requests.memory) }}
{{- end }}
{{- end }}
{{- if and $values.redis.enabled (gt (mul 4 (int64 (include "mlplatform.mebibytes" $values.redis.maxMemory))) (mul 3 (int64 (include "mlplatform.mebibytes" $values.redis.resources.limits.memory)))) }}
{{- fail (printf "redis.maxMemory is %s and redis.resources.limits.memory is %s: leave a quarter of the limit for buffers and for rewriting the file, or the node ends Redis" $values.redis.maxMemory $values.redis.resources.limits.memory) }}
{{- end }}
{{- if and (eq $values.settings.environment "prod") (ne (int64 $values.settings.clockShiftSeconds) 0) }}
{{- fail "settings.environment is prod and settings.clockShiftSeconds is not 0: recorded data are replayed in dev only; set it to 0" }}
{{- end }}
{{- range $name, $_ := $values.settings.extra }}
{{- if regexMatch "(PASSWORD|TOKEN|SECRET_KEY|LEDGER_URL|REDIS_URL|WEBHOOK_URL)$" $name }}
{{- fail (printf "settings.extra.%s is a secret, and values are stored in clear: put it into the Secret that values.yaml names" $name) }}
{{- end }}
{{- if has $name (include "mlplatform.ownVariables" $ | fromJsonArray) }}
{{- fail (printf "settings.extra.%s is set by the chart itself: change the key of values.yaml that it follows from" $name) }}
{{- end }}
{{- end }}
{{- $seen := dict }}
{{- range $values.usecases }}
{{- if hasKey $seen .name }}
{{- fail (printf "usecases names %s twice: remove one" .name) }}
{{- end }}
{{- $_ := set $seen .name true }}
{{- if and $values.serviceMonitors.enabled (not ($.Files.Get (printf "files/rules/%s.yaml" .name))) }}
{{- fail (printf "serviceMonitors.enabled is true and the chart has no alert rules for %s: run `python -m monitoring rules --usecase %s --out helm/mlplatform/files/rules/%s.yaml`" .name .name .name) }}
{{- end }}
{{- end }}
{{- if $values.externalSecrets.enabled }}
{{- if not $values.externalSecrets.store.name }}
{{- fail "externalSecrets.enabled is true and externalSecrets.store.name is empty: name the SecretStore that the Secrets come from" }}
{{- end }}
{{- if not $values.externalSecrets.signingPublicKey }}
{{- fail "externalSecrets.enabled is true and externalSecrets.signingPublicKey is empty: whoever serves a model verifies it by that key; set the public half of the key in the store" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Variables that templates set; a second value would win in some pods and lose in others. */}}
{{- define "mlplatform.ownVariables" -}}
{{- list
  "MLPLATFORM_ENVIRONMENT" "MLPLATFORM_CLOCK_SHIFT_SECONDS"
  "MLPLATFORM_DATA_ROOT" "MLPLATFORM_ARCHIVE_ROOT" "MLPLATFORM_MONITORING_ROOT"
  "MLPLATFORM_MONITORING_ORCHESTRATOR" "MLPLATFORM_MONITORING_METRICS_HOST" "MLPLATFORM_MONITORING_METRICS_PORT"
  "MLPLATFORM_REGISTRY_TRACKING_URI" "MLPLATFORM_REGISTRY_USERNAME"
  "MLPLATFORM_SIGNING_PUBLIC_KEY" "MLPLATFORM_SIGNING_PRIVATE_KEY"
  "MLPLATFORM_GATEWAY_USECASES" "MLPLATFORM_GATEWAY_HOST" "MLPLATFORM_GATEWAY_PORT"
  "MLPLATFORM_GATEWAY_WORKERS" "MLPLATFORM_GATEWAY_DRAIN_SECONDS" "MLPLATFORM_GATEWAY_SPILL"
  "MLPLATFORM_OPERATOR_NAMESPACE" "MLPLATFORM_OPERATOR_IDENTITY"
  "MLPLATFORM_KUBEFLOW_ENDPOINT" "MLPLATFORM_KUBEFLOW_SERVICE_ACCOUNT"
  "MLPLATFORM_KUBEFLOW_NAMESPACE" "MLPLATFORM_KUBEFLOW_TOKEN_FILE"
  "MLPLATFORM_COMPUTE_CPUS" "MLPLATFORM_COMPUTE_RAY"
| toJson }}
{{- end }}

{{/* A size like 600mb, 512Mi or 1Gi in MiB; Redis counts in powers of two as well. */}}
{{- define "mlplatform.mebibytes" -}}
{{- $number := regexFind "^[0-9]+" . | int64 }}
{{- $unit := regexFind "[a-zA-Z]+$" . | lower | trimSuffix "b" | trimSuffix "i" }}
{{- if eq $unit "g" }}{{ mul $number 1024 }}{{ else if eq $unit "m" }}{{ $number }}{{ else if eq $unit "k" }}{{ div $number 1024 }}{{ else }}{{ div $number 1048576 }}{{ end }}
{{- end }}
