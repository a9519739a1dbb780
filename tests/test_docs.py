"""The documents name only what exists: files, links, modules and their names, metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name

import pytest

from spotd.cli.main import COMMANDS
from spotd.examples import INTERRUPTION, LIVE, STREAMING, UPDATE, Message
from spotd.ops.metrics import Metrics, Numbers
from spotd.reasons import Reason
from spotd.relay import protocol
from spotd.relay.close_codes import CLOSE_CODES
from spotd.relay.limits import Limits
from spotd.relay.metrics import RelayMetrics
from spotd.relay.settings import RelaySettings
from spotd.settings import Settings
from tests.kit.metrics_table import daemon_text, metrics_rows, relay_text
from tests.kit.settings_table import rows_between, settings_rows

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md")
    for path in ROOT.glob(pattern)
    if "node_modules" not in path.parts
)
# Where a document may begin a path: the checkout, the package, and rooms that it speaks of.
BEGINNINGS = (
    "", "spotd", "spotd/daemon", "spotd/redis", "spotd/core", "spotd/relay", "tests", "docs",
)  # fmt: skip


def prose(document: Path) -> str:
    """Return the text of a document, code blocks left out."""
    return re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)


def quoted(document: str) -> list[str]:
    """Return what stands between backticks in a document, code blocks left out."""
    return re.findall(r"`([^`\n]+)`", prose(ROOT / document))


def anchors(document: Path) -> set[str]:
    """Return where a link may lead in a document: its headings, and the places that it names."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    named = re.findall(r'<a id="([^"]+)"></a>', prose(document))
    slugs = {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}
    return slugs | set(named)


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
    """A relative link leads to a file of this checkout, and its anchor to a place in that file."""
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(ROOT / document)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (ROOT / document).parent / path if path else ROOT / document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", [each for each in DOCUMENTS if "examples" not in each])
def test_paths_and_names_exist(document: str) -> None:
    """What is written as a path is one, and what is written as a name of a room can be imported."""
    for words in quoted(document):
        if re.fullmatch(r"[\w./-]+\.(py|md|yaml|toml|svg)|[\w-]+(/[\w-]+)*/", words):
            assert exists(words), words
        elif re.fullmatch(r"(core|daemon|redis|alpaca|ops|client|relay|cli)(\.\w+)+", words):
            assert is_importable(words), words


CONTRACT = (ROOT / "docs/contract.md").read_text()


def test_the_contract_names_metrics_that_there_are() -> None:
    """Each metric of the contract is in a scrape of the daemon, or of the web tier."""
    metrics = Metrics()
    metrics.numbers_from(Numbers)
    scraped = metrics.text().decode() + RelayMetrics().text().decode()
    named = re.findall(r"`(spotd_\w+)", CONTRACT)
    assert len(set(named)) > 20
    for name in named:
        assert re.search(rf"^# TYPE {name} ", scraped, re.MULTILINE), name


def test_the_contract_names_every_command() -> None:
    """Section 7 says what each subcommand is."""
    for name in COMMANDS:
        assert re.search(rf"`spotd {name}\b", CONTRACT), name


@pytest.mark.parametrize("message", [UPDATE, LIVE, STREAMING, INTERRUPTION])
def test_the_contract_shows_every_field(message: Message) -> None:
    """The contract's example of a message has the fields that are written, in their order."""
    shown = re.findall(r'^`?(\{"(?:type|symbol)":.*\})(?:`|$)', CONTRACT, re.MULTILINE)
    assert list(json.loads(message.to_json())) in [list(json.loads(each)) for each in shown]


def test_the_contract_has_every_close_code() -> None:
    """The contract lists each close code with its reason, whether to try again, and its meaning."""
    assert rows_between(CONTRACT, "close codes") == [
        f"| {each.code} | {each.reason} | {'yes' if each.try_again else 'no'} | {each.meaning} |"
        for each in CLOSE_CODES
    ]


def test_the_contract_shows_messages_as_the_relay_writes_them() -> None:
    """What a relay writes without a daemon, which holds no times, stands there byte for byte."""
    no_daemon = protocol.relay_status([Reason("no_daemon", "no daemon runs")])
    for message in (
        protocol.hello(Limits(), None, b"", no_daemon),
        protocol.relay_status(()),
        protocol.NO_DAEMON,
        protocol.PONG,
    ):
        assert f"\n{message.decode()}\n" in CONTRACT


def test_the_table_of_the_web_tier_is_that_of_its_settings() -> None:
    """Every setting of its own stands there with its default and meaning, and no other."""
    own = [name for name in RelaySettings.model_fields if name not in Settings.model_fields]
    rows = settings_rows(RelaySettings, own)
    assert rows_between((ROOT / "docs/web.md").read_text(), "settings") == rows


@pytest.mark.parametrize(
    ("marker", "scrape"), [("daemon metrics", daemon_text), ("relay metrics", relay_text)]
)
def test_metrics_are_those_of_the_code(marker: str, scrape: Callable[[], str]) -> None:
    """The tables of metrics are what a scrape says of itself: name, type, labels and meaning."""
    document = (ROOT / "docs" / "metrics.md").read_text()

    assert rows_between(document, marker) == metrics_rows(scrape())
