{{/* Every combination of values that could not work, or not safely, with what to do about it: a sentence each, a line each. */}}
{{- define "weir.problems" -}}
{{- include "weir.problems.words" . }}
{{- include "weir.problems.registry" . }}
{{- include "weir.problems.registryTls" . }}
{{- include "weir.problems.config" . }}
{{- include "weir.problems.nodes" . }}
{{- include "weir.problems.webhook" . }}
{{- include "weir.problems.cluster" . }}
{{- end }}

{{/* HOST[:PORT] as the programs read it. */}}
{{- define "weir.hostPattern" -}}
{{- $label := "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?" }}
{{- $port := "0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])" }}
{{- printf "(%s([.]%s)*|\\[[0-9A-Fa-f:.]+\\])(:%s)?" $label $label $port }}
{{- end }}

{{/* Values that are no such thing. The schema has the types; a pattern of it would say no more than that it does not match. */}}
{{- define "weir.problems.words" }}
{{- $bucket := "the bucket's name alone, of lower-case letters, digits, dots and hyphens" }}
{{- $prefix := "folders of letters, digits, dots, hyphens and underscores, as in a/b/" }}
{{- $name := printf "the name alone of what is in the namespace %s, of lower-case letters, digits, dots and hyphens" .Release.Namespace }}
{{- $size := "a size such as 500Mi or 100Gi" }}
{{- $registry := "HOST[:PORT], with a path if need be and without https://" }}
{{- $repository := "the image's name in lower case, without the tag and digest, which have values of their own" }}
{{- $tag := "the tag alone, of letters, digits, dots, hyphens and underscores" }}
{{- $path := "a whole path of the node, which begins with a slash" }}
{{- $interval := "a number with its unit, as in 30s" }}
{{- $host := "HOST or HOST:PORT as in the names of images, without https://"}}
{{- $selector := "labels of nodes as kubectl takes them, as in pool in (a, b)"}}
{{- $namePattern := "^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$" }}
{{- $hostPattern := printf "^(%s)?$" (include "weir.hostPattern" .) }}
{{- $label := "[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?" }}
{{- $values := "[(] *[A-Za-z0-9._-]*( *, *[A-Za-z0-9._-]*)* *[)]" }}
{{- $term := printf "(!? *%s|%s *(=|==|!=) *[A-Za-z0-9._-]*|%s +(in|notin) +%s)" $label $label $label $values }}
{{- $selectorPattern := printf "^( *%s *(, *%s *)*)?$" $term $term }}
{{- $sizePattern := "^[0-9]+([.][0-9]+)?(m|k|[KMGTPE]i|[MGTPE]|e[+]?[0-9]+)?$" }}
{{- $registryPattern := "^([^/:@\\s]+(:[0-9]+)?(/[^/:@\\s]+)*/?)?$" }}
{{- $repositoryPattern := "^([^/@\\s]+/)*[a-z0-9]([a-z0-9._-]*[a-z0-9])?$" }}
{{- $tagPattern := "^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$" }}
{{- $digestPattern := "^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})?$" }}
{{- range list
  (list "s3.bucket" .Values.s3.bucket "^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$" $bucket)
  (list "s3.prefix" .Values.s3.prefix "^/?([A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*)?/?$" $prefix)
  (list "s3.region" .Values.s3.region "^[a-z0-9-]*$" "a region such as eu-central-1")
  (list "s3.ca" .Values.s3.ca "^(\\w[\\w.-]*)?$" "the name of a file among the ca bundles, without a path")
  (list "mirrorCa" .Values.mirrorCa "^(\\w[\\w.-]*)?$" "the name of a file among the ca bundles, without a path")
  (list "config.existingConfigMap" .Values.config.existingConfigMap $namePattern $name)
  (list "s3Credentials.existingSecret" .Values.s3Credentials.existingSecret $namePattern $name)
  (list "persistence.existingClaim" .Values.persistence.existingClaim $namePattern $name)
  (list "upstreamCredentials.existingSecret" .Values.upstreamCredentials.existingSecret $namePattern $name)
  (list "ca.existingConfigMap" .Values.ca.existingConfigMap $namePattern $name)
  (list "ca.existingSecret" .Values.ca.existingSecret $namePattern $name)
  (list "clash.existingSecret" .Values.clash.existingSecret $namePattern $name)
  (list "registry.tls.existingSecret" .Values.registry.tls.existingSecret $namePattern $name)
  (list "registry.tls.existingCaConfigMap" .Values.registry.tls.existingCaConfigMap $namePattern $name)
  (list "agent.serviceAccount.name" .Values.agent.serviceAccount.name $namePattern $name)
  (list "registry.serviceAccount.name" .Values.registry.serviceAccount.name $namePattern $name)
  (list "webhook.serviceAccount.name" .Values.webhook.serviceAccount.name $namePattern $name)
  (list "webhook.rewriteTo" .Values.webhook.rewriteTo $hostPattern $host)
  (list "config.rewriteTo" (.Values.config.rewriteTo | default "") $hostPattern $host)
  (list "webhook.fallbackNodeSelector" .Values.webhook.fallbackNodeSelector $selectorPattern $selector)
  (list "persistence.size" .Values.persistence.size $sizePattern $size)
  (list "persistence.emptyDirSizeLimit" (.Values.persistence.emptyDirSizeLimit | default "0") $sizePattern $size)
  (list "registry.spool.sizeLimit" (.Values.registry.spool.sizeLimit | default "0") $sizePattern $size)
  (list "global.imageRegistry" .Values.global.imageRegistry $registryPattern $registry)
  (list "image.registry" .Values.image.registry $registryPattern $registry)
  (list "clash.image.registry" .Values.clash.image.registry $registryPattern $registry)
  (list "image.repository" .Values.image.repository $repositoryPattern $repository)
  (list "clash.image.repository" .Values.clash.image.repository $repositoryPattern $repository)
  (list "image.tag" .Values.image.tag $tagPattern $tag)
  (list "clash.image.tag" .Values.clash.image.tag $tagPattern $tag)
  (list "image.digest" .Values.image.digest $digestPattern "sha256: and 64 hexadecimal digits")
  (list "clash.image.digest" .Values.clash.image.digest $digestPattern "sha256: and 64 hexadecimal digits")
  (list "clash.testUrl" .Values.clash.testUrl "^https?://.+" "a URL that begins with http:// or https://")
  (list "agent.maxUnavailable" .Values.agent.maxUnavailable "^([1-9][0-9]*|([1-9][0-9]?|100)%)$" "a number of nodes from 1, or a percentage such as 10%")
  (list "agent.certsDir" .Values.agent.certsDir "^(/.+)?$" $path)
  (list "agent.criSocket" .Values.agent.criSocket "^(/.+)?$" $path)
  (list "agent.stateDir" .Values.agent.stateDir "^/.+" $path)
  (list "metrics.podMonitor.interval" .Values.metrics.podMonitor.interval "^[0-9]+(ms|s|m|h)$" $interval)
  (list "metrics.serviceMonitor.interval" .Values.metrics.serviceMonitor.interval "^[0-9]+(ms|s|m|h)$" $interval)
}}
{{- if not (regexMatch (index . 2) (index . 1 | toString)) }}
{{ index . 0 }} is "{{ index . 1 }}": write {{ index . 3 }}.
{{- end }}
{{- end }}
{{- /* What may hold a secret is not repeated. */}}
{{- if not (regexMatch "^((https?://)?[^/?#@\\s]+/?)?$" .Values.s3.regionEndpoint) }}
s3.regionEndpoint is no address of a server: write http://HOST[:PORT] or https://HOST[:PORT], without a path; the bucket and the keys have values of their own.
{{- end }}
{{- if not (regexMatch "^(https?://.+)?$" .Values.clash.subscriptionUrl) }}
clash.subscriptionUrl is no address of a subscription: write a URL that begins with http:// or https://, or give clash.existingSecret with a whole mihomo configuration.
{{- end }}
{{- range $file, $text := .Values.ca.bundles }}
{{- if not (regexMatch "^\\w[\\w.-]*$" $file) }}
ca.bundles has the file name "{{ $file }}": write letters, digits, dots, hyphens and underscores, without a path.
{{- end }}
{{- if not (contains "-----BEGIN CERTIFICATE-----" $text) }}
ca.bundles: {{ $file }} holds no certificate: give its PEM text, as with "--set-file ca.bundles.NAME=FILE".
{{- end }}
{{- end }}
{{- range $label := list "name" "instance" "component" "part-of" "version" "managed-by" | sortAlpha }}
{{- $label = printf "app.kubernetes.io/%s" $label }}
{{- range $place, $labels := dict "commonLabels" $.Values.commonLabels "agent.podLabels" $.Values.agent.podLabels "registry.podLabels" $.Values.registry.podLabels "webhook.podLabels" $.Values.webhook.podLabels }}
{{- if hasKey $labels $label }}
{{ $place }} has {{ $label }}, which is the chart's own: take it out, or use nameOverride.
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weir.problems.registry" }}
{{- $s3 := .Values.s3 }}
{{- $keys := .Values.s3Credentials }}
{{- if $s3.bucket }}
{{- if not (or $s3.region $s3.regionEndpoint) }}
s3.bucket needs s3.region, or s3.regionEndpoint for a server that is not AWS.
{{- end }}
{{- if .Values.persistence.enabled }}
persistence.enabled makes a volume that nothing would use beside s3.bucket: unset one of the two.
{{- end }}
{{- else }}
{{- if or $s3.region $s3.regionEndpoint $s3.ca $keys.accessKeyId $keys.secretAccessKey $keys.existingSecret }}
s3 and s3Credentials do nothing without s3.bucket: set it, or unset the rest of them.
{{- end }}
{{- if gt (include "weir.replicas" . | int) 1 }}
registry.replicas is {{ .Values.registry.replicas }}, and replicas share a store on S3 only: set s3.bucket, or registry.replicas to 1.
{{- end }}
{{- if and .Values.persistence.existingClaim (not .Values.persistence.enabled) }}
persistence.existingClaim does nothing without persistence.enabled: set it to true.
{{- end }}
{{- end }}
{{- if and $keys.existingSecret (or $keys.accessKeyId $keys.secretAccessKey) }}
s3Credentials.existingSecret and keys in the values are both given: keep one of the two.
{{- else if and $keys.accessKeyId (not $keys.secretAccessKey) }}
s3Credentials.accessKeyId needs s3Credentials.secretAccessKey.
{{- else if and $keys.secretAccessKey (not $keys.accessKeyId) }}
s3Credentials.secretAccessKey needs s3Credentials.accessKeyId.
{{- end }}
{{- if and $s3.ca (not (include "weir.hasBundle" (list . $s3.ca))) }}
s3.ca names the file {{ $s3.ca }}, which is none of ca.bundles: add it there, or name your ca.existingConfigMap or ca.existingSecret.
{{- end }}
{{- with .Values.upstreamCredentials }}
{{- if and .existingSecret .registries }}
upstreamCredentials.existingSecret and upstreamCredentials.registries are both given: keep one of the two.
{{- end }}
{{- end }}
{{- with .Values.clash }}
{{- if and .enabled .existingSecret .subscriptionUrl }}
clash.existingSecret and clash.subscriptionUrl are both given: keep one of the two.
{{- else if and .enabled (not (or .existingSecret .subscriptionUrl)) }}
clash.enabled needs clash.subscriptionUrl, or clash.existingSecret with a whole mihomo configuration.
{{- else if and (not .enabled) (or .existingSecret .subscriptionUrl) }}
clash.subscriptionUrl and clash.existingSecret do nothing without clash.enabled: set it to true, or unset them.
{{- end }}
{{- end }}
{{- with .Values.networkPolicy }}
{{- if and .enabled .from }}
{{- $blocks := list }}
{{- range .from }}{{ if hasKey . "ipBlock" }}{{ $blocks = append $blocks . }}{{ end }}{{ end }}
{{- if not $blocks }}
networkPolicy.from lets no node in: agents and kubelets are on the host's network and match no selector, so add an ipBlock with the nodes' addresses.
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weir.problems.registryTls" }}
{{- with .Values.registry.tls }}
{{- if and .enabled (not .existingSecret) (not .certManager.enabled) }}
registry.tls.enabled needs a certificate: set registry.tls.existingSecret to a Secret with tls.crt, tls.key and ca.crt, or registry.tls.certManager.enabled.
{{- end }}
{{- if and .existingSecret .certManager.enabled }}
registry.tls.existingSecret and registry.tls.certManager.enabled are both given: keep one of the two.
{{- end }}
{{- range $key, $given := dict "existingSecret" .existingSecret "existingCaConfigMap" .existingCaConfigMap "certManager.enabled" .certManager.enabled }}
{{- if and $given (not $.Values.registry.tls.enabled) }}
registry.tls.{{ $key }} does nothing without registry.tls.enabled: set that to true, or unset this.
{{- end }}
{{- end }}
{{- include "weir.problems.issuer" (list "registry.tls" .certManager) }}
{{- if and .enabled (has $.Values.mirrorAddress (list "service" "nodePort")) }}
mirrorAddress is {{ $.Values.mirrorAddress }}, and the files of nodes would say http:// of a registry that speaks TLS: take the door, or a URL with https:// under which nodes know its certificate, or unset registry.tls.enabled.
{{- end }}
{{- end }}
{{- end }}

