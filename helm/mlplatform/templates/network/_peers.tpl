{{/*
One end of an edge: {"pods": selector} for pods of this namespace, or {"peers": [...]} for what is
outside of it. Takes {root, name}.
*/}}
{{- define "mlplatform.end" -}}
{{- $values := .root.Values }}
{{- $network := $values.networkPolicies }}
{{- $cidrs := dict
  "api-server" $network.apiServer.cidrs
  "bucket" $values.registry.artifacts.cidrs
  "webhook" $values.monitor.webhook.cidrs
}}
{{- if not $values.redis.enabled }}{{ $_ := set $cidrs "redis" $values.redis.managed.cidrs }}{{ end }}
{{- if not $values.postgres.enabled }}{{ $_ := set $cidrs "postgres" $values.postgres.managed.cidrs }}{{ end }}
{{- $namespaces := dict
  "callers" $network.callers
  "prometheus" (list $network.prometheus)
  "kuberay" (list (dict "kubernetes.io/metadata.name" $values.ray.operatorNamespace))
}}
{{- with $values.pipeline.kubeflow.namespace }}
{{- $_ := set $namespaces "kubeflow" (list (dict "kubernetes.io/metadata.name" .)) }}
{{- end }}
{{- $peers := list }}
{{- if hasKey $cidrs .name }}
{{- range get $cidrs .name }}
{{- $peers = append $peers (dict "ipBlock" (dict "cidr" .)) }}
{{- end }}
{{- dict "peers" $peers | toJson }}
{{- else if hasKey $namespaces .name }}
{{- range get $namespaces .name }}
{{- $selector := . | empty | ternary dict (dict "matchLabels" .) }}
{{- $peers = append $peers (dict "namespaceSelector" $selector) }}
{{- end }}
{{- dict "peers" $peers | toJson }}
{{- else if eq .name "steps" }}
{{- dict "pods" (dict "pipelines.kubeflow.org/v2_component" "true") | toJson }}
{{- else if eq .name "kubeflow" }}
{{- dict "pods" (dict "application-crd-id" "kubeflow-pipelines") | toJson }}
{{- else }}
{{- dict "pods" (include "mlplatform.selector" .name | fromYaml) | toJson }}
{{- end }}
{{- end }}

{{/* The edges that exist with these values, as JSON. */}}
{{- define "mlplatform.edges" -}}
{{- $values := .Values }}
{{- $holds := dict
  "minimal" (eq $values.profile "minimal")
  "kubeflow" (ne $values.profile "minimal")
  "ray" $values.ray.enabled
  "bucket" (not (empty $values.registry.artifacts.s3))
  "webhook" (not (empty $values.monitor.webhook.secretName))
}}
{{- $edges := list }}
{{- range (.Files.Get "files/edges.yaml" | fromYaml).edges }}
{{- if or (not .when) (get $holds (default "" .when)) }}
{{- $edges = append $edges . }}
{{- end }}
{{- end }}
{{- $edges | toJson }}
{{- end }}

{{/* Ports of an edge. Takes {root, edge}. */}}
{{- define "mlplatform.edgePorts" -}}
{{- $ports := list (int .edge.port) }}
{{- if eq .edge.to "api-server" }}
{{- $ports = .root.Values.networkPolicies.apiServer.ports }}
{{- else if and (eq .edge.to "redis") (not .root.Values.redis.enabled) }}
{{- $ports = list .root.Values.redis.managed.port }}
{{- else if and (eq .edge.to "postgres") (not .root.Values.postgres.enabled) }}
{{- $ports = list .root.Values.postgres.managed.port }}
{{- end }}
{{- if ne (int .edge.port) 0 }}
ports:
  {{- range $ports }}
  - {protocol: TCP, port: {{ . }}}
  {{- end }}
{{- end }}
{{- end }}
