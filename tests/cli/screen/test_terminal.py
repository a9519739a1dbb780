"""The terminal beside the screen: what is written to stderr meanwhile."""

from __future__ import annotations

import os
import tempfile

import pytest

from spotd.cli.screen.terminal import stderr_afterwards


@pytest.mark.parametrize("folder", [None, "/nonexistent"])
def test_stderr_comes_afterwards(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: str | None
) -> None:
    """This holds where no folder can be written, as in a container with a read-only file system."""
    if folder is not None:
        monkeypatch.setattr(tempfile, "tempdir", folder)
    master, terminal = os.openpty()
    before = os.dup(2)
    os.dup2(terminal, 2)
    try:
        with stderr_afterwards():
            os.write(2, b"hidden")
            os.set_blocking(master, False)
            with pytest.raises(BlockingIOError):
                os.read(master, 100)
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(terminal)
        os.close(master)
    assert capsys.readouterr().err == "hidden"
