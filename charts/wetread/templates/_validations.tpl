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
{{- if and .Values.keda.enabled (not .Values.services.worker.enabled) -}}
{{- fail "keda: scales services.worker, which is off" -}}
{{- end -}}
{{- else if .Values.keda.enabled -}}
{{- fail "keda: needs profile cluster; the embedded profile is one pod" -}}
{{- else if or .Values.database.existingSecret .Values.objectStore.url -}}
{{- fail "database and objectStore belong to profile cluster; set profile: cluster" -}}
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
