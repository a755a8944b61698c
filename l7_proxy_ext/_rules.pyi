"""The module's own evaluation (crates/rules-py): verdicts and reasons are those of policy.proto."""

def regex_error(pattern: str) -> str | None:
    """What is wrong with the pattern of a rule, or None."""

def evaluate_tcp(
    endpoint_policy: bytes, direction: int, peer: tuple[int, bool], port: int
) -> tuple[int, int, str]:
    """As :func:`evaluate_http`, for a connection whose bytes nobody reads."""

def evaluate_http(
    endpoint_policy: bytes,
    direction: int,
    peer: tuple[int, bool],
    port: int,
    method: str,
    path: str,
    host: str,
    headers: list[tuple[str, str]],
) -> tuple[int, int, str]:
    """Verdict, reason and rule for a request. `endpoint_policy` is a serialised EndpointPolicy;
    `peer` is an identity, and whether it shows the certificate of the workload at its address.

    ValueError: the policy cannot be read or a rule of it cannot be enforced; names the rule.
    """

def evaluate_kafka(
    endpoint_policy: bytes,
    direction: int,
    peer: tuple[int, bool],
    port: int,
    api_key: int,
    api_version: int,
    client_id: str,
    topics: list[str],
) -> tuple[int, int, str]:
    """As :func:`evaluate_http`; the first topic that is not allowed answers for the request."""
