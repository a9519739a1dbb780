"""docs/watch.svg shows the screen as it is drawn now."""

from __future__ import annotations

import html
import re
from pathlib import Path

from tests.bench.watch_picture import svg

PICTURE = Path(__file__).parents[2] / "docs" / "watch.svg"


def words(picture: str) -> str:
    """Return the text of a picture without spaces."""
    texts = re.findall(r"<text [^>]*>([^<]*)</text>", picture)
    return re.sub(r"\s", "", html.unescape("".join(texts)))


def test_picture() -> None:
    """The committed picture is what `python -m tests.bench.watch_picture` draws."""
    assert words(PICTURE.read_text("utf-8")) == words(svg())


def test_nothing_is_fetched() -> None:
    """The picture names no address but that of SVG, since pages do not let it fetch fonts."""
    addresses = set(re.findall(r"https?://[^\"' )]+", svg())) - {"http://www.w3.org/2000/svg"}
    assert not {address for address in addresses if "textualize" not in address}
