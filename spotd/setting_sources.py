"""Where settings are read: the environment, ``.env``, Docker secrets and systemd credentials.

Precedence: environment, ``.env`` in the working directory, then files named like the variable
(any case) in ``/run/secrets`` or ``$CREDENTIALS_DIRECTORY``. An unknown ``SPOTD_*`` name is an
error that names the nearest known one: a mistyped setting that is silently ignored costs more than
a start that fails. Variables that Kubernetes injects for a Service count as not set. Must not know
what a setting means.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Mapping
from io import StringIO
from pathlib import Path

from dotenv.parser import parse_stream

from spotd.errors import SettingsError
from spotd.kubernetes import is_injected

ENCODING = "utf-8-sig"  # UTF-8; an editor may have put a mark in front
MARK = "\ufeff"  # that mark, where a reader left it in the text
PREFIX = "SPOTD_"  # of every variable that is spotd's own

# Names of one thing. The other names of a setting may belong to another program.
_SAME = (("ALPACA_API_KEY", "APCA_API_KEY_ID"), ("ALPACA_SECRET_KEY", "APCA_API_SECRET_KEY"))


def check_sources(known: Collection[str]) -> None:
    """Raise SettingsError for what no source may hold; ``known`` are the names of all settings."""
    own = {name: v for name, v in os.environ.items() if not is_injected(name, v)}
    sources = (own, _env_file(), _secret_files(known))
    refuse_unknown({name for source in sources for name in source}, known)
    _refuse_contradictions(sources)


def secret_directories() -> list[Path]:
    """Return the directories of Docker's secrets and of systemd's credentials that are there."""
    candidates = [Path("/run/secrets")]
    if systemd := os.environ.get("CREDENTIALS_DIRECTORY"):
        candidates.append(Path(systemd))
    return [path for path in candidates if path.is_dir()]


def refuse_unknown(names: Iterable[str], known: Collection[str]) -> None:
    """Raise SettingsError for each ``SPOTD_*`` name that is not a known one."""
    wrong = []
    for name in names:
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known:
            continue
        nearest = difflib.get_close_matches(upper, sorted(known), n=1, cutoff=0.0)
        wrong.append(f"{name} is not a setting of spotd; did you mean {nearest[0]}?")
    if wrong:
        raise SettingsError("; ".join(sorted(wrong)))


def _refuse_contradictions(sources: Iterable[Mapping[str, str]]) -> None:
    """Raise SettingsError where one source gives two names of one thing different values.

    Of different sources, the one that goes before the others counts, under whichever name.
    """
    wrong = []
    for source in sources:
        values = {name.upper(): value.strip() for name, value in source.items()}
        for one, other in _SAME:
            if len({values.get(one), values.get(other)} - {None, ""}) > 1:
                wrong.append(f"{one} and {other} have different values: set one of them")
    if wrong:
        raise SettingsError("; ".join(dict.fromkeys(wrong)))


def _env_file() -> dict[str, str]:
    """Return what ``.env`` sets.

    Raises SettingsError for a line that is no assignment, and for a file that is not UTF-8.
    """
    path = Path(".env")
    if not path.exists():
        return {}
    values = {}
    for binding in parse_stream(StringIO(_text_of(path))):
        if binding.error:
            raise SettingsError(f".env, line {binding.original.line}: not NAME=value")
        if binding.key is not None:
            values[binding.key] = binding.value or ""
    return values


def _secret_files(known: Collection[str]) -> dict[str, str]:
    """Return what the files of secrets that are named like a setting set."""
    return {
        file.name: _text_of(file) if file.name.upper() in known and file.is_file() else ""
        for folder in secret_directories()
        for file in folder.iterdir()
    }


def _text_of(path: Path) -> str:
    """Return the text of a file. Raises SettingsError where it is not UTF-8."""
    raw = path.read_bytes()
    try:
        return raw.decode(ENCODING)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        # Not chained: the error holds the whole text.
        raise SettingsError(f"{path}, line {line}: not UTF-8") from None
