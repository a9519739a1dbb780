"""Writes the Python blocks of Markdown files to a folder, one file each, to be type-checked.

python -m tests.kit.examples FOLDER README.md docs/consumers.md …
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def python_blocks(markdown: str) -> list[str]:
    """Return the Python code blocks of a document, in order."""
    return re.findall(r"^```python\n(.*?)^```$", markdown, re.DOTALL | re.MULTILINE)


def write_examples(folder: Path, documents: list[Path]) -> int:
    """Write each block to ``folder``. Return how many there are."""
    count = 0
    for document in documents:
        for block in python_blocks(document.read_text("utf-8")):
            count += 1
            (folder / f"{document.stem.lower()}_{count}.py").write_text(block, "utf-8")
    return count


if __name__ == "__main__":
    if not write_examples(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]):
        sys.exit("no Python example was found")
