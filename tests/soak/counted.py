"""``spotd`` as it is installed, which also tells the number of its asyncio tasks at SIGUSR1.

The number is written to the file ``tasks`` in the working directory. A daemon asks REST about a
silent stream as soon as while the market is open, at whatever time the soak runs.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from spotd.cli.main import main
from spotd.core.freshness import SilenceTimes


def _tell(*_: object) -> None:
    # The handler runs in the main thread. No event loop runs there at the begin and at the end.
    with suppress(RuntimeError):
        Path("tasks").write_text(str(len(asyncio.all_tasks())))


def _ask_soon() -> None:
    from spotd.daemon import daemon, process

    soon_s = SilenceTimes().open_s
    times = SilenceTimes(extended_s=soon_s, closed_s=soon_s, unknown_s=soon_s)
    process.Daemon = partial(  # type: ignore[attr-defined, assignment]
        daemon.Daemon, timing=daemon.Timing(silence=times)
    )


if __name__ == "__main__":
    if "run" in sys.argv:
        _ask_soon()
    signal.signal(signal.SIGUSR1, _tell)
    main()
