{{/* What Pods have in common. */}}

{{/* Takes the root, an image of the values, and the tag for want of any. */}}
{{- define "weir.imageOf" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $registry := $root.Values.global.imageRegistry | default $image.registry -}}
{{- $tag := $image.tag | default (empty $image.digest | ternary (index . 2) "") -}}
{{- with $registry }}{{ trimSuffix "/" . }}/{{ end }}
{{- $image.repository }}
{{- with $tag }}:{{ . }}{{ end }}
{{- with $image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "weir.image" -}}
{{- include "weir.imageOf" (list . .Values.image .Chart.AppVersion) }}
{{- end }}

{{- define "weir.imagePullSecrets" -}}
{{- $names := list }}
{{- range concat .Values.global.imagePullSecrets .Values.imagePullSecrets }}
{{- if kindIs "string" . }}
{{- $names = append $names . }}
{{- else }}
{{- $names = append $names .name }}
{{- end }}
{{- end }}
{{- with uniq $names }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Flags before the subcommand. */}}
{{- define "weir.logArgs" -}}
{{- if ne .Values.logLevel "info" }}
- --log-level
- {{ .Values.logLevel }}
{{- end }}
{{- end }}

{{/* Whether there is such a variable of the values, in place of the chart's. Takes the values' and a name. */}}
{{- define "weir.hasEnv" -}}
{{- range index . 0 }}{{ if eq (toString .name) (index $ 1) }}true{{ end }}{{ end }}
{{- end }}

{{- define "weir.linuxNodes" -}}
{{ toYaml (merge (dict "kubernetes.io/os" "linux") .) }}
{{- end }}

{{/* Of every Pod but the agent's. */}}
{{- define "weir.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "weir.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* A Pod of a hook, which runs where the registry may. Takes the root, the account, resources and arguments. */}}
{{- define "weir.hookPodSpec" -}}
{{- $root := index . 0 -}}
serviceAccountName: {{ index . 1 }}
automountServiceAccountToken: true
restartPolicy: Never
enableServiceLinks: false
{{- include "weir.imagePullSecrets" $root }}
securityContext:
  {{- include "weir.podSecurityContext" $root | nindent 2 }}
nodeSelector:
  {{- include "weir.linuxNodes" $root.Values.registry.nodeSelector | nindent 2 }}
{{- with $root.Values.registry.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: weir
    image: {{ include "weir.image" $root | quote }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    args:
      {{- with include "weir.logArgs" $root | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- toYaml (index . 3) | nindent 6 }}
    securityContext:
      {{- include "weir.containerSecurityContext" $root | nindent 6 }}
    resources:
      {{- toYaml (index . 2) | nindent 6 }}
{{- end }}
