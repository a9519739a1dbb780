"""The documents name only what exists: files, links, modules and their names, metrics."""

from __future__ import annotations

import re
from pathlib import Path
from pkgutil import resolve_name

import pytest

from spotd.ops.metrics import Metrics, Numbers

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))
)
# Where a document may begin a path: the checkout, the package, and rooms that it speaks of.
BEGINNINGS = ("", "spotd", "spotd/daemon", "spotd/redis", "spotd/core", "tests", "docs")


def quoted(document: str) -> list[str]:
    """Return what stands between backticks in a document, code blocks left out."""
    text = re.sub(
        r"^```.*?^```$", "", (ROOT / document).read_text(), flags=re.DOTALL | re.MULTILINE
    )
    return re.findall(r"`([^`\n]+)`", text)


def exists(path: str) -> bool:
    """Return whether a document's path leads to a file or folder of this checkout."""
    return any((ROOT / beginning / path).exists() for beginning in BEGINNINGS)


def is_importable(name: str) -> bool:
    """Return whether ``core.market``, ``daemon.publish.PublishLoop`` and the like exist."""
    try:
        resolve_name(f"spotd.{name}")
    except (AttributeError, ModuleNotFoundError):
        return False
    return True


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    """A relative link leads to a file of this checkout."""
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / document).read_text())
    for link in links:
        if "://" not in link:
            assert (ROOT / document).parent.joinpath(link).exists(), link


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_and_names_exist(document: str) -> None:
    """What is written as a path is one, and what is written as a name of a room can be imported."""
    for words in quoted(document):
        if re.fullmatch(r"[\w./-]+\.(py|md|yaml|toml|svg)|[\w-]+(/[\w-]+)*/", words):
            assert exists(words), words
        elif re.fullmatch(r"(core|daemon|redis|alpaca|ops|client|cli)(\.\w+)+", words):
            assert is_importable(words), words


def test_the_contract_names_metrics_that_there_are() -> None:
    """Each metric of the contract is in a scrape."""
    metrics = Metrics()
    metrics.numbers_from(Numbers)
    scraped = metrics.text().decode()
    named = re.findall(r"`(spotd_\w+)", (ROOT / "docs/contract.md").read_text())
    assert len(set(named)) > 10
    for name in named:
        assert re.search(rf"^# TYPE {name} ", scraped, re.MULTILINE), name
