"""What the benchmarks of the mesh compare, and how they read it."""

from __future__ import annotations

import pytest

from bench.__main__ import ALL, IN_MESH, chosen
from bench.mesh.manifests import PAIRS, PATH, paths, policies
from bench.mesh.rig import parse_wrk

_WRK = """Running 1s test @ http://10.96.65.159:8080/v1/orders
  Latency Distribution
     50%  {p50}
     99%   55.68ms
  4431 requests in 1.05s, 2.70MB read
{trouble}Requests/sec:   4220.10
Transfer/sec:    666.13KB
"""


@pytest.mark.parametrize(
    ("p50", "microseconds"), [("  3.58ms", 3580.0), ("850.00us", 850.0), ("  1.02s", 1.02e6)]
)
def test_a_run_of_wrk(p50: str, microseconds: float) -> None:
    requests, rate, latency = parse_wrk(_WRK.format(p50=p50, trouble=""))
    assert (requests, rate) == (4431, 4220.10)
    assert latency == pytest.approx(microseconds)


@pytest.mark.parametrize(
    "trouble",
    [
        "  Non-2xx or 3xx responses: 2\n",
        "  Socket errors: connect 0, read 1, write 0, timeout 0\n",
    ],
)
def test_a_run_that_was_not_answered_is_none(trouble: str) -> None:
    with pytest.raises(ValueError, match="4431 requests"):
        parse_wrk(_WRK.format(p50="3.58ms", trouble=trouble))


@pytest.mark.parametrize("count", [1, 100, 1000])
def test_both_kinds_of_policy_have_the_same_rules(count: int) -> None:
    ours, istio = (policies(pair, paths(count)) for pair in PAIRS)
    cilium = [
        rule["path"]
        for manifest in ours
        for ports in manifest["spec"]["ingress"][0]["toPorts"]
        for rule in ports["rules"]["http"]
    ]
    allowed = [
        path
        for manifest in istio
        for rule in manifest["spec"]["rules"]
        for path in rule["to"][0]["operation"]["paths"]
    ]
    assert cilium == allowed == paths(count)
    assert cilium[-1] == PATH
    assert len(set(cilium)) == count


def test_cases_are_chosen_by_name_and_by_how_they_begin() -> None:
    assert chosen([]) == [*ALL, *IN_MESH]
    assert chosen(["cni", "change"]) == ["change", "cni"]
    assert chosen(["mesh"]) == [name for name in (*ALL, *IN_MESH) if name.startswith("mesh-")]
    with pytest.raises(ValueError, match="no case 'mes'"):
        chosen(["mes"])
