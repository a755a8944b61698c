{{/*
After the release is gone, not before: an agent that still ran would put back what is taken away.
Argument: weight, the order within the hook.
*/}}
{{- define "sidegate.cleanupHook" -}}
helm.sh/hook: post-delete
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
