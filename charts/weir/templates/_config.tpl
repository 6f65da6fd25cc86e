{{/* The configuration as the values give it, without what is the chart's own. */}}
{{- define "weir.configGiven" -}}
{{- omit .Values.config "existingConfigMap" | toYaml }}
{{- end }}

{{/* The same with the upstreams that are meant when none is named. */}}
{{- define "weir.configMeant" -}}
{{- $config := omit .Values.config "existingConfigMap" }}
{{- if not (or (hasKey $config "upstreams") (hasKey $config "proxies")) }}
{{- $upstreams := dict }}
{{- range list "docker.io" "ghcr.io" "quay.io" "registry.k8s.io" }}
{{- $_ := set $upstreams . dict }}
{{- end }}
{{- $config = merge (dict "upstreams" $upstreams) $config }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/*
The ConfigMap's data. An edit of the live ConfigMap stays until the values' own configuration changes: as long as it
bears their hash, what is live is rendered again, and an upgrade has nothing to change.
*/}}
{{- define "weir.configData" -}}
{{- $live := lookup "v1" "ConfigMap" .Release.Namespace (include "weir.fullname" .) | default dict }}
{{- $data := get $live "data" | default dict }}
{{- $hash := dig "metadata" "annotations" "weir.dev/values-hash" "" $live }}
{{- if and (hasKey $data "config.yaml") (eq $hash (include "weir.configGiven" . | sha256sum)) }}
{{- toYaml $data }}
{{- else -}}
config.yaml: |
  # An edit is in force within seconds; `helm upgrade` keeps it until "config" of the values changes.
  {{- include "weir.configMeant" . | nindent 2 }}
{{- end }}
{{- end }}
