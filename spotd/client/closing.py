"""Base classes of objects that close at the end of a ``with`` block. Must not know them."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class ClosedByWith:
    """An object with ``close``, which the end of a ``with`` block calls."""

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
        """Release what this holds. A second call does nothing."""
        raise NotImplementedError


class ClosedByAsyncWith:
    """An object with ``aclose``, which the end of an ``async with`` block awaits."""

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
        """Release what this holds. A second call does nothing."""
        raise NotImplementedError
