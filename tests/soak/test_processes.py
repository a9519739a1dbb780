"""What is read of a daemon: when it published, by its counter, and defects, by its log."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from tests.kit.processes import Command
from tests.soak.processes import Process


def test_a_number_that_rises_tells_when_it_published() -> None:
    """The first number after a freeze is older: the answer to a call came when it was frozen."""
    process = Process("a1", cast("Any", None), acts_since=100.0)
    process.see_published(5, 101.0)
    assert process.published_at < 100.0
    process.see_published(6, 102.0)
    assert process.published_at == 102.0
    process.see_published(6, 103.0)
    assert process.published_at == 102.0
    process.acts_since = 110.0
    process.see_published(7, 110.1)
    assert process.published_at == 102.0
    process.see_published(8, 110.3)
    assert process.published_at == 110.3


def test_a_defect_in_the_log_is_found_once(tmp_path: Path) -> None:
    """Complete lines alone are searched, each of them once."""
    process = Process("a1", Command(cast("Any", None), tmp_path, 0))
    log = tmp_path / "stderr"
    log.write_text('{"event": "leading"}\n{"event": "a loop ended: this is a defect"}\nTraceb')
    assert process.defects() == ['{"event": "a loop ended: this is a defect"}']
    log.write_text(log.read_text() + "ack (most recent call last):\n")
    assert process.defects() == ["Traceback (most recent call last):"]
    assert not process.defects()
