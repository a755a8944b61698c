"""``sidegate translate`` on the golden inputs: no agent, no cluster."""

from __future__ import annotations

import pytest
import yaml

from sidegate_cli.main import main
from tests.unit.test_gateway_golden import GOLDEN

ROUTE = GOLDEN / "one-route-to-one-service.in.yaml"
TLS = GOLDEN / "https-hosts-of-other-listeners-are-misdirected.in.yaml"
BROKEN = GOLDEN / "broken-rules-answer-500-and-harm-nothing-else.in.yaml"


def translate(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["translate", *arguments])
    shown = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, shown.out, shown.err


def test_the_ir_and_the_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = translate(capsys, str(ROUTE))
    shown = yaml.safe_load(out)
    assert (code, err) == (0, "")
    assert "shop/web/80/tcp" in shown["ir"]["listeners"]
    assert shown["statuses"]["HTTPRoute shop/orders"]["parents"][0]["parentRef"]["name"] == "web"


def test_what_envoy_is_sent_without_keys(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = translate(capsys, str(TLS), "-o", "xds")
    shown = yaml.safe_load(out)["xds"]
    assert code == 0
    assert any("443" in name for name in shown["Listener"])
    assert shown["Secret"]
    assert not any(shown["Secret"].values())
    assert "PRIVATE KEY" not in out


def test_what_cannot_be_read_is_said_and_the_rest_is_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = translate(capsys, str(BROKEN))
    assert code == 1
    assert "HTTPRoute shop/unreadable" in err
    assert "backendRefs[0].port" in err
    assert "shop/web/80/tcp" in yaml.safe_load(out)["ir"]["listeners"]
