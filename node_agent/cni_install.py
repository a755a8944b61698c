"""Keeps the node's CNI configuration in place, for as long as the agent runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from node_agent import cni_config
from node_agent.config import AgentConfig
from node_agent.member import Member

log = structlog.get_logger(__name__)

_CHAIN_SECONDS = 2.0  # between looks at the configuration that ours is behind


class CniInstall:
    """``problem`` says why new pods are not judged; empty when they are."""

    def __init__(self, config: AgentConfig, directory: Path) -> None:
        self._config, self._directory = config, directory
        self.problem = ""

    async def run(self, member: Member) -> None:
        """Once the node has addresses to give; chained, until cancelled."""
        if self._config.cni_chained:
            await self._keep_chained()
        await member.addressed.wait()
        text = cni_config.configuration(
            self._config.agent_socket, self._config.ipam_dir, member.cluster.pod_cidrs
        )
        cni_config.install(self._directory, text)
        log.info("CNI configuration installed", directory=str(self._directory))

    async def _keep_chained(self) -> None:
        """Behind what is there, whenever that changes."""
        installed = ""
        while True:
            try:
                wanted = cni_config.chained(self._directory, self._config.agent_socket)
                if wanted != installed:
                    cni_config.install(self._directory, wanted)
                    log.info("CNI configuration chained", directory=str(self._directory))
                installed, problem = wanted, ""
            except (cni_config.NothingToChain, OSError) as error:
                problem = f"new pods are not judged: {error}"
                if problem != self.problem:
                    log.error("CNI configuration not chained", error=problem)
            self.problem = problem
            await asyncio.sleep(_CHAIN_SECONDS)
