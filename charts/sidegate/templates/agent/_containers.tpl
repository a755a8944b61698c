{{/*
By the node's own mount, in the node's mount namespace: mounting from here would need a privileged
container. Arguments: image, agent.
*/}}
{{- define "sidegate.mountFilesystems" -}}
- name: mount-filesystems
  image: {{ .image }}
  imagePullPolicy: {{ .agent.image.pullPolicy }}
  command:
    - sh
    - -ec
    - |
      ensure() { # type, directory, what statfs calls it
        [ "$(stat -f -c %T "$2")" = "$3" ] ||
          nsenter --mount=/host/proc/1/ns/mnt -- mount -t "$1" "$1" "$2"
      }
      ensure bpf /sys/fs/bpf bpf_fs
      ensure cgroup2 {{ .agent.cgroup.root }} cgroup2fs
  env:
    - {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
  securityContext:
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    # The runtime's profile lets nobody into another process's namespaces, nor mount.
    appArmorProfile: {type: Unconfined}
    capabilities:
      drop: [ALL]
      add:
        - SYS_ADMIN # setns(2) to a mount namespace, mount(2)
        - SYS_CHROOT # setns(2) to a mount namespace asks for it too
        - SYS_PTRACE # /proc/1/ns of the node
  volumeMounts:
    - {name: proc, mountPath: /host/proc, readOnly: true}
    - {name: bpffs, mountPath: /sys/fs/bpf}
    - {name: cgroup, mountPath: /sys/fs/cgroup, readOnly: true}
{{- end }}

{{/*
By its socket: nothing of it is on the network. An API server that is away is no reason to start
anew, so an agent that waits for it has all the time; one that is late to answer still enforces.
*/}}
{{- define "sidegate.agentProbes" -}}
{{- $ask := list "curl" "-sf" "-m" "4" "--unix-socket" "/run/sidegate/agent.sock" "http://agent/v1/healthz" -}}
startupProbe:
  exec: {command: {{ toJson $ask }}}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 1800
livenessProbe:
  exec: {command: {{ toJson $ask }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  exec: {command: {{ toJson $ask }}}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}
