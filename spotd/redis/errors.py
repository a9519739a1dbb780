"""The one border for what redis-py raises: spotd's own errors, chained, without a secret.

Every text of redis-py that leaves spotd passes ``words_of``. Here it is also noticed that a server
takes no writes, because each answer passes.

Shared by daemon and client. Must not know what is read or written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    MasterDownError,
    NoPermissionError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from spotd.errors import RedisUnavailableError
from spotd.redaction import without
from spotd.redis.clients import drop_foreign, is_cluster, master_of, passwords_of, place_of

# What redis-py lets through when Redis does not answer, or answers with an error. A TimeoutError
# is an OSError.
FAILURES = (RedisError, RedisClusterException, OSError)

_ANSWERS = (ResponseError, AuthenticationError, AuthorizationError)
_MAX_WORDS = 180  # characters
# What redis-py says of a connection that it did not get. The second part is asyncio's.
_NO_CONNECTION = re.compile(
    r"Error (?P<number>-?\d+) connecting to (?P<address>\S+)\. "
    r"(?P<call>Connect call failed \(.*?\)\.?)?"
)
# What redis-py says of a time limit, in spotd's words. The address stands before it.
_TIME_LIMITS = (
    (re.compile(r"Timeout reading from \S+"), "no answer in time"),
    (re.compile(r"Timeout connecting to server"), "no connection in time"),
)
# Redis' own name of a script, behind what the script's command failed with.
_SCRIPT = re.compile(r"\.? script: (?:[0-9a-f]{40}, )?on @user_script:\d+\.")
# The answer to SELECT, of older servers too.
_NO_DATABASE = re.compile("DB index", re.IGNORECASE)
# A script's error holds the code of the command that failed, in front or, before Redis 7, within.
_WRONG_SERVER = (ReadOnlyError, MasterDownError, BusyLoadingError)
_WRONG_SERVER_CODES = ("READONLY ", "MASTERDOWN ")


class RefusedError(RedisUnavailableError):
    """Redis works, and refuses this: another try does not help until somebody changes it."""


class LoginRefusedError(RedisUnavailableError):
    """Redis works, and does not let us in: a wrong password, or a database that it does not have.

    This is no answer to a call, so it is no RefusedError.
    """


class WrongTypeError(RefusedError):
    """A key has another type than it should have."""


@contextmanager
def translated(client: Any, key: str = "a key") -> Iterator[None]:
    """Raise RedisUnavailableError, which says where Redis is, in place of redis-py's errors.

    The error names ``key`` where the key is of the wrong type.
    """
    try:
        yield
    except FAILURES as error:
        leave_wrong_server(client, error)
        # A server that does not know AUTH repeats its arguments. A chain would show them.
        cause = None if _quotes_password(client, error) else error
        raise _own(client, key, error) from cause


def leave_wrong_server(client: Any, error: BaseException) -> bool:
    """Close all connections of a client whose server answered as one that takes no writes.

    Return whether it did. Then the address may lead to another server by now.
    """
    if not any(_says_wrong_server(each) for each in _chain(error)):
        return False
    master = master_of(client)
    if master is not None:
        master.answered_wrong(words_of(client, error))
    elif not is_cluster(client):
        drop_foreign(client)
    return True


def _says_wrong_server(error: BaseException) -> bool:
    if isinstance(error, _WRONG_SERVER):
        return True
    words = str(error)
    return isinstance(error, ResponseError) and any(code in words for code in _WRONG_SERVER_CODES)


def words_of(client: Any, error: BaseException) -> str:
    """Return a foreign error's text on one line, without a secret.

    Without a text it is the error's type, or the sentence of a timeout.
    """
    words = without(passwords_of(client), " ".join(str(error).split()))
    # The text behind this repeats the arguments of a command that the server does not know.
    words = _SCRIPT.sub("", words.partition(", with args")[0])
    words = _connect_in_words(words, place_of(client))[:_MAX_WORDS]
    return words or ("no answer in time" if _timed_out(error) else type(error).__name__)


def _connect_in_words(words: str, place: str) -> str:
    """Return the text with the system's words for errno. An address already named is left out."""

    def in_words(found: re.Match[str]) -> str:
        named = place + words[: found.start()]
        where = "" if found["address"] in named else f"{found['address']}: "
        return where + (os.strerror(int(found["number"])) if found["call"] else "")

    words = _NO_CONNECTION.sub(in_words, words)
    for said, told in _TIME_LIMITS:
        words = said.sub(told, words)
    return words


def answered(error: BaseException) -> bool:
    """Return whether an error, or one that it came from, is Redis' own answer."""
    return any(isinstance(each, _ANSWERS) for each in _chain(error))


def _own(client: Any, key: str, error: BaseException) -> RedisUnavailableError:
    where = f"Redis at {place_of(client)}"
    words = words_of(client, error)
    if isinstance(error, AuthenticationError | AuthorizationError):
        return LoginRefusedError(f"{where} refuses the login: {words}")
    if isinstance(error, ResponseError) and _NO_DATABASE.search(words):
        return LoginRefusedError(f"{where} refuses the database: {words}")
    if not isinstance(error, ResponseError):
        return RedisUnavailableError(f"{where}: {words}")
    if words.startswith("WRONGTYPE"):
        return WrongTypeError(f"{where}: {key} is of the wrong type")
    # A script's "ACL failure" is not a NoPermissionError.
    if isinstance(error, NoPermissionError) or words.startswith("ACL "):
        return RefusedError(f"{where} refused: {words}")
    return RedisUnavailableError(f"{where} answered with an error: {words}")


def _timed_out(error: BaseException) -> bool:
    return isinstance(error, TimeoutError | RedisTimeoutError)


def _quotes_password(client: Any, error: BaseException) -> bool:
    texts = [str(each) for each in _chain(error)]
    secrets = passwords_of(client)
    return any(without(secrets, text) != text for text in texts)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
