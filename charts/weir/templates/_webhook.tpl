{{/* Whether there is one: not where nobody would find the registry under a name that it could write. */}}
{{- define "weir.hasWebhook" -}}
{{- if and .Values.webhook.enabled (include "weir.rewriteTo" .) }}true{{ end }}
{{- end }}

{{/* The host that takes the place of a registry's in rewritten images, where the configuration names none. */}}
{{- define "weir.rewriteTo" -}}
{{- if .Values.webhook.rewriteTo }}
{{- .Values.webhook.rewriteTo }}
{{- else if eq .Values.mirrorAddress "door" }}
{{- printf "127.0.0.1:%d" (int .Values.door.port) }}
{{- else if .Values.config.rewriteTo }}
{{- .Values.config.rewriteTo }}
{{- end }}
{{- end }}

{{/* The one that the webhook goes by: the configuration's comes first. */}}
{{- define "weir.rewriteToInForce" -}}
{{- (include "weir.configKnown" . | fromYaml).rewriteTo | default (include "weir.rewriteTo" .) }}
{{- end }}

{{/* Whether a host is the node itself, however its address is written. */}}
{{- define "weir.isLoopback" -}}
{{- if regexMatch "^(localhost|127([.][0-9]+){1,3}|\\[::1\\])(:[0-9]+)?$" (lower .) }}true{{ end }}
{{- end }}

{{/* Whether an image's name can begin with this host: without a dot or port it would be a repository of Docker Hub. */}}
{{- define "weir.isHostOfImages" -}}
{{- if regexMatch "[.:]|^localhost$" (lower .) }}true{{ end }}
{{- end }}

{{/* A registry's host as references are read: Docker Hub has one name. */}}
{{- define "weir.canonicalHost" -}}
{{- $host := lower . }}
{{- has $host (list "index.docker.io" "registry-1.docker.io" "registry.hub.docker.com") | ternary "docker.io" $host }}
{{- end }}

{{/* What the Secret is called in which cert-manager keeps the certificate. */}}
{{- define "weir.webhookTlsName" -}}{{ include "weir.webhookName" . }}-tls{{- end }}

{{/* The configuration that is in the cluster, or that the values give, as YAML; empty when neither is known. */}}
{{- define "weir.configKnown" -}}
{{- $data := dict }}
{{- if .Values.config.existingConfigMap }}
{{- $data = dig "data" dict (lookup "v1" "ConfigMap" .Release.Namespace .Values.config.existingConfigMap | default dict) }}
{{- else }}
{{- $data = include "weir.configData" . | fromYaml }}
{{- end }}
{{- get ($data | default dict) "config.yaml" }}
{{- end }}

{{/* Every host that takes the place of a registry's, as JSON. */}}
{{- define "weir.rewriteHosts" -}}
{{- $hosts := list (include "weir.rewriteTo" . | lower) }}
{{- with (include "weir.configKnown" . | fromYaml).rewriteTo }}
{{- $hosts = append $hosts (toString . | lower) }}
{{- end }}
{{- uniq $hosts | toJson }}
{{- end }}

{{/* What the names of images begin with that nodes are to fetch from a mirror by its own name, by registry host, as JSON. */}}
{{- define "weir.mirrorNames" -}}
{{- $names := dict }}
{{- $upstreams := (include "weir.configKnown" . | fromYaml).upstreams }}
{{- range $host, $upstream := kindIs "map" $upstreams | ternary $upstreams dict }}
{{- if and (kindIs "map" $upstream) (eq (get ($upstream | default dict) "via" | toString) "node") (get ($upstream | default dict) "mirror") }}
{{- $_ := set $names (include "weir.canonicalHost" $host) (include "weir.mirrorName" $upstream.mirror) }}
{{- end }}
{{- end }}
{{- toJson $names }}
{{- end }}

{{/* What names of images begin with in a mirror. */}}
{{- define "weir.mirrorName" -}}
{{- $mirror := toString . }}
{{- $url := urlParse (contains "://" $mirror | ternary $mirror (printf "https://%s" $mirror)) }}
{{- $path := trimAll "/" (regexReplaceAll "^/v2(/|$)" $url.path "/") }}
{{- $port := eq $url.scheme "https" | ternary ":443" ":80" }}
{{- printf "%s/%s" (trimSuffix $port (lower $url.host)) (empty $path | ternary "" (printf "%s/" $path)) }}
{{- end }}
