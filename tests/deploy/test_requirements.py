"""What the image installs agrees with pyproject.toml, and is pinned by hashes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "deploy" / "requirements"
NAMES = ("run.txt", "demo.txt", "build.txt")
PYTHONS = ("3.11.9", "3.12.9", "3.13.9", "3.14.1")
MACHINES = ("x86_64", "aarch64")


class Pin(NamedTuple):
    """One requirement of a file, with the hashes of its files."""

    requirement: Requirement
    hashes: list[str]


def pins(name: str) -> list[Pin]:
    """Return what a file requires."""
    text = (FILES / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    split = [re.split(r"\s+--hash=", line) for line in lines]
    return [Pin(Requirement(head), hashes) for head, *hashes in split]


def project() -> dict[str, Any]:
    """Return what pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def wanted(name: str) -> list[str]:
    """Return the requirements in pyproject.toml from which a file is made."""
    document = project()
    if name == "build.txt":
        return list(document["build-system"]["requires"])
    if name == "demo.txt":
        return list(document["project"]["optional-dependencies"]["demo"])
    return list(document["project"]["dependencies"])


def chosen(name: str, python: str, machine: str) -> dict[str, str]:
    """Return the version of each package that one Python on Linux installs from a file."""
    environment = {
        "python_version": python.rpartition(".")[0],
        "python_full_version": python,
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "implementation_name": "cpython",
    }
    found: dict[str, str] = {}
    for requirement, _ in pins(name):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            key = canonicalize_name(requirement.name)
            assert key not in found, f"{key} twice"
            [version] = requirement.specifier
            found[key] = version.version
    return found


@pytest.mark.parametrize("name", NAMES)
def test_pinned_by_hashes(name: str) -> None:
    """Each line names one version and the SHA-256 of its files, and no address."""
    found = pins(name)

    assert found
    for requirement, hashes in found:
        assert [each.operator for each in requirement.specifier] == ["=="]
        assert requirement.url is None
        assert hashes
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes)
    assert "://" not in (FILES / name).read_text()


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", NAMES)
def test_agrees_with_the_project(name: str, python: str, machine: str) -> None:
    """Each dependency of the project is in the file, with a version within its bounds."""
    found = chosen(name, python, machine)

    for text in wanted(name):
        requirement = Requirement(text)
        key = canonicalize_name(requirement.name)
        assert key in found, f"{key}: run deploy/requirements/refresh"
        assert requirement.specifier.contains(found[key]), (
            f"{key} {found[key]} is not {requirement.specifier}: run deploy/requirements/refresh"
        )


@pytest.mark.parametrize("python", PYTHONS)
def test_extras_agree_with_the_rest(python: str) -> None:
    """A package that the demo and the daemon need has the same version for both."""
    run = chosen("run.txt", python, "x86_64")
    demo = chosen("demo.txt", python, "x86_64")

    assert {key: run[key] for key in run.keys() & demo} == {
        key: demo[key] for key in run.keys() & demo
    }
