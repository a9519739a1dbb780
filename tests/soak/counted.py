"""``spotd`` as it is installed, which also tells the number of its asyncio tasks at SIGUSR1.

The number is written to the file ``tasks`` in the working directory.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from pathlib import Path

from spotd.cli.main import main


def _tell(*_: object) -> None:
    # The handler runs in the main thread. No event loop runs there at the begin and at the end.
    with suppress(RuntimeError):
        Path("tasks").write_text(str(len(asyncio.all_tasks())))


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _tell)
    main()
