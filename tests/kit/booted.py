"""A real systemd as process 1 of a container: this machine's, with an empty root beside its /usr.

systemd-nspawn makes the container, without an image: `/` is empty memory, `/usr` is this machine's
and read-only. The network is this machine's, so that a test's own servers are reached. spotd is
installed in `/opt/spotd`, from the source of the tests and with the packages of their interpreter.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.kit.waiting import GUARD_S, until_sync

ROOT = Path(__file__).resolve().parents[2]
# The library of an interpreter that was built elsewhere is not where the interpreter looks for it.
_SPOTD = """#!/usr/bin/env -S LD_LIBRARY_PATH=/opt/python/lib /opt/python/bin/python{version} -sP
import sys
sys.path[:0] = ["/opt/spotd/source", "/opt/spotd/packages"]
from spotd.cli.main import main
sys.exit(main())
"""


class CannotBootError(Exception):
    """Why no systemd can be booted here."""


def _cgroups() -> Path:
    """Return where this machine has its second version of cgroups mounted."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise CannotBootError("no cgroup2 is mounted")


def _is_empty(group: Path) -> bool:
    """Return whether no process is left in a control group or below it."""
    return "populated 0" in (group / "cgroup.events").read_text()


class BootedSystemd:
    """``with`` boots it and ends it. ``units`` and ``files`` (below /etc) are laid before.

    Raises CannotBootError with the reason where it cannot be booted.
    """

    def __init__(self, home: Path, units: list[Path], files: dict[str, str]) -> None:
        self.etc = home / "etc"  # what the container has of /etc; may be changed while it runs
        self._home = home
        self._name = f"spotd-{uuid.uuid4().hex[:8]}"
        self._cgroup: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._leader = 0
        self._lay(units, files)

    def _lay(self, units: list[Path], files: dict[str, str]) -> None:
        etc, program = self.etc, self._home / "spotd"
        for path in ("systemd/system", "spotd"):
            (etc / path).mkdir(parents=True)
        for path in ("bin", "source", "packages"):
            (program / path).mkdir(parents=True)
        for unit in units:
            shutil.copy(unit, etc / "systemd/system")
        for name, text in files.items():
            (etc / name).parent.mkdir(parents=True, exist_ok=True)
            (etc / name).write_text(text)
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        (program / "bin/spotd").write_text(_SPOTD.format(version=version))
        (program / "bin/spotd").chmod(0o755)

    def __enter__(self) -> Self:
        """Boot, and wait until units can be started."""
        if os.geteuid():
            raise CannotBootError("only root may boot a container")
        if shutil.which("systemd-nspawn") is None:
            raise CannotBootError("no systemd-nspawn (Debian's package systemd-container)")
        try:
            # A control group of its own: systemd would manage every group of the machine.
            self._cgroup = _cgroups() / self._name
            self._cgroup.mkdir()
            self._boot()
        except OSError as error:
            self._end()
            raise CannotBootError(str(error)) from error
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and all that runs in it."""
        self._end()

    def _boot(self) -> None:
        etc, program = self.etc, self._home / "spotd"
        packages = sysconfig.get_path("purelib")
        command = [
            "systemd-nspawn", "--directory=/", "--volatile=yes", f"--machine={self._name}",
            "--register=no", "--keep-unit", "--console=pipe", "--quiet", "--link-journal=no",
            f"--bind={etc}/systemd/system:/etc/systemd/system",
            f"--bind-ro={etc}/spotd:/etc/spotd",
            f"--bind-ro={program}:/opt/spotd",
            f"--bind-ro={ROOT}:/opt/spotd/source",
            f"--bind-ro={packages}:/opt/spotd/packages",
            f"--bind-ro={sys.base_prefix}:/opt/python",
            "--boot", "systemd.unit=basic.target",
        ]  # fmt: skip
        with (self._home / "console").open("wb") as console:
            self._process = subprocess.Popen(
                # The shell moves itself, and so what it becomes, into the control group.
                [
                    "sh",
                    "-c",
                    f'echo $$ >{self._cgroup}/cgroup.procs && exec "$@"',
                    "sh",
                    *command,
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        until_sync(self._is_up, "systemd to boot")

    def _is_up(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            told = (self._home / "console").read_text(errors="replace").strip()
            raise CannotBootError(f"systemd-nspawn ended with {self._process.returncode}: {told}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        pids = children.read_text().split()
        if not pids:
            return False
        self._leader = int(pids[0])
        return self.run("systemctl", "is-active", "basic.target").stdout.strip() == "active"

    def _end(self) -> None:
        process, self._process = self._process, None
        group, self._cgroup = self._cgroup, None
        if group is not None and group.exists():
            (group / "cgroup.kill").write_text("1")  # all that is in it or below it
            until_sync(lambda: _is_empty(group), "the container's end")
            for one, _, _ in os.walk(group, topdown=False):
                Path(one).rmdir()
        if process is not None:
            process.wait(GUARD_S)
        # Where nspawn left these, since it was killed.
        for place in ("propagate", "unix-export"):
            with suppress(OSError):
                (Path("/run/systemd/nspawn") / place / self._name).rmdir()

    # What an operator does

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as root."""
        return subprocess.run(
            ["nsenter", "--target", str(self._leader), "--all", *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=GUARD_S,
        )

    def systemctl(self, *args: str) -> str:
        """Run systemctl and return what it prints; AssertionError where it fails."""
        done = self.run("systemctl", *args)
        assert done.returncode == 0, f"{shlex.join(args)}: {done.stdout}{done.stderr}"
        return done.stdout

    def show(self, unit: str) -> dict[str, str]:
        """Return all properties of a unit."""
        lines = self.systemctl("show", unit).splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def journal(self, unit: str) -> str:
        """Return what a unit, and systemd about it, has logged."""
        return self.run("journalctl", "--no-pager", "--output=cat", "--unit", unit).stdout
