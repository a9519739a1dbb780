"""The tables of settings in the documents, made from the settings.

python -m tests.kit.settings_table    # prints that of README.md, and that of docs/web.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from spotd.relay.settings import RelaySettings
from spotd.settings import Settings, names_of

# What the documents say where no value, or a long one, is the default.
_WORDS = {
    "api_key": "required by `run`",
    "secret_key": "required by `run`",
    "stream_url": "Alpaca's",
    "data_url": "Alpaca's",
}


def settings_rows(settings: type[Settings], fields: Iterable[str]) -> list[str]:
    """Return a row for each of these fields: variable, default, meaning."""
    rows = []
    for name in fields:
        first, *others = names_of(name, settings)
        meaning = settings.model_fields[name].description or ""
        if others:
            meaning += f"; also accepted: {', '.join(f'`{other}`' for other in others)}"
        rows.append(f"| `{first}` | {_default(settings, name)} | {meaning} |")
    return rows


def rows_between(document: str, marker: str) -> list[str]:
    """Return the rows of the table of a document between ``<!-- marker -->`` and its end."""
    table = document.partition(f"<!-- {marker} -->")[2].partition(f"<!-- /{marker} -->")[0]
    return table.strip().splitlines()[2:]


def _default(settings: type[Settings], name: str) -> str:
    if name in _WORDS:
        return _WORDS[name]
    default = settings.model_fields[name].default
    if isinstance(default, SecretStr):
        default = default.get_secret_value()
    if default in (None, PydanticUndefined, ()):
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


if __name__ == "__main__":
    own = [name for name in RelaySettings.model_fields if name not in Settings.model_fields]
    daemon = settings_rows(Settings, Settings.model_fields)
    sys.stdout.write("\n".join([*daemon, "", *settings_rows(RelaySettings, own), ""]))
