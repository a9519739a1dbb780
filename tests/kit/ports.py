"""Free ports of 127.0.0.1, such that tests that run beside each other do not take them twice."""

from __future__ import annotations

import os
import random
import re
import socket
from itertools import count

# Below what the system itself gives to outgoing connections, and so that the port of a cluster's
# bus, 10,000 above, is below it too. Each worker of pytest-xdist has a range of its own.
_FIRST = 10_000
_PER_WORKER = 1_500
_WORKERS = 6

_worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or "0") % _WORKERS
_next = count(random.randrange(_PER_WORKER))


def free_port() -> int:
    """Return a port that nobody listens on, and that this process did not return lately."""
    for step in _next:
        port = _FIRST + _worker * _PER_WORKER + step % _PER_WORKER
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("count() never ends")
