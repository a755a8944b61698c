{{/*
By Envoy's admin socket. Envoy waits for the agent as long as that takes, and is not ended for it.
*/}}
{{- define "sidegate.proxyProbes" -}}
readinessProbe:
  exec: {command: [curl, -sf, -m, "4", --unix-socket, /run/sidegate/envoy/admin.sock, "http://envoy/ready"]}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}
