"""A client of the agent's REST API on its Unix socket."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from node_agent.config import run_dir_of
from sidegate_cli.failure import Failure

_SECONDS = 30.0  # apply waits for the module's acknowledgement and the map writes


class AgentClient:
    """Raises Failure with exit code 1 for what the agent refuses, 3 if there is no agent."""

    def __init__(self, node: str) -> None:
        self._socket = run_dir_of(node) / "agent.sock"
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self._socket)),
            base_url="http://agent",
            timeout=_SECONDS,
        )

    def get(self, path: str, **query: str | None) -> Any:
        return self._json("GET", path, params={k: v for k, v in query.items() if v is not None})

    def post(self, path: str, body: Any) -> Any:
        return self._json("POST", path, json=body)

    def stream(self, path: str, query: Mapping[str, str]) -> Iterator[Any]:
        """The items of an NDJSON answer as they come; waits for the next one without limit."""
        timeout = httpx.Timeout(_SECONDS, read=None)
        try:
            with self._http.stream("GET", path, params=query, timeout=timeout) as answer:
                if answer.is_error:
                    answer.read()
                    raise _refusal(answer)
                for line in answer.iter_lines():
                    yield json.loads(line)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def _json(self, method: str, path: str, **request: Any) -> Any:
        try:
            answer = self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        if answer.is_error:
            raise _refusal(answer)
        return answer.json()

    def _unreachable(self, error: httpx.HTTPError) -> Failure:
        if isinstance(error, httpx.TimeoutException):
            return Failure(f"the agent at {self._socket} does not answer; see its log", 3)
        return Failure(
            f"no agent at {self._socket} ({error}); start one with `sidegate agent` or "
            "`sidegate sandbox run DIR`, or name its node with --node",
            3,
        )


def _refusal(answer: httpx.Response) -> Failure:
    try:
        text = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        text = f"the agent answered {answer.status_code}"
    return Failure(str(text), 1)
