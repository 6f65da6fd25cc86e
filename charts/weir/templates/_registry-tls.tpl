{{/* How the registry is asked. */}}

{{/* The name that its certificate is to have: agents ask its Pods by it. */}}
{{- define "weir.registryHost" -}}{{ include "weir.fullname" . }}.{{ .Release.Namespace }}.svc{{- end }}

{{- define "weir.registryScheme" -}}{{ ternary "https" "http" .Values.registry.tls.enabled }}{{- end }}

{{/* The Secret with tls.crt, tls.key and ca.crt. */}}
{{- define "weir.registryTlsName" -}}
{{- .Values.registry.tls.existingSecret | default (printf "%s-tls" (include "weir.registryName" .)) }}
{{- end }}

{{/* For who asks the registry: its authority, and never its key. */}}
{{- define "weir.registryCaVolume" -}}
- name: registry-ca
  {{- with .Values.registry.tls.existingCaConfigMap }}
  configMap:
    name: {{ . }}
  {{- else }}
  secret:
    secretName: {{ include "weir.registryTlsName" . }}
  {{- end }}
    items:
      - key: ca.crt
        path: ca.crt
{{- end }}
{{- define "weir.registryCaMount" -}}
- name: registry-ca
  mountPath: /etc/weir/registry-ca
  readOnly: true
{{- end }}

{{/* What a Secret and a ConfigMap of the user lack, in words. */}}
{{- define "weir.registryTlsMissing" -}}
{{- with .Values.registry.tls }}
{{- if and .enabled .existingSecret }}
{{- $secret := list "Secret" .existingSecret }}
{{- $authority := empty .existingCaConfigMap | ternary $secret (list "ConfigMap" .existingCaConfigMap) }}
{{- $missing := list }}
{{- range $key, $place := dict "tls.crt" $secret "tls.key" $secret "ca.crt" $authority }}
{{- $data := dig "data" dict (lookup "v1" (first $place) $.Release.Namespace (last $place) | default dict) }}
{{- if not (get $data $key) }}{{ $missing = append $missing (printf "%s of the %s %s" $key (first $place) (last $place)) }}{{ end }}
{{- end }}
{{- join ", " $missing }}
{{- end }}
{{- end }}
{{- end }}
