"""Every Python example in docs and in docstrings runs. tests/test_readme.py runs the README's."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

import spotd
from spotd.relay.fastapi import spot_prices
from tests.client.told import Told
from tests.kit.examples import python_blocks
from tests.kit.publisher import KEYS, Publisher, state_of, status_of
from tests.kit.servers import Server
from tests.kit.waiting import GUARD_S

ROOT = Path(__file__).parents[2]
ADDRESS = "redis://127.0.0.1:6379/0"


class ExampleDoneError(Exception):
    """An example has printed what it is about."""


def in_documents() -> Iterator[Any]:
    """Yield each example of each document."""
    for path in sorted((ROOT / "docs").glob("*.md")):
        for number, block in enumerate(python_blocks(path.read_text()), 1):
            yield pytest.param(block, id=f"{path.name}-{number}")


def in_docstrings() -> Iterator[Any]:
    """Yield each example of each docstring: what is indented behind ``::``, if it is Python."""
    for path in sorted((ROOT / "spotd").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ):
                continue
            for block in re.findall(r"::\n\n((?: {4}.*\n|\n)+)", ast.get_docstring(node) or ""):
                example = textwrap.dedent(block)
                if compiled(example) is not None:
                    name = getattr(node, "name", "module")
                    yield pytest.param(example, id=f"{path.stem}-{name}")


def compiled(example: str) -> Any:
    """Return an example as code, in which ``await`` may stand anywhere; None if it is no Python."""
    try:
        return compile(example, "<example>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        return None


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    """Yield the address of a server with prices and states of a daemon."""
    with Server(tmp_path / "server") as server:
        async with Publisher(server.url) as daemon:
            await daemon.redis.set(KEYS.status, status_of().to_json())
            for symbol in ("SPY", "QQQ"):
                await daemon.publish(symbol, 1)
                await daemon.redis.hset(KEYS.states, symbol, state_of(symbol).to_json())
        yield server.url


@pytest.mark.parametrize("example", list(in_documents()))
async def test_of_a_document(url: str, example: str) -> None:
    """It prints a line, or ends; nothing is said on stderr."""
    assert ADDRESS in example
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-c", example.replace(ADDRESS, url)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert program.stdout is not None
    assert program.stderr is not None
    try:
        async with asyncio.timeout(GUARD_S):
            if line := await program.stdout.readline():
                assert line.strip()
            else:
                assert (await program.wait(), await program.stderr.read()) == (0, b"")
    finally:
        if program.returncode is None:
            program.kill()
        await program.communicate()


@pytest.mark.parametrize("example", list(in_docstrings()))
async def test_of_a_docstring(url: str, example: str) -> None:
    """It ends, or comes to a line that prints."""

    def printed(*values: object) -> None:
        assert values
        raise ExampleDoneError

    assert "print(" in example or "while" not in example
    async with spotd.SpotClient(url) as client:
        names = {
            "SpotClient": spotd.SpotClient,
            "Spot": spotd.Spot,
            "spot": client,
            "listener": Told(),
            "app": FastAPI(),
            "spot_prices": spot_prices,
            "print": printed,
        }
        code = compiled(example.replace(ADDRESS, url))
        try:
            async with asyncio.timeout(GUARD_S):
                running = eval(code, names)  # noqa: S307 - an example of our own
                if inspect.isawaitable(running):
                    await running
        except ExampleDoneError:
            return
    assert "print(" not in example


def test_there_are_examples() -> None:
    """Neither search comes back empty because its pattern does not fit any more."""
    assert len(list(in_documents())) >= 3
    assert len(list(in_docstrings())) >= 6
