"""spotd reads market data, and cannot trade: it has no code and no address for it."""

from __future__ import annotations

import ast
from pathlib import Path
from urllib.parse import urlsplit

import spotd
from spotd.settings import Settings

SOURCES = sorted(Path(spotd.__file__).parent.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the names of the modules that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_nothing_of_alpacas_accounts_is_imported() -> None:
    """Of alpaca-py, only market data is used: no client for orders, positions or accounts."""
    used = {name for path in SOURCES for name in imported(path) if name.split(".")[0] == "alpaca"}

    assert used
    assert {".".join(name.split(".")[:2]) for name in used} <= {"alpaca.common", "alpaca.data"}


def test_only_hosts_of_market_data_are_named() -> None:
    """The default addresses are of market data. No source names the host where orders go."""
    settings = Settings.model_validate({})
    hosts = {urlsplit(url).hostname for url in (settings.stream_endpoint, settings.data_url)}

    assert hosts == {"stream.data.alpaca.markets", "data.alpaca.markets"}
    for path in SOURCES:
        assert "api.alpaca.markets" not in path.read_text(), path
