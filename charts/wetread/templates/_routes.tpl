{{/* Which component serves which path prefix, the longest first, as a JSON list. */}}
{{- define "wetread.routes" -}}
{{- if eq .Values.profile "embedded" -}}
{{- toJson (dict "routes" (list (dict "path" "/" "component" "all"))) -}}
{{- else -}}
{{- $routes := list -}}
{{- if .Values.services.worklist.enabled -}}
{{- range list "/dicom-web/workitems" "/dicom-web/subscribers" "/dicom-web/ws" -}}
{{- $routes = append $routes (dict "path" . "component" "worklist") -}}
{{- end -}}
{{- end -}}
{{- if .Values.services.ffrct.enabled -}}
{{- range list "/api/v1/ffr" "/api/v1/ffr:batch" -}}
{{- $routes = append $routes (dict "path" . "component" "ffrct") -}}
{{- end -}}
{{- end -}}
{{- if .Values.services.gateway.enabled -}}
{{- $routes = append $routes (dict "path" "/dicom-web" "component" "gateway") -}}
{{- end -}}
{{- if .Values.services.worklist.enabled -}}
{{- $routes = append $routes (dict "path" "/" "component" "worklist") -}}
{{- end -}}
{{- toJson (dict "routes" $routes) -}}
{{- end -}}
{{- end -}}
