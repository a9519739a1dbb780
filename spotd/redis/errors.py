"""What redis-py raises, as spotd's own errors. Texts are Redis' own: host and port, no password."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.exceptions

from spotd.errors import RedisUnavailableError

_MAX_WORDS = 180


class RefusedError(RedisUnavailableError):
    """Redis works, and refuses this: asking again does not help until somebody changes it."""


class WrongTypeError(RefusedError):
    """A key holds something of another type than it should."""


@asynccontextmanager
async def translated(key: str = "a key") -> AsyncIterator[None]:
    """Whatever redis-py raises inside; ``key`` is named where it is of the wrong type."""
    try:
        yield
    except redis.exceptions.ResponseError as error:
        words = _words(error)
        if words.startswith("WRONGTYPE"):
            raise WrongTypeError(f"Redis: {key} is of the wrong type") from error
        if isinstance(error, redis.exceptions.NoPermissionError) or words.startswith("ACL "):
            raise RefusedError(f"Redis refused: {words}") from error
        raise RedisUnavailableError(f"Redis answered with an error: {words}") from error
    except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException) as error:
        raise RedisUnavailableError(f"Redis: {_words(error)}") from error
    except (TimeoutError, OSError) as error:
        raise RedisUnavailableError(f"Redis: {type(error).__name__}") from error


def _words(error: Exception) -> str:
    """Redis' own words, without the arguments it repeats: those of AUTH and HELLO are secret."""
    return str(error).partition(", with args")[0][:_MAX_WORDS]
