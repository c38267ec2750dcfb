{{- define "llmfleet.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "llmfleet.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "llmfleet.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "llmfleet.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "llmfleet.fullname" .) -}}
{{- end -}}

{{- /* Labels no selector uses. They never carry app.kubernetes.io/managed-by: llmfleet, which marks what the operator made. */ -}}
{{- define "llmfleet.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: operator
{{ include "llmfleet.selector" . }}
{{- end -}}

{{- define "llmfleet.selector" -}}
app.kubernetes.io/name: {{ include "llmfleet.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* Labels as NAME=VALUE,…: {{ include "llmfleet.pairs" (dict "app" "x") }} */ -}}
{{- define "llmfleet.pairs" -}}
{{- $pairs := list -}}
{{- range $name, $value := . }}{{ $pairs = append $pairs (printf "%s=%s" $name $value) }}{{ end -}}
{{- join "," $pairs -}}
{{- end -}}

{{- /* Secrets that the operator needs for Prometheus: what of → name, as YAML. */ -}}
{{- define "llmfleet.prometheusSecrets" -}}
{{- $secrets := dict -}}
{{- with .Values.prometheus -}}
{{- if and .tokenSecret .basicAuthSecret -}}
{{- fail "prometheus.tokenSecret and prometheus.basicAuthSecret are both set: leave one out" -}}
{{- end -}}
{{- range $name, $_ := .headers -}}
{{- if and (eq (lower $name) "authorization") (or $.Values.prometheus.tokenSecret $.Values.prometheus.basicAuthSecret) -}}
{{- fail "prometheus.headers has Authorization beside tokenSecret or basicAuthSecret: leave one out" -}}
{{- end -}}
{{- end -}}
{{- range $part, $secret := dict "token" .tokenSecret "basic-auth" .basicAuthSecret "ca" .caSecret
      "client-certificate" .clientCertificateSecret -}}
{{- if $secret }}{{ $_ := set $secrets $part $secret }}{{ end -}}
{{- end -}}
{{- end -}}
{{- toYaml $secrets -}}
{{- end -}}

{{- /* include "llmfleet.image" (dict "root" . "image" .Values.images.operator) */ -}}
{{- define "llmfleet.image" -}}
{{- $name := printf "%s%s" .root.Values.images.registry .image.repository -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $name .image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (.image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
