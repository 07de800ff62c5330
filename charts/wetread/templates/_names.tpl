{{- define "wetread.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* 40 characters: a pod's name is this, the component, the ReplicaSet's hash and five letters, 63 in all. */}}
{{- define "wetread.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "wetread.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "wetread.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "wetread.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{/* Takes (dict "root" $ "component" name). Never changes within a release: selectors are immutable. */}}
{{- define "wetread.selector" -}}
app.kubernetes.io/name: {{ include "wetread.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "wetread.labels" -}}
{{ include "wetread.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: wetread
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata of one object: takes root, component and suffix (default: the component). */}}
{{- define "wetread.metadata" -}}
name: {{ include "wetread.fullname" .root }}{{ with (default .component .suffix) }}-{{ . }}{{ end }}
namespace: {{ include "wetread.namespace" .root }}
labels:
  {{- include "wetread.labels" . | nindent 2 }}
{{- end -}}

{{- define "wetread.image" -}}
{{- $registry := default .Values.image.registry .Values.global.imageRegistry -}}
{{- with $registry }}{{ . }}/{{ end }}{{ .Values.image.repository }}
{{- if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end -}}

{{/* Triton's image: from its own registry, unless there is a mirror. */}}
{{- define "wetread.tritonImage" -}}
{{- $image := .Values.triton.image -}}
{{- with default $image.registry .Values.global.imageRegistry }}{{ . }}/{{ end }}{{ $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag }}{{ end }}
{{- end -}}

{{- define "wetread.serviceAccount" -}}
{{- if .Values.serviceAccount.name }}{{ .Values.serviceAccount.name }}
{{- else if .Values.serviceAccount.create }}{{ include "wetread.fullname" . }}
{{- else }}default{{ end -}}
{{- end -}}

{{- define "wetread.authSecret" -}}
{{- default (printf "%s-auth" (include "wetread.fullname" .)) .Values.auth.existingSecret -}}
{{- end -}}

{{- define "wetread.publicBaseUrl" -}}
{{- if .Values.publicBaseUrl }}{{ .Values.publicBaseUrl }}
{{- else if and .Values.ingress.enabled .Values.ingress.host }}{{ ternary "https" "http" (ne .Values.ingress.tlsSecret "") }}://{{ .Values.ingress.host }}
{{- else if and .Values.httpRoute.enabled .Values.httpRoute.hostnames }}https://{{ first .Values.httpRoute.hostnames }}{{ end -}}
{{- end -}}

{{/* The active components of the profile, as JSON: name -> what `wetread serve` is given. Pools of `queues` are
     components too, named `detection-` and the pool. */}}
{{- define "wetread.components" -}}
{{- $all := dict "gateway" (list "gateway") "worklist" (list "worklist" "pathology") "ffrct" (list "ffrct") "worker" (list "health" "detection" "triage" "orchestration") "orchestration" (list "health" "triage" "orchestration") "dimse" (list "dimse") -}}
{{- $active := dict -}}
{{- range $name, $serves := $all -}}
{{- if (index $.Values.services $name).enabled -}}{{- $_ := set $active $name $serves -}}{{- end -}}
{{- end -}}
{{- range $pool, $of := .Values.queues -}}
{{- if $of.enabled -}}{{- $_ := set $active (printf "detection-%s" $pool) (list "health" "detection") -}}{{- end -}}
{{- end -}}
{{- toJson $active -}}
{{- end -}}

{{/* The values of a component, as JSON. Takes root and component. */}}
{{- define "wetread.of" -}}
{{- if hasPrefix "detection-" .component -}}{{- index .root.Values.queues (trimPrefix "detection-" .component) | toJson -}}
{{- else -}}{{- index .root.Values.services .component | toJson -}}{{- end -}}
{{- end -}}

{{/* Whether a component takes work from queues. Takes component. */}}
{{- define "wetread.takesWork" -}}
{{- if or (has .component (list "worker" "orchestration")) (hasPrefix "detection-" .component) }}true{{ end -}}
{{- end -}}

{{/* Whether KEDA scales a component. Takes root and component. */}}
{{- define "wetread.byKeda" -}}
{{- if and .root.Values.keda.enabled (or (eq .component "worker") (hasPrefix "detection-" .component)) }}true{{ end -}}
{{- end -}}

{{/* Whether something else than `replicas` decides on the number of pods. Takes root and component. */}}
{{- define "wetread.scaled" -}}
{{- if include "wetread.byKeda" . }}true
{{- else if dig "autoscaling" "enabled" false (include "wetread.of" . | fromJson) }}true{{ end -}}
{{- end -}}

{{/* Fewest pods of a component. Takes root and component. */}}
{{- define "wetread.atLeast" -}}
{{- $of := include "wetread.of" . | fromJson -}}
{{- if not (include "wetread.scaled" .) }}{{ $of.replicas }}
{{- else if eq .component "worker" }}{{ .root.Values.keda.minReplicas }}
{{- else if hasPrefix "detection-" .component }}{{ $of.minReplicas }}
{{- else }}{{ $of.autoscaling.minReplicas }}{{ end -}}
{{- end -}}
