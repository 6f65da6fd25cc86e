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
