{{- define "portolan.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "portolan.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "portolan.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "portolan.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "portolan.labels" -}}
{{ include "portolan.chartLabels" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "portolan.chartLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "portolan.operatorSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: portolan
{{- end }}

{{- define "portolan.operatorSelector" -}}
app.kubernetes.io/name: portolan-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* image: {image values, chart context} */}}
{{- define "portolan.image" -}}
{{- $image := .image -}}
{{- $name := printf "%s/%s" $image.registry $image.repository -}}
{{- if $image.digest -}}
{{ printf "%s@%s" $name $image.digest }}
{{- else -}}
{{ printf "%s:%s" $name (default .context.Chart.AppVersion $image.tag) }}
{{- end -}}
{{- end }}

{{/* The release's namespace and every other platform namespace, once each. */}}
{{- define "portolan.platformNamespaces" -}}
{{- prepend .Values.platformNamespaces .Release.Namespace | uniq | toJson }}
{{- end }}

{{- define "portolan.validate" -}}
{{- if and .Values.defaultGateway.enabled (not (has .Values.defaultGateway.name .Values.gateway.names)) }}
{{- fail (printf "defaultGateway.name %q is not enrolled: add it to gateway.names" .Values.defaultGateway.name) }}
{{- end }}
{{- if not .Values.tenantNamespaces }}
{{- fail "tenantNamespaces is empty: name at least one namespace whose MCPServers count" }}
{{- end }}
{{- $own := include "portolan.chartLabels" . | fromYaml }}
{{- range $value, $labels := dict "commonLabels" .Values.commonLabels "operator.podLabels" .Values.operator.podLabels }}
{{- range $label := keys (default dict $labels) | sortAlpha }}
{{- if hasKey $own $label }}
{{- fail (printf "%s sets %s, by which the chart finds its own objects: choose another label" $value $label) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
