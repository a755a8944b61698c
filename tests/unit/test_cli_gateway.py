"""``sidegate gateway`` on files: no agent, no cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway_translator.choice import Request
from sidegate_cli.main import main
from tests.unit.test_gateway_golden import GOLDEN


def said(
    capsys: pytest.CaptureFixture[str], command: str, case: str, *arguments: str
) -> tuple[int, list[dict[str, Any]], str]:
    with pytest.raises(SystemExit) as ended:
        main(["gateway", command, "-f", str(GOLDEN / f"{case}.in.yaml"), "-o", "json", *arguments])
    shown = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    items = json.loads(shown.out)["items"] if shown.out else []
    return ended.value.code, items, shown.err


PRECEDENCE = "precedence-of-matches-across-routes"
HTTPS = "https-hosts-of-other-listeners-are-misdirected"
INGRESS = "ingress-paths-wildcards-and-default-backend"
BYTES = "bytes-and-datagrams"
MESH = "mesh-producers-and-consumers"
NODES = "gateways-on-the-addresses-of-nodes"


@pytest.mark.parametrize(
    ("case", "arguments", "rule", "result", "why"),
    [
        (PRECEDENCE, ["http://a.test/v1/orders"], "HTTPRoute shop/young#0", "shop/orders:80", ""),
        (
            PRECEDENCE,
            ["http://a.test/v1?q=1", "-H", "X-Tenant: a"],
            "HTTPRoute shop/young#1",
            "shop/orders:80",
            "HTTPRoute shop/old#0: path /v1 is not ~ /v[0-9]+/.*",
        ),
        (
            PRECEDENCE,
            ["http://a.test/v1?q=1", "-H", "X-Tenant: a", "-X", "POST"],
            "HTTPRoute shop/old#0",
            "shop/old:80",
            "HTTPRoute shop/young#1: method POST is not GET",
        ),
        (
            PRECEDENCE,
            ["http://a.test/v1?q=1"],
            "HTTPRoute shop/old#0",
            "shop/old:80",
            "HTTPRoute shop/young#1: header x-tenant is not there",
        ),
        (
            PRECEDENCE,
            ["http://a.test/v1?q=2", "-H", "X-Tenant: a"],
            "HTTPRoute shop/old#0",
            "shop/old:80",
            "HTTPRoute shop/young#1: query q is '2', not '1'",
        ),
        (
            PRECEDENCE,
            ["http://a.test/x/../v1/orders"],
            "HTTPRoute shop/young#0",
            "shop/orders:80",
            "",
        ),
        (PRECEDENCE, ["http://a.test/none"], "", "404", ""),
        (HTTPS, ["https://foo.example.com/"], "HTTPRoute shop/foo#0", "shop/orders:80", ""),
        (HTTPS, ["https://raw.example.com/"], "TLSRoute shop/raw", "shop/orders:80", ""),
        (HTTPS, ["https://other.test/"], "", "404", ""),
        (HTTPS, ["http://foo.example.com:443/"], "", "connection closed", "use https://"),
        (PRECEDENCE, ["https://a.test:80/"], "", "connection closed", "use http://"),
        (INGRESS, ["http://foo.example.com/oddity"], "Ingress shop/paths#0", "500", ""),
        (
            INGRESS,
            ["http://b.example.com/"],
            "Ingress shop/paths#1",
            "shop/orders:80",
            "hostname *: *.example.com is more specific",
        ),
        (INGRESS, ["http://a.b.example.com/"], "Ingress shop/paths#2", "shop/fallback:80", ""),
        (BYTES, ["http://a.test:5432/"], "TCPRoute shop/db", "shop/db:5432 75%, nothing 25%", ""),
    ],
)
def test_which_way_a_request_takes(
    capsys: pytest.CaptureFixture[str],
    case: str,
    arguments: list[str],
    rule: str,
    result: str,
    why: str,
) -> None:
    code, (found,), _ = said(capsys, "trace", case, *arguments)
    assert code == 0
    assert (found["rule"], found["result"]) == (rule, result)
    assert why in "\n".join(found["why"])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["http://a.test:81/"], 1),
        (["http://a.test/", "--gateway", "shop/none"], 1),
        (["a.test"], 2),
        (["http://a.test:port/"], 2),
        (["http://a.test/", "-H", "nothing"], 2),
        (["http://192.0.2.1/", "-H", "Host: a.test:80"], 0),
        (["http://192.0.2.9/", "-H", "Host: a.test"], 1),
        (["http://a.test/", "--gateway", "shop/web"], 0),
    ],
)
def test_where_it_is_asked(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int
) -> None:
    assert said(capsys, "trace", PRECEDENCE, *arguments)[0] == code


@pytest.mark.parametrize(
    ("url", "gateway"),
    [
        ("http://192.0.2.77:30080/", "shop/by-class"),
        ("http://192.0.2.77:8080/", "shop/as-host"),
        ("http://192.0.2.1/", "shop/as-usual"),
    ],
)
def test_ports_of_nodes_are_ports_of_gateways(
    capsys: pytest.CaptureFixture[str], url: str, gateway: str
) -> None:
    _, (found,), _ = said(capsys, "trace", NODES, url, "-H", "Host: a.test")
    assert found["gateway"] == f"Gateway {gateway}"


@pytest.mark.parametrize(
    "host", ["10.96.0.1", "orders.shop", "orders.shop.svc", "orders.shop.svc.cluster.local"]
)
def test_what_each_client_of_a_service_sees(capsys: pytest.CaptureFixture[str], host: str) -> None:
    _, items, _ = said(capsys, "trace", MESH, f"http://{host}/v2")
    assert [(each["listener"], each["rule"], each["result"]) for each in items] == [
        ("mesh/shop/orders/80", "HTTPRoute shop/producer#0", "shop/orders:80"),
        ("mesh/shop/orders/80/for/client", "HTTPRoute client/consumer#0", "client/mine:80"),
        ("mesh/shop/orders/80/for/other", "", "404"),
    ]


@pytest.mark.parametrize("host", ["10.96.0.2", "orders", "orders.sho", "shop.svc.cluster.local"])
def test_a_service_that_was_not_dialled(capsys: pytest.CaptureFixture[str], host: str) -> None:
    assert said(capsys, "trace", MESH, f"http://{host}/v2")[1] == []


def test_routes_in_the_order_in_which_they_are_tried(capsys: pytest.CaptureFixture[str]) -> None:
    code, items, _ = said(capsys, "routes", PRECEDENCE)
    assert code == 0
    assert [each["match"] for each in items] == [
        "exactly /v1/orders",
        "~ /v[0-9]+/.*",
        "GET /v1 or below x-tenant=a ?q=1",
        "/v1 or below",
        "/v1 or below",
    ]


def test_what_is_wrong_is_said_and_is_the_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "status", PRECEDENCE)[0] == 0
    code, items, _ = said(capsys, "status", "why-a-route-is-not-attached")
    assert code == 1
    problems = [text for each in items for text in each["problems"]]
    assert any("Accepted=False (NotAllowedByListeners" in text for text in problems)
    code, items, _ = said(capsys, "status", INGRESS)
    (ingress,) = [each for each in items if each["kind"] == "Ingress"]
    assert ingress["addresses"] == ["192.0.2.1"]
    assert ingress["problems"]
    assert code == 1


def test_dot_segments_are_none() -> None:
    for path, normal in (
        ("/a/./b", "/a/b"), ("/a/../b/", "/b/"), ("/a/..", "/"), ("/../a", "/a"), ("/a.b", "/a.b"),
        ("/.well-known/x", "/.well-known/x"),
    ):  # fmt: skip
        assert Request("a.test", path).normal_path == normal
