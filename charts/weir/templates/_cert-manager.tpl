{{/*
A certificate that cert-manager makes. Takes the root, the component, the name of its objects, an `issuerRef` of the values, the
Secret's name and the DNS names.
*/}}
{{- define "weir.certificate" -}}
{{- $root := index . 0 }}
{{- $component := index . 1 }}
{{- $name := index . 2 }}
{{- $issuer := index . 3 }}
{{- $labels := include "weir.labels" (list $root $component) }}
{{- if not $issuer.name }}
{{- $issuer = dict "kind" "Issuer" "name" $name }}
# An authority of the release's own, so that a renewed certificate is signed by one that clients know already.
apiVersion: cert-manager.io/v1
kind: Issuer
metadata:
  name: {{ $name }}-self-signed
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- $labels | nindent 4 }}
spec:
  selfSigned: {}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: {{ $name }}-authority
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- $labels | nindent 4 }}
spec:
  isCA: true
  commonName: {{ $name | trunc 50 | trimSuffix "-" }}-authority
  secretName: {{ $name }}-authority
  duration: 43800h
  privateKey:
    algorithm: ECDSA
    size: 256
    # Its next certificate is of the same key, so that what it signs is good for who knows the one before.
    rotationPolicy: Never
  issuerRef:
    kind: Issuer
    name: {{ $name }}-self-signed
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- $labels | nindent 4 }}
spec:
  ca:
    secretName: {{ $name }}-authority
---
{{- end }}
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: {{ $name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- $labels | nindent 4 }}
spec:
  dnsNames:
    {{- index . 5 | toYaml | nindent 4 }}
  secretName: {{ index . 4 }}
  privateKey:
    algorithm: ECDSA
    size: 256
    rotationPolicy: Always
  issuerRef:
    {{- $issuer | toYaml | nindent 4 }}
{{- end }}
