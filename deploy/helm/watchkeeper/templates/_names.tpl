{{- define "watchkeeper.name" -}}
{{- if contains "watchkeeper" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-watchkeeper" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "watchkeeper.labels" -}}
app.kubernetes.io/name: watchkeeper
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "watchkeeper.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* What every container has: variables of the release, the configuration, no rights, nothing writable but its state. */}}
{{- define "watchkeeper.container" -}}
image: {{ include "watchkeeper.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: stop, mountPath: /etc/watchkeeper-stop, readOnly: true}
  - {name: config, mountPath: /etc/watchkeeper, readOnly: true}
  - {name: state, mountPath: /var/lib/watchkeeper}
  - {name: tmp, mountPath: /tmp}
  {{- if .Values.kubernetes.namespaces }}
  - {name: cluster, mountPath: /etc/cluster, readOnly: true}
  {{- end }}
{{- end }}

{{- define "watchkeeper.envFrom" -}}
- configMapRef: {name: {{ include "watchkeeper.name" . }}-environment}
- secretRef: {name: {{ .Values.secrets.name }}}
{{- end }}

{{- define "watchkeeper.pod" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
automountServiceAccountToken: false
terminationGracePeriodSeconds: 40
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
volumes:
  - name: stop   # the kill switch for when the database is away: it stops everything while somebody has made this
    configMap: {name: {{ include "watchkeeper.name" . }}-stop, optional: true}
  - name: config
    configMap: {name: {{ include "watchkeeper.name" . }}}
  - {name: state, emptyDir: {}}
  - {name: tmp, emptyDir: {}}
  {{- if .Values.kubernetes.namespaces }}
  - name: cluster
    configMap: {name: kube-root-ca.crt}   # Kubernetes puts it into every namespace
  {{- end }}
{{- end }}

{{- define "watchkeeper.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 10
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 5
  timeoutSeconds: 4
{{- end }}
