{{/* What --store says. */}}
{{- define "weir.store" -}}
{{- if .Values.s3.bucket -}}
{{- $query := list }}
{{- with .Values.s3.region }}{{ $query = append $query (printf "region=%s" .) }}{{ end }}
{{- with include "weir.s3Endpoint" . }}{{ $query = append $query (printf "endpoint=%s" .) }}{{ end }}
{{- if kindIs "invalid" .Values.s3.pathStyle | ternary .Values.s3.regionEndpoint .Values.s3.pathStyle }}{{ $query = append $query "pathStyle=true" }}{{ end }}
{{- with .Values.s3.ca }}{{ $query = append $query (printf "ca=%s" .) }}{{ end }}
{{- if include "weir.s3SecretName" . }}{{ $query = append $query "credentials=/etc/weir/s3" }}{{ end -}}
s3://{{ .Values.s3.bucket }}/{{ trimAll "/" .Values.s3.prefix }}{{ with $query }}?{{ join "&" . }}{{ end }}
{{- else -}}
file:/data
{{- end }}
{{- end }}

{{/* Other charts take a host alone, and mean https. */}}
{{- define "weir.s3Endpoint" -}}
{{- with trimSuffix "/" .Values.s3.regionEndpoint }}
{{- contains "://" . | ternary . (printf "https://%s" .) }}
{{- end }}
{{- end }}

{{- define "weir.s3SecretName" -}}
{{- with .Values.s3Credentials }}
{{- .existingSecret | default (empty .accessKeyId | ternary "" (printf "%s-s3" (include "weir.fullname" $))) }}
{{- end }}
{{- end }}

{{- define "weir.replicas" -}}
{{- if kindIs "invalid" .Values.registry.replicas }}
{{- empty .Values.s3.bucket | ternary 1 2 }}
{{- else }}
{{- .Values.registry.replicas }}
{{- end }}
{{- end }}

{{- define "weir.claimName" -}}
{{- if and .Values.persistence.enabled (not .Values.s3.bucket) }}
{{- .Values.persistence.existingClaim | default (include "weir.registryName" .) }}
{{- end }}
{{- end }}

{{- define "weir.dockerConfigSecretName" -}}
{{- with .Values.upstreamCredentials }}
{{- .existingSecret | default (empty .registries | ternary "" (printf "%s-upstreams" (include "weir.fullname" $))) }}
{{- end }}
{{- end }}

{{- define "weir.hasCa" -}}
{{- with .Values.ca }}{{ if or .bundles .existingConfigMap .existingSecret }}true{{ end }}{{ end }}
{{- end }}
