"""Services by packet, for single pods: those whose sidecar must see the Service's address.

Such a pod's network namespace is named to :meth:`Services.set_bypass` as well. The tables are
those that :class:`Services` writes; policy judges by the backend all the same.
"""

from __future__ import annotations

from pathlib import Path

from datapath.build import SERVICES_PACKET_OBJECT
from datapath.programs import Programs


class PacketServices:
    """All is pinned, as everything of the datapath; detaching an endpoint there ends this too."""

    def __init__(self, bpf_dir: Path) -> None:
        """``bpf_dir`` is that of the node's Datapath, which must be there. Raises BpfError."""
        self._programs = Programs(bpf_dir, SERVICES_PACKET_OBJECT)

    def attach(self, ifindex: int) -> None:
        """``ifindex`` is of the host side of the pod's veth. Raises BpfError."""
        self._programs.attach_outer("service_to_endpoint", ifindex, "egress")
        self._programs.attach_outer("service_from_endpoint", ifindex, "ingress")

    def detach(self, ifindex: int) -> None:
        """What is not attached is no error."""
        self._programs.detach_outer(ifindex)

    def close(self) -> None:
        """Translation goes on."""
        self._programs.close()