{{/* Takes the place of a certManager of the values, and that. */}}
{{- define "weir.problems.issuer" }}
{{- $place := index . 0 }}
{{- with index . 1 }}
{{- if and .enabled .issuerRef (not .issuerRef.name) }}
{{ $place }}.certManager.issuerRef does nothing without a name: give it one, or leave all of it out.
{{- end }}
{{- if and .issuerRef (not .enabled) }}
{{ $place }}.certManager.issuerRef does nothing without {{ $place }}.certManager.enabled: set it to true.
{{- end }}
{{- end }}
{{- end }}

{{- define "weir.problems.config" }}
{{- $given := omit .Values.config "existingConfigMap" }}
{{- if and .Values.config.existingConfigMap $given }}
config.existingConfigMap is given, and so is config.{{ keys $given | sortAlpha | first }}: keep the configuration in one of the two.
{{- end }}
{{- $egress := $given.egress | default dict }}
{{- $upstreams := $given.upstreams | default dict }}
{{- $parts := dict "config.defaults" ($given.defaults | default dict) }}
{{- range $host, $upstream := $upstreams }}
{{- $_ := set $parts (printf "config.upstreams.%s" $host) ($upstream | default dict) }}
{{- end }}
{{- range $place, $part := $parts }}
{{- range $group := list "tags" "timeouts" }}
{{- range $key, $value := get $part $group | default dict }}
{{- if not (regexMatch "^([0-9]+(ms|s|m|h|d))+$" (toString $value)) }}
{{ $place }}.{{ $group }}.{{ $key }} is "{{ $value }}": write a number with its unit, as in 60s or 10m.
{{- end }}
{{- end }}
{{- end }}
{{- range $part.warm }}
{{- if not (regexMatch "^(nodes|[a-z0-9]+/[a-z0-9]+(/[a-z0-9]+)?)$" .) }}
{{ $place }}.warm has "{{ . }}": write OS/ARCHITECTURE, as in linux/arm64, or nodes.
{{- end }}
{{- end }}
{{- with $part.ca }}
{{- if not (regexMatch "^\\w[\\w.-]*$" .) }}
{{ $place }}.ca is "{{ . }}": write the name of a file among the ca bundles, without a path.
{{- end }}
{{- end }}
{{- with $part.prefix }}
{{- if not (regexMatch "^[a-z0-9]+([._-][a-z0-9]+)*$" .) }}
{{ $place }}.prefix is "{{ . }}": write one path component of lower-case letters and digits, without slashes.
{{- end }}
{{- end }}
{{- end }}
{{- range $given.skipOwners }}
{{- if not (regexMatch "^([*]|[A-Z][A-Za-z0-9]{0,62})([.][a-z0-9]+([.-][a-z0-9]+)*)?$" .) }}
config.skipOwners has "{{ . }}": write KIND.GROUP as in Cluster.postgresql.cnpg.io, or *.GROUP for every kind.
{{- end }}
{{- end }}
{{- $addresses := dict }}
{{- $places := dict }}
{{- range $group := list "upstreams" "proxies" }}
{{- range $host, $upstream := get $given $group | default dict }}
{{- $place := printf "config.%s.%s" $group $host }}
{{- if not (regexMatch (printf "^%s$" (include "weir.hostPattern" $)) $host) }}
config.{{ $group }} has "{{ $host }}": write a host as in names of images, HOST or HOST:PORT.
{{- end }}
{{- $canonical := include "weir.canonicalHost" $host }}
{{- with get $places $canonical }}
{{ . }} and {{ $place }} are both {{ $canonical }}: keep one of the two.
{{- end }}
{{- $_ := set $places $canonical $place }}
{{- if kindIs "string" $upstream }}
{{- $_ := set $addresses $place $upstream }}
{{- end }}
{{- range $key := list "endpoint" "mirror" }}
{{- if and (kindIs "map" $upstream) (hasKey ($upstream | default dict) $key) }}
{{- $_ := set $addresses (printf "%s.%s" $place $key) (get $upstream $key) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- /* What may hold a secret is not repeated. */}}
{{- range $place, $address := $addresses }}
{{- if not (regexMatch "^((?i)https?://)?[^/?#@\\s\\\\]+(/([a-z0-9][a-z0-9._/-]*)?)?$" $address) }}
{{ $place }} is no address of a registry: write https://HOST[:PORT] or http://HOST[:PORT], with a path only where the registry is kept under one.
{{- end }}
{{- end }}
{{- range $way, $hops := $egress }}
{{- range kindIs "string" $hops.proxy | ternary (list $hops.proxy) $hops.proxy }}
{{- if not (regexMatch "^(direct|(https?|socks5)://.+)$" .) }}
config.egress.{{ $way }}.proxy is no way out: write http://HOST:PORT, https://HOST:PORT, socks5://HOST:PORT or direct, or a list of these.
{{- end }}
{{- end }}
{{- end }}
{{- $places := dict }}
{{- with dig "defaults" "egress" "" $given }}{{ $_ := set $places "config.defaults.egress" . }}{{ end }}
{{- range $host, $upstream := $upstreams }}
{{- with ($upstream | default dict).egress }}{{ $_ := set $places (printf "config.upstreams.%s.egress" $host) . }}{{ end }}
{{- end }}
{{- $used := list }}
{{- range $place, $name := $places }}
{{- if ne $name "direct" }}
{{- if not (hasKey $egress $name) }}
{{ $place }} is "{{ $name }}", and config.egress has no such entry: add one, as in "egress: { {{ $name }}: { proxy: http://127.0.0.1:7890 } }".
{{- else }}
{{- $used = append $used (get $egress $name | toJson) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and (contains "//127.0.0.1:7890" (join " " $used)) (not .Values.clash.enabled) (not .Values.registry.extraContainers) }}
config.egress has the proxy 127.0.0.1:7890, and nothing listens there: set clash.enabled, or add a proxy of yours to registry.extraContainers.
{{- end }}
{{- range $host, $upstream := $upstreams }}
{{- with $upstream }}
{{- if and .credentials (not (include "weir.dockerConfigSecretName" $)) }}
config.upstreams.{{ $host }}.credentials is "{{ .credentials }}", and there are no upstreamCredentials: give upstreamCredentials.existingSecret or upstreamCredentials.registries.
{{- else if and .credentials $.Values.upstreamCredentials.registries (not (hasKey $.Values.upstreamCredentials.registries .credentials)) }}
config.upstreams.{{ $host }}.credentials is "{{ .credentials }}", which is none of upstreamCredentials.registries: add it there.
{{- end }}
{{- if and .credentials (not .access) }}
config.upstreams.{{ $host }}.credentials: whoever reaches the registry can then pull what these credentials can; if that is meant, add "access: everyone".
{{- end }}
{{- if and .ca (not (include "weir.hasBundle" (list $ .ca))) }}
config.upstreams.{{ $host }}.ca names the file {{ .ca }}, which is none of ca.bundles: add it there, or name your ca.existingConfigMap or ca.existingSecret.
{{- end }}
{{- if and (eq (.via | default "") "node") (not .mirror) }}
config.upstreams.{{ $host }}.via is "node", and there is no mirror to send the nodes to: add "mirror: https://HOST", or remove via.
{{- else if eq (.via | default "") "node" }}
{{- $mirror := include "weir.mirrorName" .mirror | splitList "/" | first }}
{{- if not (include "weir.isHostOfImages" $mirror) }}
config.upstreams.{{ $host }}.mirror has the host "{{ $mirror }}", which names of images would have as a repository of Docker Hub: with "via: node", write one with a dot, or with a port of its own.
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weir.problems.nodes" }}
{{- $address := .Values.mirrorAddress }}
{{- if not (or (has $address (list "door" "service" "nodePort")) (regexMatch "^https?://[^/?#@\\s]+/?$" $address)) }}
mirrorAddress is "{{ $address }}": write door, service, nodePort, or a URL such as https://mirror.example:5000, without a path.
{{- end }}
{{- with .Values.mirrorCa }}
{{- if not (hasPrefix "https://" $address) }}
mirrorCa is for a mirrorAddress that is a URL with https://: unset one of the two.
{{- end }}
{{- if not (include "weir.hasBundle" (list $ .)) }}
mirrorCa names the file {{ . }}, which is none of ca.bundles: add it there, or name your ca.existingConfigMap or ca.existingSecret.
{{- end }}
{{- end }}
{{- if and (eq $address "nodePort") (not .Values.nodePort.enabled) }}
mirrorAddress is nodePort, and there is no such Service: set nodePort.enabled to true.
{{- end }}
{{- if and .Values.nodePort.port (not .Values.nodePort.enabled) }}
nodePort.port does nothing without nodePort.enabled: set it to true.
{{- end }}
{{- $door := int .Values.door.port }}
{{- $metrics := int .Values.agent.metricsPort }}
{{- if eq $door $metrics }}
door.port and agent.metricsPort are both {{ $door }}: every node needs two free ports.
{{- end }}
{{- range $name, $port := dict "door.port" $door "agent.metricsPort" $metrics }}
{{- if lt $port 1024 }}
{{ $name }} is {{ $port }}, and the agent may not listen below 1024: choose another.
{{- else if and (ge $port 30000) (le $port 32767) }}
{{ $name }} is {{ $port }}, which Kubernetes may give to a Service (30000 to 32767 are for NodePorts): choose another.
{{- end }}
{{- end }}
{{- range list "NODE_NAME" "HOST_IP" }}
{{- if include "weir.hasEnv" (list $.Values.agent.extraEnv .) }}
agent.extraEnv has {{ . }}, by which an agent knows its node: take it out.
{{- end }}
{{- end }}
{{- if and .Values.agent.criticalPodsQuota (not .Values.agent.priorityClassName) }}
agent.criticalPodsQuota is a quota for agent.priorityClassName: give one, or unset the quota.
{{- end }}
{{- end }}

