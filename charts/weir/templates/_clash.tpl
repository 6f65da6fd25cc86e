{{/* mihomo's configuration: one listener on loopback, the quickest proxy of the subscription for everything. */}}
{{- define "weir.clashConfig" -}}
{{- $check := .Values.clash.testUrl -}}
mixed-port: 7890
allow-lan: false
mode: rule
log-level: warning
proxy-providers:
  subscription:
    type: http
    url: {{ .Values.clash.subscriptionUrl | quote }}
    interval: 3600
    path: ./subscription.yaml
    health-check: {enable: true, url: {{ $check | quote }}, interval: 300}
proxy-groups:
  - {name: quickest, type: url-test, use: [subscription], url: {{ $check | quote }}, interval: 300}
rules: ["MATCH,quickest"]
{{- end }}

{{- define "weir.clashSecretName" -}}
{{- .Values.clash.existingSecret | default (printf "%s-clash" (include "weir.fullname" .)) }}
{{- end }}

{{- define "weir.clashContainer" -}}
- name: clash
  image: {{ include "weir.imageOf" (list . .Values.clash.image "latest") | quote }}
  imagePullPolicy: {{ .Values.clash.image.pullPolicy }}
  args: ["-d", "/var/lib/mihomo", "-f", "/etc/mihomo/config.yaml"]
  {{- if include "weir.hasSidecars" . }}
  # Started before the registry and stopped after it, which finishes its downloads first.
  restartPolicy: Always
  {{- end }}
  securityContext:
    {{- include "weir.containerSecurityContext" . | nindent 4 }}
  resources:
    {{- toYaml .Values.clash.resources | nindent 4 }}
  volumeMounts:
    - { name: clash, mountPath: /etc/mihomo, readOnly: true }
    - { name: clash-state, mountPath: /var/lib/mihomo }
{{- end }}

{{/* Whether init containers may go on running. */}}
{{- define "weir.hasSidecars" -}}
{{- if semverCompare ">=1.29.0-0" .Capabilities.KubeVersion.Version }}true{{ end }}
{{- end }}
