"""The runbook has a row for every reason, exit code and alert, and names only existing settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from spotd import errors
from spotd.reasons import MEANINGS
from spotd.settings import RELAY_NAMES, known_names
from tests.compatibility.fixture_0_1 import RECORDED
from tests.kit.settings_table import rows_between

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/operating.md").read_text()
RULES = yaml.safe_load((ROOT / "deploy/prometheus/spotd.rules.yaml").read_text())
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]
}


def table(marker: str) -> dict[str, list[str]]:
    """Return the cells of each row of a table by its first cell, without anchor and backticks."""
    rows = {}
    for line in rows_between(TEXT, marker):
        first, *cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        rows[re.sub(r"<a id=.*?></a>|`", "", first)] = cells
    return rows


def test_each_reason_has_its_row() -> None:
    """Every code is there, no other, with the meaning and the remedy that `spotd status` tells."""
    rows = table("reasons")
    assert {code: (meaning, action) for code, (_, meaning, action) in rows.items()} == MEANINGS
    assert all(seen for seen, _, _ in rows.values())
    assert list(rows) == list(MEANINGS)


def test_each_code_is_said_somewhere() -> None:
    """No code stands in the list alone: the program makes a reason with each."""
    sources = [
        path.read_text() for path in (ROOT / "spotd").rglob("*.py") if path.name != "reasons.py"
    ]
    text = "\n".join(sources)
    assert [code for code in MEANINGS if f'"{code}"' not in text] == []


def test_each_exit_code_has_its_row() -> None:
    """Those of all errors, and that of an end in order."""
    codes = {
        str(error.exit_code)
        for error in vars(errors).values()
        if isinstance(error, type) and issubclass(error, errors.SpotdError)
    }
    rows = table("exit codes")
    assert rows.keys() == codes | {"0"}
    assert all(all(cells) for cells in rows.values())


def test_the_unit_stays_down_where_the_runbook_says_so() -> None:
    """The exit codes after which systemd does not start the daemon again are the unit's."""
    unit = (ROOT / "deploy/systemd/spotd.service").read_text()
    [line] = re.findall(r"^RestartPreventExitStatus=.*$", unit, re.MULTILINE)
    assert f"`{line}`" in TEXT


def test_each_alert_has_its_row() -> None:
    """Every alert of the rules is there, and no other."""
    assert table("alerts").keys() == ALERTS.keys()


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_leads_to_its_row(alert: str) -> None:
    """Its annotation names the anchor of its row, whose codes have rows of their own."""
    runbook = ALERTS[alert]["annotations"]["runbook"]
    document, _, anchor = runbook.partition("#")
    assert document == "docs/operating.md"
    assert f'<a id="{anchor}"></a>`{alert}`' in TEXT
    meaning, action, codes = table("alerts")[alert]
    assert meaning
    assert action
    for shown, linked in re.findall(r"\[`(\w+)`\]\(#(\w+)\)", codes):
        assert shown == linked
        assert linked in MEANINGS


def test_an_upgrade_names_the_settings_that_came_and_went() -> None:
    """Which 0.1 does not know, and which it alone knows: either ends a daemon with exit code 2."""
    [row] = re.findall(r"^\| 0\.2 over 0\.1 \| (.*) \| (.*) \|$", TEXT, re.MULTILINE)
    came, went = (set(re.findall(r"`(\w+)`", cell)) for cell in row)
    old = set(RECORDED["settings"])
    new = {*known_names(), *RELAY_NAMES}
    assert came == {name for name in new - old if name.startswith("SPOTD_")}
    assert went == old - new
