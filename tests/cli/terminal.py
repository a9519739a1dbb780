"""Our end of a terminal on which a command runs."""

from __future__ import annotations

import os
import re
import select
import time
from contextlib import suppress

from tests.kit.waiting import GUARD_S


def read_until(ours: int, wanted: bytes | re.Pattern[bytes]) -> bytes:
    """Return what the terminal was sent from now on, until this came."""
    pattern = wanted if isinstance(wanted, re.Pattern) else re.compile(re.escape(wanted))
    end, sent = time.monotonic() + GUARD_S, b""
    while not pattern.search(sent) and time.monotonic() < end:
        if select.select([ours], [], [], 0.1)[0]:
            with suppress(OSError):  # Linux' way to say that the other side is closed
                sent += os.read(ours, 65536)
    assert pattern.search(sent), sent[-500:]
    return sent
