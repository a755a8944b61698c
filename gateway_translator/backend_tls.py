"""How TLS is spoken with a backend, by the BackendTLSPolicy that targets its Service."""

from __future__ import annotations

from dataclasses import dataclass

from gateway_translator.conditions import Condition, bad, good
from gateway_translator.ir import TrustBundle, UpstreamTls
from gateway_translator.resources.core import ServicePort
from gateway_translator.resources.policies import BackendTlsPolicy
from gateway_translator.secrets import trust
from gateway_translator.world import Reader


@dataclass(frozen=True, slots=True)
class PolicyReading:
    """``tls`` None: the policy is invalid, and so are the backends it targets."""

    tls: UpstreamTls | None
    bundle: TrustBundle | None
    conditions: tuple[Condition, ...]


def policy_for(
    reader: Reader, service: tuple[str, str], port: ServicePort
) -> BackendTlsPolicy | None:
    """The oldest that targets the port by name, else the oldest that targets the whole Service."""
    whole = None
    for policy in reader.group(("policies", *service), BackendTlsPolicy):
        for target in policy.spec.target_refs:
            if target.name != service[1] or target.kind != "Service" or target.group:
                continue
            if target.section_name and target.section_name == port.name:
                return policy
            if not target.section_name and whole is None:
                whole = policy
    return whole


def read_policy(policy: BackendTlsPolicy, reader: Reader) -> PolicyReading:
    """``conditions``: Accepted and ResolvedRefs, as if no other policy conflicted."""
    validation = policy.spec.validation
    bundle: TrustBundle | None = None
    if validation.ca_certificate_refs:
        bundle, problems = trust(
            validation.ca_certificate_refs, policy.key, reader, kind_reason="InvalidKind"
        )
        if bundle is None:
            text = "; ".join(map(str, problems))
            return PolicyReading(
                None,
                None,
                (
                    bad("Accepted", "NoValidCACertificate", text),
                    bad("ResolvedRefs", problems[0].reason, text),
                ),
            )
        resolved = (
            bad("ResolvedRefs", problems[0].reason, "; ".join(map(str, problems)))
            if problems
            else good("ResolvedRefs")
        )
    elif validation.well_known != "System":
        text = f"wellKnownCACertificates {validation.well_known!r}: System is supported"
        return PolicyReading(None, None, (bad("Accepted", "Invalid", text),))
    else:
        resolved = good("ResolvedRefs")
    names = tuple(s.hostname for s in validation.subject_alt_names if s.type == "Hostname")
    uris = tuple(s.uri for s in validation.subject_alt_names if s.type == "URI")
    tls = UpstreamTls(validation.hostname, bundle.name if bundle else "", names, uris)
    return PolicyReading(tls, bundle, (good("Accepted"), resolved))


def conflict(policy: BackendTlsPolicy, reader: Reader) -> Condition | None:
    """Where an older policy targets the same Service and port: Accepted is False."""
    for target in policy.spec.target_refs:
        for other in reader.group(("policies", policy.namespace, target.name), BackendTlsPolicy):
            if other.key == policy.key:
                break
            if target in other.spec.target_refs:
                text = f"{other.namespace}/{other.name} is older and targets {target.name} too"
                return bad("Accepted", "Conflicted", text)
    return None
