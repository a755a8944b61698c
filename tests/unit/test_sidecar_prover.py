"""What is told of a proxy while it is looked at."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import cast

import pytest

from node_agent.peer_process import Process
from node_agent.proof import prover
from node_agent.proof.prove import ANY_PORT, Proof
from policy_engine.model import Direction
from tests.unit.test_store_both_sources import until


class Admin:
    """Answers what is next, and then nothing new."""

    answers: Iterator[Proof | Exception] = iter(())

    def __init__(self, _: Process) -> None:
        pass

    def changed(self) -> Proof | None:
        answer = next(Admin.answers, None)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        pass


async def test_what_cannot_be_understood_proves_nothing_and_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever configures a proxy may write what nobody has foreseen, after it was proven."""
    told: list[str] = []
    answers = [Proof(), KeyError("routes"), RecursionError("deep"), Proof()]
    monkeypatch.setattr(prover, "Admin", Admin)
    monkeypatch.setattr(prover, "PERIOD_SECONDS", 0.01)
    monkeypatch.setattr(Admin, "answers", iter(answers))
    made = prover.Prover(
        lambda endpoint: told.append(made.proofs[endpoint].why_not(Direction.INGRESS, ANY_PORT))
    )
    made.watch(7, cast(Process, None))
    await until(lambda: len(told) == 4)
    made.stop()
    await asyncio.sleep(0)
    proven, first, second, again = told
    assert (proven, again) == ("", "")
    assert "cannot be understood: KeyError" in first
    assert "cannot be understood: RecursionError" in second
