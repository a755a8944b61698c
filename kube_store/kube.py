"""The API server as a source of objects, as :mod:`kube_store.directory` is one of files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from kube_store.following import Following, OnBatch
from kube_store.kube_client import KubeClient
from kube_store.resource import SourceError
from kube_store.tasks import first_failure
from kube_store.watched import Watched

__all__ = ["KubeSource", "Watched"]


class KubeSource:
    """``on_batch`` is given what is new or changed and the keys of what is gone.

    While the server cannot be reached what is known stays. ``synced`` is set once every kind was
    listed whole, or is optional and not there.
    """

    def __init__(self, client: KubeClient, watched: Sequence[Watched], on_batch: OnBatch) -> None:
        self._kinds = [Following(client, each, on_batch) for each in watched]
        self.synced = asyncio.Event()

    @property
    def received(self) -> dict[str, int]:
        """Bytes of JSON by kind, before compression."""
        return {each.watched.kind: each.received for each in self._kinds}

    async def run(self) -> None:
        """Until cancelled. Raises ExceptionGroup: a kind that is followed no more would be missed
        by nobody."""
        async with asyncio.TaskGroup() as group:
            following = [
                group.create_task(each.run(), name=each.watched.plural) for each in self._kinds
            ]
            group.create_task(first_failure(following))
            for each in self._kinds:
                await each.settled.wait()
            self.synced.set()

    def errors(self) -> list[SourceError]:
        """What is wrong now, a line for each kind."""
        return [each.error for each in self._kinds if each.error]
