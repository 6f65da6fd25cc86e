{{/* Names and labels. The longest suffix is "-node-port": all of it fits into the 63 characters of a label. */}}
{{- define "weir.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "weir.fullname" -}}
{{- $name := include "weir.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "weir.agentName" -}}{{ include "weir.fullname" . }}-agent{{- end }}
{{- define "weir.registryName" -}}{{ include "weir.fullname" . }}-registry{{- end }}
{{- define "weir.webhookName" -}}{{ include "weir.fullname" . }}-webhook{{- end }}
{{- define "weir.uninstallName" -}}{{ include "weir.fullname" . }}-uninstall{{- end }}
{{- define "weir.testName" -}}{{ include "weir.fullname" . }}-test{{- end }}
{{/* One name for the Pods of all hooks: before an uninstall, Helm then removes the one that a test left for its log. */}}
{{- define "weir.hookName" -}}{{ include "weir.fullname" . }}-hook{{- end }}
{{- define "weir.nodePortName" -}}{{ include "weir.fullname" . }}-node-port{{- end }}
{{- define "weir.configMapName" -}}{{ .Values.config.existingConfigMap | default (include "weir.fullname" .) }}{{- end }}

{{/* What the agent finds the registry by. */}}
{{- define "weir.agentServiceName" -}}
{{- ternary (include "weir.nodePortName" .) (include "weir.fullname" .) (eq .Values.mirrorAddress "nodePort") }}
{{- end }}

{{- define "weir.agentAccount" -}}
{{- with .Values.agent.serviceAccount }}{{ .name | default (.create | ternary (include "weir.agentName" $) "default") }}{{ end }}
{{- end }}
{{- define "weir.registryAccount" -}}
{{- with .Values.registry.serviceAccount }}{{ .name | default (.create | ternary (include "weir.registryName" $) "default") }}{{ end }}
{{- end }}
{{- define "weir.webhookAccount" -}}
{{- with .Values.webhook.serviceAccount }}{{ .name | default (.create | ternary (include "weir.webhookName" $) "default") }}{{ end }}
{{- end }}

{{/* Takes the root and a component. */}}
{{- define "weir.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "weir.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/* Takes the root, a component, and labels of the values, which come before those of all objects. */}}
{{- define "weir.labels" -}}
{{- $root := index . 0 -}}
{{- $chart := printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- $labels := dict "helm.sh/chart" $chart }}
{{- range concat (list $root.Values.commonLabels) (slice . 2) }}
{{- range $key, $value := . }}
{{- $_ := set $labels $key $value }}
{{- end }}
{{- end -}}
{{ include "weir.selectorLabels" . }}
app.kubernetes.io/part-of: weir
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
{{ toYaml $labels }}
{{- end }}
