"""The injection template: istio-proxy, and no other container, gets the agent's volume. Pure.

Source: Istio documentation, "Sidecar injection: custom templates".
"""

from __future__ import annotations

from istioctl_patch.names import CSI_DRIVER, DIRECTORY, METADATA, PROXY, VOLUME

NAME = "sidegate"

# Patched into the pod after Istio's own template. A native sidecar is among the init containers; a
# gateway, which asks for its templates by name, is not.
SIDECAR = f"""\
{{{{ $templates := splitList "," (index .ObjectMeta.Annotations `inject.istio.io/templates` | default "" | nospace) }}}}
{{{{ $native := and (not (has "gateway" $templates)) (ne (index .ObjectMeta.Annotations `sidecar.istio.io/nativeSidecar` | default (printf "%t" .NativeSidecars)) "false") }}}}
spec:
  {{{{ if $native }}}}initContainers{{{{ else }}}}containers{{{{ end }}}}:
  - name: {PROXY}
    env:
    - name: ISTIO_META_{METADATA}
      value: "true"
    volumeMounts:
    - name: {VOLUME}
      mountPath: {DIRECTORY}
      readOnly: true
  volumes:
  - name: {VOLUME}
    csi:
      driver: {CSI_DRIVER}
      readOnly: true
"""  # noqa: E501

TEMPLATES = {NAME: SIDECAR}
"""All of ours, by the name that an injector knows them by."""