{{- define "weir.problems.webhook" }}
{{- $config := .Values.config }}
{{- with .Values.webhook }}
{{- if lt (int .port) 1024 }}
webhook.port is {{ .port }}, and the webhook may not listen below 1024: choose another.
{{- else if eq (int .port) 8080 }}
webhook.port is 8080, where the webhook tells how it is: choose another.
{{- end }}
{{- if and (not .enabled) (eq ($config.fallback | default "") "always") }}
config.fallback is "always", and there is no webhook: set webhook.enabled to true, or leave fallback out.
{{- end }}
{{- if and .enabled (not (include "weir.rewriteTo" $)) (eq ($config.fallback | default "") "always") }}
config.fallback is "always", and without the door nodes find the registry under no name that images could have: set webhook.rewriteTo.
{{- end }}
{{- $door := printf "127.0.0.1:%d" (int $.Values.door.port) }}
{{- $known := include "weir.configKnown" $ | fromYaml }}
{{- $meant := include "weir.configMeant" $ | fromYaml }}
{{- range list (list "webhook.rewriteTo" .rewriteTo $known) (list "config.rewriteTo" $config.rewriteTo $meant) }}
{{- $place := index . 0 }}
{{- $mirrored := index . 2 }}
{{- with index . 1 }}
{{- $hosts := list }}
{{- range list $mirrored.upstreams $mirrored.proxies }}
{{- range $host, $_ := kindIs "map" . | ternary . dict }}
{{- $hosts = append $hosts (include "weir.canonicalHost" $host) }}
{{- end }}
{{- end }}
{{- if has (include "weir.canonicalHost" .) $hosts }}
{{ $place }} is "{{ . }}", which is an upstream and not weir's registry: write a host under which nodes reach the registry, or leave it out.
{{- else if not (include "weir.isHostOfImages" .) }}
{{ $place }} is "{{ . }}", which names of images would have as a repository of Docker Hub: write a host with a dot or with its port, as in mirror.corp or mirror:443.
{{- else if include "weir.isLoopback" . }}
{{- if ne $.Values.mirrorAddress "door" }}
{{ $place }} is "{{ . }}", and with the mirrorAddress {{ $.Values.mirrorAddress }} no node has a door there: write a host under which nodes reach the registry, or leave it out.
{{- else if ne . $door }}
{{ $place }} is "{{ . }}", and the door of a node is at {{ $door }}: leave it out, or write a host under which nodes reach the registry.
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- $isKnown := and (not $config.existingConfigMap) (eq (include "weir.mirrorNames" $) "{}") }}
{{- if and .enabled .fallbackNodeSelector $isKnown (include "weir.isLoopback" (include "weir.rewriteToInForce" $)) }}
webhook.fallbackNodeSelector is for nodes without an agent, where nobody listens on 127.0.0.1: set {{ hasKey $known "rewriteTo" | ternary "config" "webhook" }}.rewriteTo to a host under which they reach the registry.
{{- end }}
{{- if regexMatch "(^|[ ,!])weir[.]dev/mirror([ ,=!]|$)" .fallbackNodeSelector }}
webhook.fallbackNodeSelector has the label weir.dev/mirror, which agents write: select the nodes without an agent by a label of theirs.
{{- end }}
{{- if not .enabled }}
{{- range $key, $given := dict "rewriteTo" .rewriteTo "fallbackNodeSelector" .fallbackNodeSelector "certManager.enabled" .certManager.enabled }}
{{- if $given }}
webhook.{{ $key }} does nothing without webhook.enabled: set that to true, or unset this.
{{- end }}
{{- end }}
{{- end }}
{{- if .enabled }}
{{- range $of, $account := dict "agent" (include "weir.agentAccount" $) "registry" (include "weir.registryAccount" $) }}
{{- if eq $account (include "weir.webhookAccount" $) }}
The webhook's service account is {{ $account }}, which is the {{ $of }}'s as well, and each would have the other's rights: give webhook.serviceAccount.name another.
{{- end }}
{{- end }}
{{- end }}
{{- include "weir.problems.issuer" (list "webhook" .certManager) }}
{{- end }}
{{- end }}

