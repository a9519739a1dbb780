"""Secrets that can be found again in any text, however they are escaped, and also in halves."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import quote

_WHOLE_GROUP = 3  # bytes that base64 encodes together


class Marked(NamedTuple):
    """A secret, ``text``. Both its halves hold a word that nothing else holds."""

    name: str
    text: str
    words: tuple[str, str]

    @property
    def quoted(self) -> str:
        """The secret as it stands in a URL."""
        return quote(self.text, safe="")

    def is_in(self, text: str) -> bool:
        """Return whether the text holds one of the words, as it is or in base64."""
        return any(form in text for word in self.words for form in _forms(word))


def marked(name: str, between: str = "/x+y&z=%40@'\"\\ é") -> Marked:
    """Return a new secret. ``between`` is what other writers escape; the words need no escaping."""
    words = (f"{name}Front7q", f"{name}Back8w")
    return Marked(name, between.join(words), words)


def found_in(texts: Iterable[tuple[str, str]], secrets: Iterable[Marked]) -> list[str]:
    """Return which secret stands in which of these texts, each given with its name."""
    secrets = tuple(secrets)
    return [
        f"{secret.name} in {where}: …{text}…"
        for where, text in texts
        for secret in secrets
        if secret.is_in(text)
    ]


def _forms(word: str) -> list[str]:
    """Return a word as it is, and what of it is the same in base64 at any offset."""
    inner = []
    for offset in range(_WHOLE_GROUP):
        encoded = b64encode(b"\0" * offset + word.encode()).decode()
        # The characters at both ends also depend on what stands beside the word.
        inner.append(encoded[4 if offset else 0 : len(encoded) - 4])
    return [word, *inner]
