"""What the node's network says of an endpoint's interface when it is registered."""

from __future__ import annotations

from dataclasses import replace

from pyroute2 import NetlinkError

from datapath import routing
from node_agent.endpoints import BadEndpoint, EndpointRecord


def located(record: EndpointRecord) -> EndpointRecord:
    """With ``bridged`` as it is. Not within an event loop. Raises BadEndpoint.

    Envoy answers pods from this node's own network, so behind a bridge the node must have a route
    to them; in primary mode the plugin makes it once the endpoint is closed or has its policy.
    """
    try:
        bridged = routing.is_bridged(record.host_ifindex)
        lost = [
            address
            for address in record.addresses
            if bridged and not routing.leads_to(address, record.host_ifindex)
        ]
    except NetlinkError as error:
        raise BadEndpoint(f"host_ifindex: {record.host_ifindex}: {error}") from None
    if lost:
        raise BadEndpoint(
            f"ipv{lost[0].version}: {record.host_ifname} is the port of a bridge, and this node's "
            f"route to {lost[0]} does not lead there: give the bridge an address (isGateway: true)"
        )
    return replace(record, bridged=bridged)
