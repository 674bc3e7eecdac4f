{{- define "gsdk2mqtt.selector" -}}
app.kubernetes.io/name: gsdk2mqtt
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
{{- define "gsdk2mqtt.metadata" -}}
name: {{ .Release.Name }}
labels:
  {{- include "gsdk2mqtt.selector" . | nindent 2 }}
  app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
  app.kubernetes.io/managed-by: {{ .Release.Service }}
  helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
