{{/* Names are fixed: of what enforces policy there is one in a cluster. */}}

{{/* Arguments: root, component. */}}
{{- define "sidegate.selectorLabels" -}}
app.kubernetes.io/name: sidegate
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Arguments: root, component. */}}
{{- define "sidegate.labels" -}}
{{ include "sidegate.selectorLabels" . }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: sidegate
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* Arguments: root, image. A digest says exactly which; a tag can be moved. */}}
{{- define "sidegate.image" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end -}}
{{- end }}

{{/* Where the official client looks for the API server; nothing for its Service. */}}
{{- define "sidegate.apiServerEnv" -}}
{{- with .Values.kubeApiServer -}}
{{- if .host -}}
- {name: KUBERNETES_SERVICE_HOST, value: {{ .host | quote }}}
- {name: KUBERNETES_SERVICE_PORT, value: {{ .port | quote }}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Of a container that needs no privilege at all; as root, since the node's files are root's. */}}
{{- define "sidegate.plainSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What the agent, and whoever takes its programs away, needs of the kernel. */}}
{{- define "sidegate.datapathSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
  add:
    # bpf(2): load programs, read and write pinned maps.
    - BPF
    # Attach programs to interfaces and cgroups; rules, routes, the hairpin device.
    - NET_ADMIN
    # The verifier refuses the programs' pointers into kernel memory without it.
    - PERFMON
{{- end }}

{{/* The node's network settings: a container's own /proc/sys is read-only. */}}
{{- define "sidegate.procSysMount" -}}
- {name: proc-sys-net, mountPath: /run/sidegate/proc-sys/net}
{{- end }}
{{- define "sidegate.procSysEnv" -}}
- {name: SIDEGATE_PROC_SYS, value: /run/sidegate/proc-sys}
{{- end }}

{{/* The kinds that the operator installs. */}}
{{- define "sidegate.crds" -}}
- ciliumnetworkpolicies.cilium.io
- ciliumclusterwidenetworkpolicies.cilium.io
- ciliumloadbalancerippools.cilium.io
- sidegatenetworkpolicies.policy.sidegate.io
- sidegateclusterwidenetworkpolicies.policy.sidegate.io
- sidegateidentities.policy.sidegate.io
- sidegateendpointslices.policy.sidegate.io
- sidegatepolicyreports.policy.sidegate.io
{{- end }}

{{/* CRDs of the Gateway API that are followed. */}}
{{- define "sidegate.gatewayKinds" -}}
- gatewayclasses
- gateways
- listenersets
- httproutes
- grpcroutes
- tlsroutes
- tcproutes
- udproutes
- backendtlspolicies
{{- end }}

{{/* What Gateways are made of: rules of whoever follows them. */}}
{{- define "sidegate.gatewayRules" -}}
- apiGroups: [gateway.networking.k8s.io]
  resources:
    {{- include "sidegate.gatewayKinds" . | nindent 4 }}
    - referencegrants
  verbs: [list, watch]
- apiGroups: [gateway.networking.x-k8s.io]
  resources: [xmeshes]
  verbs: [list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses, ingressclasses]
  verbs: [list, watch]
# Of Secrets those of type kubernetes.io/tls are asked for; RBAC cannot say so.
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [list, watch]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [get]
  resourceNames:
    {{- range (append (include "sidegate.gatewayKinds" . | fromYamlArray) "referencegrants") }}
    - {{ . }}.gateway.networking.k8s.io
    {{- end }}
    - xmeshes.gateway.networking.x-k8s.io
{{- end }}
