{{/* Whether networks run on a server of this chart. */}}
{{- define "wetread.serving" -}}
{{- if or .Values.triton.enabled .Values.kserve.enabled }}true{{ end -}}
{{- end -}}

{{/* The detectors whose networks the server holds, as JSON: name -> its values. */}}
{{- define "wetread.served" -}}
{{- $served := dict -}}
{{- range $name, $of := .Values.detectors -}}
{{- if and $of.enabled (ne $of.engine "inprocess") -}}{{- $_ := set $served $name $of -}}{{- end -}}
{{- end -}}
{{- toJson $served -}}
{{- end -}}

{{/* The pod values of the server, as JSON: those of `pod`, of `triton.pod`, and a GPU when a detector wants one. */}}
{{- define "wetread.tritonPod" -}}
{{- $pod := mustMergeOverwrite (deepCopy .Values.pod) (deepCopy .Values.triton.pod) -}}
{{- $wanted := false -}}
{{- range $of := include "wetread.served" . | fromJson -}}{{- if $of.gpu -}}{{- $wanted = true -}}{{- end -}}{{- end -}}
{{- if $wanted -}}
{{- $gpu := .Values.triton.gpu -}}
{{- $_ := set $pod.resources.limits "nvidia.com/gpu" $gpu.count -}}
{{- $_ := set $pod "nodeSelector" (mustMergeOverwrite (deepCopy $gpu.nodeSelector) $pod.nodeSelector) -}}
{{- $_ := set $pod "tolerations" (concat $pod.tolerations $gpu.tolerations) -}}
{{- end -}}
{{- toJson $pod -}}
{{- end -}}

{{/* One container per detector that writes its model repository: Triton takes several repositories. */}}
{{- define "wetread.renderContainers" -}}
{{- range $name, $of := include "wetread.served" . | fromJson }}
- name: render-{{ $name }}
  image: {{ include "wetread.image" $ }}
  imagePullPolicy: {{ $.Values.image.pullPolicy }}
  args:
    - models
    - render
    - --out=/models/{{ $name }}
    - --only={{ $name }}
    - --target={{ $of.engine }}
    - --instances={{ $of.instances }}
    - {{ ternary "--gpu" "--no-gpu" $of.gpu }}
  resources:
    requests: {cpu: 100m, memory: 256Mi, ephemeral-storage: 64Mi}
    limits: {memory: 1Gi, ephemeral-storage: 256Mi}
  securityContext:
    {{- include "wetread.containerSecurity" $ | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: models, mountPath: /models}
{{- end }}
{{- end -}}

{{/* The body of the server's container, without its name. Takes root and pod. */}}
{{- define "wetread.tritonContainer" -}}
image: {{ include "wetread.tritonImage" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: [tritonserver]
args:
  - --model-control-mode=explicit
  {{- range $name, $_ := include "wetread.served" .root | fromJson }}
  - --model-repository=/models/{{ $name }}
  - --load-model={{ $name }}
  {{- end }}
  - --strict-readiness=true
  - --exit-timeout-secs={{ sub (int .pod.terminationGracePeriodSeconds) 10 }}
ports:
  - {name: http, containerPort: 8000}
  - {name: grpc, containerPort: 8001}
  - {name: metrics, containerPort: 8002}
resources: {{ toYaml .pod.resources | nindent 2 }}
securityContext:
  {{- include "wetread.containerSecurity" . | nindent 2 }}
{{- with .pod.extraEnv }}
env: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.extraEnvFrom }}
envFrom: {{ toYaml . | nindent 2 }}
{{- end }}
startupProbe: {httpGet: {path: /v2/health/live, port: http}, periodSeconds: 5, timeoutSeconds: 5, failureThreshold: 60}
readinessProbe: {httpGet: {path: /v2/health/ready, port: http}, periodSeconds: 5, timeoutSeconds: 5}
livenessProbe: {httpGet: {path: /v2/health/live, port: http}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
lifecycle: {preStop: {exec: {command: [sleep, "5"]}}}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: models, mountPath: /models, readOnly: true}
  - {name: shm, mountPath: /dev/shm}
  {{- with .pod.extraVolumeMounts }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end -}}

{{/* What the server's pod has around its containers, in a Deployment and in an InferenceService. Takes root and pod. */}}
{{- define "wetread.tritonAround" -}}
{{- $context := dict "root" .root "component" "triton" "pod" .pod -}}
serviceAccountName: {{ include "wetread.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
terminationGracePeriodSeconds: {{ .pod.terminationGracePeriodSeconds }}
securityContext:
  {{- include "wetread.podSecurity" . | nindent 2 }}
{{- with .root.Values.global.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with include "wetread.priorityClass" $context }}
priorityClassName: {{ . }}
{{- end }}
{{- with .pod.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .pod.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
initContainers:
  {{- include "wetread.renderContainers" .root | nindent 2 }}
volumes:
  - {name: tmp, emptyDir: {sizeLimit: {{ .pod.tmpSize }}}}
  - {name: models, emptyDir: {sizeLimit: {{ .pod.dataSize }}}}
  - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ .root.Values.triton.sharedMemory }}}}
  {{- with .pod.extraVolumes }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end -}}
