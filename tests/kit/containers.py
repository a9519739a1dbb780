"""Images built by buildah, and containers of them in namespaces of the kernel. Needs root.

A container here is what Docker starts with ``--read-only --cap-drop ALL --security-opt
no-new-privileges --network host``: the image's command is process 1, as the image's user, with the
image's environment.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.kit.waiting import GUARD_S, until_sync

SUITE = "trixie"  # Debian's, with the Python of the image's own base
_PACKAGES = "python3,python3-venv,ca-certificates"
_IMAGE = "localhost/spotd-test"
_NEEDED = ("buildah", "debootstrap", "nsenter", "setpriv", "unshare")
_SOURCES = (Path("/etc/pip.conf"), Path("/etc/ssl/certs/ca-certificates.crt"))
_NO_PRIVILEGES = (
    "--clear-groups",
    "--inh-caps=-all",
    "--ambient-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
)
# Arguments: the root of the image, where it is mounted, the folder of secrets, a writable folder of
# the container or "", the command.
_MOUNTS = """
image=$1; root=$2; secrets=$3; tmpfs=$4; shift 4
mount --bind "$image" "$root"
mount -o remount,bind,ro "$root"
[ -z "$tmpfs" ] || mount -t tmpfs -o mode=1777 tmpfs "$root$tmpfs"
mount --rbind /dev "$root/dev"
mount --bind "$secrets" "$root/run/secrets"
exec unshare --pid --fork --kill-child --ipc --uts --mount-proc=/proc --root="$root" "$@"
"""


def missing() -> str | None:
    """Return why no image can be built here. Return None if nothing is missing."""
    if os.geteuid() != 0:
        return "building an image needs root"
    absent = [name for name in _NEEDED if shutil.which(name) is None]
    return f"building an image needs {', '.join(absent)}" if absent else None


class Image:
    """A built image: its configuration, and its files in a directory."""

    def __init__(self, config: Mapping[str, Any], root: Path) -> None:
        self.config = config
        self.root = root

    @property
    def environment(self) -> dict[str, str]:
        """The environment that the image gives its commands."""
        return dict(each.split("=", 1) for each in self.config["Env"])


class Builder:
    """Builds images with buildah. All of its storage lies in ``home``."""

    def __init__(self, home: Path) -> None:
        self._home = home
        home.mkdir(parents=True, exist_ok=True)

    def base(self) -> str:
        """Return the name of a base image: a small Debian with Python, made at the first call."""
        name = f"localhost/spotd-test-{SUITE}"
        if self._buildah("images", "--quiet", "--filter", f"reference={name}"):
            return name
        tree, archive = self._home / "base", self._home / "base.tar"
        _run("debootstrap", "--variant=minbase", f"--include={_PACKAGES}", SUITE, str(tree))
        leave_out = [f"--exclude=./{each}/*" for each in ("proc", "sys", "dev", "var/cache/apt")]
        _run("tar", "-C", str(tree), *leave_out, "-cf", str(archive), ".")
        container = self._buildah("from", "scratch")
        self._buildah("add", "--quiet", container, str(archive), "/")
        self._buildah("commit", "--quiet", container, name)
        self._buildah("rm", container)
        shutil.rmtree(tree)
        archive.unlink()
        return name

    def build(self, context: Path, **arguments: str) -> Image:
        """Build the Dockerfile of a directory with these build arguments."""
        # What this machine needs to reach its index. The content does not stay in the image.
        volumes = [f"--volume={path}:{path}:ro" for path in _SOURCES if path.exists()]
        given = [f"--build-arg={name}={value}" for name, value in arguments.items()]
        options = ["--isolation=chroot", "--format=docker", "--network=host", "--quiet"]
        self._buildah("bud", *options, *volumes, *given, f"--tag={_IMAGE}", str(context))
        inspected = json.loads(self._buildah("inspect", "--type=image", _IMAGE))
        root = Path(self._buildah("mount", self._buildah("from", _IMAGE)))
        # What a container's engine makes to mount on.
        for directory in ("dev", "proc", "run/secrets", "sys", "tmp"):
            (root / directory).mkdir(parents=True, exist_ok=True)
        return Image(inspected["Docker"]["config"], root)

    def clear(self) -> None:
        """Remove all that was built but the base."""
        self._buildah("rm", "--all")
        self._buildah("rmi", "--force", _IMAGE)

    def _buildah(self, *arguments: str) -> str:
        # vfs and chroot ask the least of the kernel: no overlay, no namespaces.
        storage = ["--root", str(self._home / "storage"), "--runroot", str(self._home / "run")]
        return _run("buildah", *storage, "--storage-driver=vfs", *arguments)


class Container:
    """One container of an image. Its output and its secrets lie in ``home``."""

    def __init__(
        self,
        image: Image,
        *command: str,
        home: Path,
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        tmpfs: str = "",
    ) -> None:
        self._image = image
        self._env = image.environment | dict(env or {})
        self._output = home / "output"
        root, secret = home / "root", home / "secrets"
        for directory in (home, root, secret):
            directory.mkdir(exist_ok=True)
        for name, text in (secrets or {}).items():
            (secret / name).write_text(text)
        started = [*image.config["Entrypoint"], *(command or image.config["Cmd"])]
        with self._output.open("wb") as output:
            mounts = ["unshare", "--mount", "--propagation=private", "sh", "-euc", _MOUNTS, "sh"]
            places = [str(image.root), str(root), str(secret), tmpfs]
            self._process = subprocess.Popen(
                [*mounts, *places, *self._as_user(started)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def __enter__(self) -> Self:
        """Return the container, which runs already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill what is left of it."""
        self._process.kill()  # `--kill-child`: process 1 and with it the namespace end too
        self._process.wait()

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self._output.read_text("utf-8", "replace")

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The number that its process 1 has outside; 0 before it runs the command."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        with suppress(OSError):
            for child in children.read_text().split():
                # Before that it is `unshare`, `env` and `setpriv`.
                _, *arguments = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
                if arguments and arguments[0].endswith(b"/bin/spotd"):
                    return int(child)
        return 0

    def status(self) -> dict[str, str]:
        """Return what the kernel says of its process 1."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def handles(self, number: signal.Signals) -> bool:
        """Return whether its process 1 has a handler of a signal; without one it gets none."""
        try:
            return bool(int(self.status()["SigCgt"], 16) >> (number - 1) & 1)
        except OSError:
            return False

    def children(self) -> list[str]:
        """Return the numbers of the children of its process 1, zombies too."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return [child for task in tasks for child in (task / "children").read_text().split()]

    def send(self, number: signal.Signals) -> None:
        """Send its process 1 a signal from outside, as the engine does."""
        os.kill(self.pid, number)

    @property
    def stop_signal(self) -> signal.Signals:
        """The signal with which the engine stops containers of the image."""
        return signal.Signals[self._image.config["StopSignal"]]

    def ends(self) -> int:
        """Return its exit code once it has ended; AssertionError with its output if it hangs."""
        try:
            return self._process.wait(GUARD_S)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still runs after {GUARD_S:g} s\n{self.output}") from None

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as ``docker exec`` does and as the health check runs."""
        until_sync(lambda: self.pid, "process 1 runs")
        target = ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--ipc", "--uts", "--root"]
        return subprocess.run(
            [*target, *self._as_user(command)],
            capture_output=True,
            text=True,
            timeout=GUARD_S,
            check=False,
        )

    def health(self) -> int:
        """Return the exit code of the image's health check."""
        kind, *command = self._image.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return self.execute(*command).returncode

    def _as_user(self, command: list[str] | tuple[str, ...]) -> list[str]:
        user, group = self._image.config["User"].split(":")
        env = [f"{name}={value}" for name, value in self._env.items()]
        drop = ["setpriv", f"--reuid={user}", f"--regid={group}", *_NO_PRIVILEGES]
        directory = f"--chdir={self._image.config['WorkingDir']}"
        return ["/usr/bin/env", "-i", directory, *env, *drop, *command]


def _run(*command: str) -> str:
    """Return what a command wrote to stdout. AssertionError with the end of its output."""
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"{command}\n{run.stdout[-4_000:]}\n{run.stderr[-4_000:]}"
    return run.stdout.strip()