{{/* What only the cluster can tell; nothing without one, as with `helm template`. */}}
{{- define "weir.problems.cluster" }}
{{- $level := dig "metadata" "labels" "pod-security.kubernetes.io/enforce" "" (lookup "v1" "Namespace" "" .Release.Namespace | default dict) }}
{{- if has $level (list "baseline" "restricted") }}
The namespace {{ .Release.Namespace }} enforces PodSecurity "{{ $level }}", which lets no agent start, since it writes files of the node: run `{{ include "weir.labelCommand" . }}`, or choose another namespace.
{{- end }}
{{- with include "weir.claimName" . }}
{{- $claim := lookup "v1" "PersistentVolumeClaim" $.Release.Namespace . | default dict }}
{{- if dig "metadata" "deletionTimestamp" "" $claim }}
The claim {{ . }} is still being deleted, and a registry of now would wait for it in vain: wait until `kubectl --namespace {{ $.Release.Namespace }} wait --for=delete persistentvolumeclaim/{{ . }}` ends, then try again.
{{- end }}
{{- end }}
{{- if not .Values.agent.nodeSelector }}
{{- range (lookup "apps/v1" "DaemonSet" "" "" | default dict).items }}
{{- $labels := .metadata.labels | default dict }}
{{- $ours := and (eq .metadata.namespace $.Release.Namespace) (eq .metadata.name (include "weir.agentName" $)) }}
{{- if and (eq (get $labels "app.kubernetes.io/part-of") "weir") (eq (get $labels "app.kubernetes.io/component") "agent") (not $ours) (not .metadata.deletionTimestamp) }}
weir is installed already, as {{ .metadata.name }} in the namespace {{ .metadata.namespace }}, and two agents would fight over the files of a node: remove one, or give each its own agent.nodeSelector.
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weir.labelCommand" -}}
kubectl label --overwrite namespace {{ .Release.Namespace }} pod-security.kubernetes.io/enforce=privileged
{{- end }}

{{/* Whether a bundle is there, as far as it can be known here. Takes the root and the file's name. */}}
{{- define "weir.hasBundle" -}}
{{- with (index . 0).Values.ca }}{{ if or .existingConfigMap .existingSecret (hasKey .bundles (index $ 1)) }}true{{ end }}{{ end }}
{{- end }}
