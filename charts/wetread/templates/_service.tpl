{{/* The Service of one component's HTTP port. */}}
{{- define "wetread.httpService" -}}
apiVersion: v1
kind: Service
metadata:
  {{- include "wetread.metadata" . | nindent 2 }}
spec:
  ports:
    - {name: http, port: 80, targetPort: http, appProtocol: http}
  selector:
    {{- include "wetread.selector" . | nindent 4 }}
{{- end -}}
