"""A real Prometheus that scrapes what a test runs."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
import yaml

from tests.kit.ports import free_port
from tests.kit.waiting import until

RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "spotd.rules.yaml"
_EVERY = "500ms"
_LIMIT_S = 10.0


def hasty_rules() -> dict[str, Any]:
    """Return the shipped rules without the times that they wait for, and with short windows."""
    document = yaml.safe_load(RULES.read_text())
    for group in document["groups"]:
        for rule in group["rules"]:
            rule.pop("for", None)
            rule["expr"] = re.sub(r"\[\d+m\]", "[10s]", rule["expr"])
    return dict(document)


class Prometheus:
    """One Prometheus. ``jobs`` are the ports of each job's targets. ``async with`` runs it."""

    def __init__(
        self, home: Path, jobs: Mapping[str, Sequence[int]], rules: Mapping[str, Any] | None = None
    ) -> None:
        program = shutil.which("prometheus")
        if program is None:
            pytest.skip("no prometheus (Debian: prometheus)")
        self._program = program
        self._home = home
        self._port = free_port()
        self._process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession
        home.mkdir(parents=True)
        (home / "rules.yaml").write_text(yaml.safe_dump(rules or {"groups": []}))
        config = {
            "global": {"scrape_interval": _EVERY, "evaluation_interval": _EVERY},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {
                    "job_name": job,
                    "scrape_timeout": _EVERY,
                    "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}],
                }
                for job, ports in jobs.items()
            ],
        }
        (home / "prometheus.yaml").write_text(yaml.safe_dump(config))

    async def __aenter__(self) -> Self:
        """Start it, and wait until it answers."""
        with (self._home / "log").open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._program,
                f"--config.file={self._home / 'prometheus.yaml'}",
                f"--storage.tsdb.path={self._home / 'data'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
                stdout=log,
                stderr=log,
            )
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_LIMIT_S))
        await until(self._is_ready, "Prometheus answers")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kill it: nothing of it is kept."""
        await self._session.close()
        if self._process is not None:
            self._process.kill()
            await self._process.wait()

    async def query(self, expression: str) -> list[Mapping[str, Any]]:
        """Return the series that an expression gives now. Fails where it is wrong."""
        async with self._session.get(
            f"http://127.0.0.1:{self._port}/api/v1/query", params={"query": expression}
        ) as answer:
            body = await answer.json()
        assert body["status"] == "success", (expression, body)
        return list(body["data"]["result"])

    async def firing(self) -> set[str]:
        """Return the names of the alerts that fire now."""
        found = await self.query('ALERTS{alertstate="firing"}')
        return {series["metric"]["alertname"] for series in found}

    async def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.returncode is None, (self._home / "log").read_text()
        try:
            async with self._session.get(f"http://127.0.0.1:{self._port}/-/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientConnectionError:
            return False
