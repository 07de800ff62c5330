{{- define "wetread.validate" -}}
{{- if eq .Values.profile "cluster" -}}
{{- if not .Values.database.existingSecret -}}
{{- fail "profile cluster: set database.existingSecret to a Secret whose key `url` is postgresql://user:password@host/name" -}}
{{- end -}}
{{- if not .Values.objectStore.url -}}
{{- fail "profile cluster: set objectStore.url to s3://bucket/prefix" -}}
{{- end -}}
{{- if and .Values.services.dimse.enabled (not .Values.dimse.peers) -}}
{{- fail "services.dimse: set dimse.peers, without which the DICOM port binds loopback only" -}}
{{- end -}}
{{- if and .Values.keda.enabled (not .Values.keda.existingSecret) -}}
{{- fail "keda: set keda.existingSecret to a Secret whose key `connection` is the URL of a role that may read the queue" -}}
{{- end -}}
{{- $taken := list -}}
{{- range $pool, $of := .Values.queues -}}
{{- if $of.enabled -}}{{- $taken = concat $taken $of.takes -}}{{- end -}}
{{- end -}}
{{- if and .Values.services.worker.enabled (or $taken .Values.services.orchestration.enabled) -}}
{{- fail "services.worker takes every queue: switch it off where services.orchestration and queues take its place" -}}
{{- end -}}
{{- if and $taken (not .Values.services.orchestration.enabled) -}}
{{- fail "queues: switch services.orchestration on, which decides what the pools run" -}}
{{- end -}}
{{- if .Values.services.orchestration.enabled -}}
{{- range $queue := list "detector.cpu.stat" "detector.cpu" "detector.cpu.batch" "detector.slide" -}}
{{- if not (has $queue $taken) -}}{{- fail (printf "queues: no enabled pool takes %s" $queue) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.triton.enabled .Values.kserve.enabled -}}
{{- fail "triton and kserve: enable one of them" -}}
{{- end -}}
{{- if and (or .Values.triton.enabled .Values.kserve.enabled) (eq (include "wetread.served" .) "{}") -}}
{{- fail "detectors: none is served; switch triton and kserve off, or set detectors.<name>.engine" -}}
{{- end -}}
{{- if and .Values.ray.job.enabled (not .Values.ray.sharedClaim) -}}
{{- fail "ray.job: set ray.sharedClaim, where the workers leave their parts" -}}
{{- end -}}
{{- if and .Values.ray.job.enabled (not .Values.ray.job.slides) -}}
{{- fail "ray.job: set ray.job.slides" -}}
{{- end -}}
{{- else if .Values.keda.enabled -}}
{{- fail "keda: needs profile cluster; the embedded profile is one pod" -}}
{{- else if or .Values.triton.enabled .Values.kserve.enabled .Values.ray.enabled .Values.ray.job.enabled -}}
{{- fail "triton, kserve and ray: need profile cluster; the embedded profile infers in process" -}}
{{- else if or .Values.database.existingSecret .Values.objectStore.url -}}
{{- fail "database and objectStore belong to profile cluster; set profile: cluster" -}}
{{- end -}}
{{- if .Values.monitoring.rules.runbooks -}}
{{- fail "monitoring.rules.runbooks is now monitoring.rules.runbookBaseUrl" -}}
{{- end -}}
{{- if and .Values.ingress.enabled .Values.httpRoute.enabled -}}
{{- fail "ingress and httpRoute: enable one of them" -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress: set ingress.host" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute: set httpRoute.parentRefs to your Gateway" -}}
{{- end -}}
{{- if and (ne .Values.auth.oidc.issuer "") (eq .Values.auth.oidc.audience "") -}}
{{- fail "auth.oidc: issuer and audience go together" -}}
{{- end -}}
{{- end -}}
