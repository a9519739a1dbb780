"""What ends with its ``with``, or with its ``async with``. Must not know what it is."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class ClosedByWith:
    """A context manager that closes itself at the end of its block."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        raise NotImplementedError


class ClosedByAsyncWith:
    """The same with ``async with``."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End it."""
        raise NotImplementedError
