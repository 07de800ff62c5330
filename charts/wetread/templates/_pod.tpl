{{- define "wetread.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "wetread.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* The name of a process among those that share the database: the last 16 letters and digits of the pod's name, which
     hold the ReplicaSet's hash and the random part. A restarted container keeps it and takes up its own work. */}}
{{- define "wetread.instanceScript" -}}
WETREAD_INSTANCE=`printf %s "$POD_NAME" | tr -cd a-z0-9 | tail -c 16`; export WETREAD_INSTANCE; exec wetread serve "$@"
{{- end -}}

{{- define "wetread.importance" -}}
{{- if hasPrefix "detection-" .component -}}{{ (include "wetread.of" . | fromJson).priority }}
{{- else if eq .component "ray" -}}batch
{{- else -}}{{ ternary "standard" "critical" (eq .component "ffrct") }}{{- end -}}
{{- end -}}

{{- define "wetread.priorityClass" -}}
{{- if .pod.priorityClassName }}{{ .pod.priorityClassName }}
{{- else if .root.Values.priorityClasses.create }}{{ include "wetread.fullname" .root }}-{{ include "wetread.importance" . }}{{ end -}}
{{- end -}}

{{/* The pod template of one component. Takes root, component, serves (empty: `wetread up`), pod, replicas. */}}
{{- define "wetread.podTemplate" -}}
{{- $root := .root -}}
{{- $cluster := eq $root.Values.profile "cluster" -}}
metadata:
  labels:
    {{- include "wetread.labels" . | nindent 4 }}
    {{- with .pod.labels }}{{ toYaml . | nindent 4 }}{{ end }}
  annotations:
    checksum/config: {{ include (print $root.Template.BasePath "/config.yaml") $root | sha256sum }}
    {{- with .pod.annotations }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  serviceAccountName: {{ include "wetread.serviceAccount" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .pod.terminationGracePeriodSeconds }}
  securityContext:
    {{- include "wetread.podSecurity" . | nindent 4 }}
  {{- with $root.Values.global.imagePullSecrets }}
  imagePullSecrets: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with include "wetread.priorityClass" . }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .pod.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with .pod.nodeSelector }}
  nodeSelector: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .pod.tolerations }}
  tolerations: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- with .pod.affinity }}
  affinity: {{ toYaml . | nindent 4 }}
  {{- end }}
  {{- if and .pod.spreadOverZones (gt (int .replicas) 1) }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: topology.kubernetes.io/zone
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "wetread.selector" . | nindent 10 }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "wetread.image" $root }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      {{- if $cluster }}
      command: [/bin/sh, -ec]
      args:
        - {{ include "wetread.instanceScript" . | quote }}
        - wetread
        {{- range .serves }}
        - {{ . }}
        {{- end }}
      {{- else }}
      args: [up]
      {{- end }}
      envFrom:
        - configMapRef: {name: {{ include "wetread.fullname" $root }}-config}
        {{- if and $cluster $root.Values.objectStore.existingSecret }}
        - secretRef: {name: {{ $root.Values.objectStore.existingSecret }}}
        {{- end }}
        {{- with .pod.extraEnvFrom }}{{ toYaml . | nindent 8 }}{{ end }}
      env:
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        {{- with $root.Values.telemetry }}
        {{- if and .endpoint .headers.existingSecret }}
        - {name: WETREAD_TELEMETRY_HEADERS, valueFrom: {secretKeyRef: {name: {{ .headers.existingSecret }}, key: {{ .headers.key }}}}}
        {{- end }}
        {{- end }}
        {{- if eq .component "dimse" }}
        {{- include "wetread.dimseEnv" $root | nindent 8 }}
        {{- end }}
        {{- if hasPrefix "detection-" .component }}
        {{- $pool := include "wetread.of" . | fromJson }}
        - {name: WETREAD_QUEUES, value: {{ join "," $pool.takes | quote }}}
        - {name: WETREAD_INFERENCE_LANE, value: {{ $pool.lane }}}
        {{- end }}
        {{- with .pod.extraEnv }}{{ toYaml . | nindent 8 }}{{ end }}
      ports:
        - {name: http, containerPort: 8080}
        {{- if eq .component "dimse" }}
        - {name: dicom, containerPort: 11112}
        {{- end }}
      resources: {{ toYaml .pod.resources | nindent 8 }}
      securityContext:
        {{- include "wetread.containerSecurity" . | nindent 8 }}
      startupProbe: {httpGet: {path: /livez, port: http}, periodSeconds: 2, timeoutSeconds: 3, failureThreshold: 90}
      readinessProbe: {httpGet: {path: /readyz, port: http}, periodSeconds: 5, timeoutSeconds: 5}
      livenessProbe: {httpGet: {path: /livez, port: http}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
      lifecycle: {preStop: {exec: {command: [sleep, "5"]}}}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: data, mountPath: /data}
        - {name: auth, mountPath: /etc/wetread/auth, readOnly: true}
        - {name: files, mountPath: /etc/wetread/files, readOnly: true}
        {{- if $cluster }}
        - {name: database, mountPath: /etc/wetread/database, readOnly: true}
        {{- end }}
        {{- if $root.Values.workflows }}
        - {name: workflows, mountPath: /etc/wetread/workflows, readOnly: true}
        {{- end }}
        {{- if and (eq .component "dimse") $root.Values.dimse.tlsSecret }}
        - {name: dicom-tls, mountPath: /etc/wetread/dicom-tls, readOnly: true}
        {{- end }}
        {{- with .pod.extraVolumeMounts }}{{ toYaml . | nindent 8 }}{{ end }}
  volumes:
    - {name: tmp, emptyDir: {sizeLimit: {{ .pod.tmpSize }}}}
    {{- if $cluster }}
    - {name: data, emptyDir: {sizeLimit: {{ .pod.dataSize }}}}
    - name: database
      secret:
        secretName: {{ $root.Values.database.existingSecret }}
        items: [{key: {{ $root.Values.database.key }}, path: url}]
    {{- end }}
    - name: auth
      secret:
        secretName: {{ include "wetread.authSecret" $root }}
        items: [{key: api-keys, path: api-keys}]
    - name: files
      configMap: {name: {{ include "wetread.fullname" $root }}-files}
    {{- if $root.Values.workflows }}
    - name: workflows
      configMap: {name: {{ include "wetread.fullname" $root }}-workflows}
    {{- end }}
    {{- if and (eq .component "dimse") $root.Values.dimse.tlsSecret }}
    - name: dicom-tls
      secret: {secretName: {{ $root.Values.dimse.tlsSecret }}}
    {{- end }}
    {{- with .pod.extraVolumes }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end -}}

{{- define "wetread.dimseEnv" -}}
- {name: WETREAD_DIMSE_HOST, value: 0.0.0.0}
- {name: WETREAD_DIMSE_PORT, value: "11112"}
- {name: WETREAD_DIMSE_AE_TITLE, value: {{ .Values.dimse.aeTitle | quote }}}
- {name: WETREAD_DIMSE_PEERS, value: /etc/wetread/files/peers.yaml}
{{- if .Values.dimse.tlsSecret }}
- {name: WETREAD_DIMSE_TLS_CERTIFICATE, value: /etc/wetread/dicom-tls/tls.crt}
- {name: WETREAD_DIMSE_TLS_KEY, value: /etc/wetread/dicom-tls/tls.key}
{{- if .Values.dimse.mutualTls }}
- {name: WETREAD_DIMSE_TLS_AUTHORITIES, value: /etc/wetread/dicom-tls/ca.crt}
{{- end }}
{{- end }}
{{- end -}}
