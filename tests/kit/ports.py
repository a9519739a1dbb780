"""Free ports of 127.0.0.1, such that tests that run beside each other do not take them twice.

Workers of one run have ranges of their own. Other runs on this machine use the same ranges, so a
process locks each port that it returned lately: one byte of a file that all runs share.
"""

from __future__ import annotations

import fcntl
import os
import random
import re
import socket
import tempfile
from collections import deque
from functools import cache
from itertools import count
from pathlib import Path
from typing import BinaryIO

# Below what the system itself gives to outgoing connections, and so that the port of a cluster's
# bus, 10,000 above, is below it too. Each worker of pytest-xdist has a range of its own.
_FIRST = 10_000
_PER_WORKER = 1_500
_WORKERS = 6
_LATELY = 300  # ports stay locked until this many others were returned

_worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or "0") % _WORKERS
_next = count(random.randrange(_PER_WORKER))
_locks: deque[int] = deque()


def free_port() -> int:
    """Return a port that nobody listens on, and that no process of tests returned lately."""
    for step in _next:
        port = _FIRST + _worker * _PER_WORKER + step % _PER_WORKER
        if not _locked(port):
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("count() never ends")


def _locked(port: int) -> bool:
    """Lock a port for this process. Return whether no other process has locked it."""
    try:
        fcntl.lockf(_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    _locks.append(port)
    if len(_locks) > _LATELY:
        fcntl.lockf(_file(), fcntl.LOCK_UN, 1, _locks.popleft())
    return True


@cache
def _file() -> BinaryIO:
    return (Path(tempfile.gettempdir()) / f"spotd-test-ports-{os.getuid()}").open("ab")
