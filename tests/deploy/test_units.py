"""The files of deployment name only settings and commands of spotd, and do what they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import permutations
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from spotd import __version__
from spotd.cli.main import spotd
from spotd.errors import AlpacaRefusedError, SettingsError, SpotdError
from spotd.ops import livez
from spotd.relay.server import MOST_REQUESTS, SPARE_FILES, warnings_for
from spotd.relay.settings import RelaySettings
from spotd.settings import RELAY_NAMES, Settings, known_names, names_of

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = ROOT / "Dockerfile"
UNITS = DEPLOY / "systemd"
UNIT = UNITS / "spotd.service"
FEED_UNIT = UNITS / "spotd@.service"
RELAY_UNIT = UNITS / "spotd-relay.service"
ALL_UNITS = {path.name: path for path in (UNIT, FEED_UNIT, RELAY_UNIT)}
ENV_FILE = UNITS / "spotd.env"
FEED_FILES = {path.stem: path for path in UNITS.glob("*.env") if path != ENV_FILE}
EXPOSURE = 1.1  # of 10, as systemd-analyze security counts
COMPOSE_FILES = [DEPLOY / "compose.yaml", DEPLOY / "compose.sim.yaml"]
STOP_S = 5  # the contract's limit of a stop
DAEMON_NAMES = {names_of(field)[0] for field in Settings.model_fields}
KEYS = {"ALPACA_API_KEY", "ALPACA_SECRET_KEY"}  # which are secrets or credentials


def program(name: str) -> str | None:
    """Return the path of a program that a development dependency brings, or of the system's."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def load_compose(path: Path) -> dict[str, Any]:
    """Return the content of a compose file, with what its services take from another one."""
    document = yaml.safe_load(path.read_text())
    assert isinstance(document, dict)
    for name, service in document["services"].items():
        if "extends" in service:
            other = load_compose(path.parent / service["extends"]["file"])["services"]
            document["services"][name] = other[service["extends"]["service"]] | service
    return document


def services() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every service of every compose file, by the file's name and its own."""
    for path in COMPOSE_FILES:
        for name, service in load_compose(path)["services"].items():
            yield f"{path.name}:{name}", service


SERVICES = dict(services())
OURS = {name: service for name, service in SERVICES.items() if service["image"].startswith("spotd")}


def seconds(duration: str) -> float:
    """Return a compose duration, in seconds."""
    match = re.fullmatch(r"(\d+)s", duration)
    assert match, duration
    return float(match[1])


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile in order, continued lines joined."""
    lines = [
        line
        for line in DOCKERFILE.read_text().splitlines()
        if line.strip() and not line.startswith("#")
    ]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (name.upper(), rest.strip())
        for name, rest in (line.split(maxsplit=1) for line in joined.splitlines())
    ]


def last(instruction: str) -> str:
    """Return the arguments of the last instruction of this name: the one that counts."""
    return [rest for name, rest in instructions() if name == instruction][-1]


def unit(path: Path = UNIT) -> dict[str, list[str]]:
    """Return every key of a unit with its values in order."""
    values: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line and line[0] not in "#[":
            key, value = line.split("=", 1)
            values.setdefault(key, []).append(value)
    return values


def assignments(path: Path) -> dict[str, str]:
    """Return what an environment file sets."""
    return dict(re.findall(r"^(\w+)=(.*)$", path.read_text(), re.MULTILINE))


def feed_settings(feed: str) -> dict[str, str]:
    """Return what an instance of the feed's unit sets, its example file included."""
    set_by_unit = " ".join(unit(FEED_UNIT)["Environment"]).replace("%i", feed)
    return dict(pair.split("=", 1) for pair in set_by_unit.split()) | assignments(FEED_FILES[feed])


def analyze(*args: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze; skip the test where it is missing."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze")
    return subprocess.run([program, *args], capture_output=True, text=True, check=False)


class TestCompose:
    @pytest.mark.parametrize("name", OURS)
    def test_settings_exist(self, name: str) -> None:
        """A service of ours is given no setting that spotd would refuse as unknown."""
        names = set(OURS[name].get("environment", {}))

        assert names <= set(known_names())

    def test_every_setting_is_handed_on(self) -> None:
        """A setting of the shell reaches its service, unless a secret or a port takes its place."""
        document = load_compose(DEPLOY / "compose.yaml")["services"]
        daemon, relay = (set(document[name]["environment"]) for name in ("spotd", "relay"))
        shared = {"redis_url", "key_prefix", "channel_prefix", "log_level", "log_format"}

        assert daemon == DAEMON_NAMES - KEYS - {"SPOTD_HTTP_HOST", "SPOTD_HTTP_PORT"}
        assert relay == {names_of(field)[0] for field in shared} | set(RELAY_NAMES) - {
            "SPOTD_RELAY_PORT"
        }

    @pytest.mark.parametrize("name", SERVICES)
    def test_hardened(self, name: str) -> None:
        """Every container is read-only and has no capability nor a way to gain one."""
        service = SERVICES[name]

        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]

    @pytest.mark.parametrize("name", SERVICES)
    def test_loopback_only(self, name: str) -> None:
        """A published port is reached from the same host alone."""
        ports = SERVICES[name].get("ports", [])

        assert all(port.startswith("127.0.0.1:") for port in ports)

    @pytest.mark.parametrize("name", OURS)
    def test_time_to_stop(self, name: str) -> None:
        """A container is given more time to stop than the daemon needs."""
        assert seconds(OURS[name]["stop_grace_period"]) > STOP_S

    def test_secrets_are_settings(self) -> None:
        """A secret is named as the settings look for it: a variable in lower case."""
        document = load_compose(DEPLOY / "compose.yaml")

        assert set(document["secrets"]) == set(document["services"]["spotd"]["secrets"])
        assert {name.upper() for name in document["secrets"]} <= set(known_names())

    @pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
    def test_complete(self, path: Path) -> None:
        """Both have a leader and a standby, a relay, a server, and what watches them."""
        assert set(load_compose(path)["services"]) - {"simulator"} == {
            *("valkey", "spotd", "spotd-standby", "relay", "prometheus", "grafana")
        }

    @pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
    def test_prometheus_scrapes_every_daemon_and_relay(self, path: Path) -> None:
        """Each daemon and relay is a target, at the port of its command."""
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yaml").read_text())
        found = {
            target
            for job in config["scrape_configs"]
            for static in job["static_configs"]
            for target in static["targets"]
        }
        document = load_compose(path)["services"]
        ours = {
            name: each
            for name, each in document.items()
            if each["image"] == "spotd" and name != "simulator"
        }

        assert found == {
            f"{name}:{9811 if service.get('command') == ['relay'] else 9810}"
            for name, service in ours.items()
        }

    @pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
    def test_mounted_files_exist(self, path: Path) -> None:
        """A file that is mounted from beside the compose file is there."""
        for service in load_compose(path)["services"].values():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                assert not source.startswith("./") or (DEPLOY / source).exists(), source

    def test_simulation_is_apart(self) -> None:
        """Simulated prices have a project, and so a server, of their own, and need no secret."""
        real, simulated = (load_compose(path) for path in COMPOSE_FILES)

        assert simulated["name"] != real["name"]
        assert "secrets" not in simulated

    def test_simulator_lets_the_daemon_in(self) -> None:
        """The simulator's flags are flags, and open the door the daemon is sent to."""
        simulated = load_compose(DEPLOY / "compose.sim.yaml")["services"]
        command, *arguments = simulated["simulator"]["command"]
        simulate = spotd.get_command(click.Context(spotd), command)
        assert simulate is not None

        given = simulate.make_context(command, arguments).params
        daemon = simulated["spotd"]["environment"]

        assert given["host"] == "0.0.0.0"  # noqa: S104 - inside of its container
        assert daemon["SPOTD_STREAM_URL"].startswith(f"ws://simulator:{given['port']}/")
        assert daemon["SPOTD_DATA_URL"] == f"http://simulator:{given['port']}"
        assert daemon["ALPACA_API_KEY"] == given["key"]
        assert daemon["ALPACA_SECRET_KEY"] == given["secret"]

    @pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
    def test_compose_accepts_it(self, path: Path) -> None:
        """Docker's compose reads the file without complaint."""
        compose = program("docker-compose")
        if compose is None:
            pytest.skip("no docker-compose for this machine")

        run = subprocess.run(
            [compose, "-f", str(path), "config", "--quiet"],
            capture_output=True,
            text=True,
            check=False,
        )

        assert (run.returncode, run.stderr) == (0, "")


class TestImage:
    def test_hadolint_is_content(self) -> None:
        """The Dockerfile follows the rules of hadolint, all of them."""
        hadolint = program("hadolint")
        if hadolint is None:
            pytest.skip("no hadolint for this machine")

        run = subprocess.run(
            [hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False
        )

        assert (run.returncode, run.stdout) == (0, "")

    def test_not_root(self) -> None:
        """The image runs as a number that is not root's, so that Kubernetes can tell."""
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last("USER"))

    def test_signals_arrive(self) -> None:
        """The exec form makes the daemon process 1, which gets SIGTERM itself."""
        assert json.loads(last("ENTRYPOINT")) == ["spotd"]
        assert json.loads(last("CMD")) == ["run"]
        assert last("STOPSIGNAL") == "SIGTERM"

    def test_settings_exist(self) -> None:
        """The image sets no setting that spotd would refuse as unknown."""
        names = set(re.findall(r"\b(SPOTD_\w+)=", last("ENV")))

        assert names == {"SPOTD_HTTP_HOST"}
        assert names <= set(known_names())

    def test_default_port(self) -> None:
        """The exposed port is the setting's default."""
        assert last("EXPOSE") == str(Settings.model_fields["http_port"].default)

    def test_health_check_needs_no_shell(self) -> None:
        """The check is a program with arguments, and imports nothing from where it is run."""
        command = json.loads(last("HEALTHCHECK").split("CMD", 1)[1])

        assert command == ["python3", "-P", "-m", livez.__name__]

    def test_version(self) -> None:
        """The label tells the version of the package."""
        assert f"ARG VERSION={__version__}" in DOCKERFILE.read_text().splitlines()

    def test_only_the_package_is_sent_to_the_build(self) -> None:
        """The build context leaves everything out but what the Dockerfile copies."""
        rules = [
            line
            for line in (ROOT / ".dockerignore").read_text().splitlines()
            if line and not line.startswith("#")
        ]
        allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
        copied = {
            source.removeprefix("./")
            for name, rest in instructions()
            if name == "COPY" and not rest.startswith("--from")
            for source in rest.split()[:-1]
        }

        assert rules[0] == "*"
        assert allowed == copied
        assert all((ROOT / path).exists() for path in allowed)


class TestSystemd:
    @pytest.mark.parametrize("name", ALL_UNITS)
    def test_systemd_accepts_it(self, name: str, tmp_path: Path) -> None:
        """`systemd-analyze verify` has nothing to say, in a root where spotd is installed."""
        system = Path("/usr/lib/systemd/system")
        if not (system / "sysinit.target").exists():
            pytest.skip("no units of systemd's own")
        # The unit is verified as it is: an empty root has the program at its place, and the
        # targets that every service asks for.
        shutil.copytree(
            system,
            tmp_path / "usr/lib/systemd/system",
            symlinks=True,
            ignore=lambda _, names: [name for name in names if not name.endswith(".target")],
        )
        program = tmp_path / unit(ALL_UNITS[name])["ExecStart"][0].split()[0].lstrip("/")
        program.parent.mkdir(parents=True)
        program.touch(mode=0o755)
        installed = tmp_path / "etc/systemd/system" / name
        installed.parent.mkdir(parents=True)
        shutil.copy(ALL_UNITS[name], installed)

        run = analyze("verify", "--man=no", f"--root={tmp_path}", name.replace("@", "@sip"))

        assert (run.returncode, run.stdout + run.stderr) == (0, "")

    @pytest.mark.parametrize("name", ALL_UNITS)
    def test_exposure(self, name: str, tmp_path: Path) -> None:
        """`systemd-analyze security` finds little that a broken-in program could do."""
        installed = tmp_path / name.replace("@", "@sip")
        shutil.copy(ALL_UNITS[name], installed)

        run = analyze(
            "security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE * 10:.0f}",
            str(installed),
        )  # fmt: skip

        assert run.returncode == 0, run.stdout + run.stderr
        assert f"exposure level for {installed.name}: {EXPOSURE}" in run.stdout

    @pytest.mark.parametrize("path", [FEED_UNIT, RELAY_UNIT], ids=lambda path: path.name)
    def test_one_sandbox(self, path: Path) -> None:
        """All units have the sandbox, the watchdog and the restarts of spotd.service."""
        own = {
            "Description", "ExecStart", "EnvironmentFile", "Environment", "LoadCredential",
            "RestartPreventExitStatus", "LimitNOFILE", "User",
        }  # fmt: skip

        other = {key: values for key, values in unit(path).items() if key not in own}

        assert other == {key: values for key, values in unit().items() if key not in own}

    @pytest.mark.parametrize(
        ("path", "errors"),
        [
            (UNIT, (SettingsError, AlpacaRefusedError)),
            (FEED_UNIT, (SettingsError, AlpacaRefusedError)),
            (RELAY_UNIT, (SettingsError,)),
        ],
        ids=ALL_UNITS,
    )
    def test_what_needs_a_person_is_not_tried_again(
        self, path: Path, errors: tuple[type[SpotdError], ...]
    ) -> None:
        """The exit codes that end the restarts are those of wrong settings and of a refusal."""
        codes = {int(code) for code in unit(path)["RestartPreventExitStatus"][0].split()}

        assert codes == {error.exit_code for error in errors}
        assert unit(path)["Restart"] == ["always"]

    @pytest.mark.parametrize("path", ALL_UNITS.values(), ids=ALL_UNITS)
    def test_time_to_stop(self, path: Path) -> None:
        """The unit is given more time to stop than daemon and relay need."""
        assert int(unit(path)["TimeoutStopSec"][0]) > STOP_S

    def test_files_for_every_client(self) -> None:
        """The relay may open all files that its default limits allow, and does not warn."""
        files = int(unit(RELAY_UNIT)["LimitNOFILE"][0])

        assert (
            files
            >= RelaySettings.model_validate({}).relay_max_clients + MOST_REQUESTS + SPARE_FILES
        )
        assert warnings_for(RelaySettings.model_validate({}), files) == []

    @pytest.mark.parametrize("path", [UNIT, FEED_UNIT], ids=lambda path: path.name)
    def test_credentials_are_settings(
        self, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The daemon finds the keys under the names that the unit gives them."""
        self.give_credentials(path, tmp_path, monkeypatch)

        key, secret = Settings.load().credentials()

        assert key.get_secret_value() == "value of alpaca_api_key"
        assert secret.get_secret_value() == "value of alpaca_secret_key"

    def test_token_is_a_setting(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The relay finds its token under the name that the unit gives it."""
        self.give_credentials(RELAY_UNIT, tmp_path, monkeypatch, value="a-token-of-enough-letters")

        assert RelaySettings.load().tokens == ("a-token-of-enough-letters",)

    @staticmethod
    def give_credentials(
        path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str | None = None
    ) -> None:
        for credential in unit(path)["LoadCredential"]:
            name = credential.split(":")[0]
            (tmp_path / name).write_text(f"{value or f'value of {name}'}\n")
        for name in known_names():
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    @pytest.mark.parametrize("feed", FEED_FILES)
    def test_an_instance_is_of_its_feed(
        self, feed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The name of an instance is its feed; nothing that is unknown is set."""
        for name in known_names():
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(tmp_path)
        for name, value in feed_settings(feed).items():
            monkeypatch.setenv(name, value)

        settings = Settings.load()

        assert settings.feed == feed
        assert settings.stream_endpoint.endswith(f"/{feed}")

    def test_instances_share_nothing(self) -> None:
        """No two daemons of a machine share a port or a name in Redis, nor match each other's."""
        settings = [
            Settings.model_validate({}),
            *(Settings.model_validate(by_field(feed)) for feed in FEED_FILES),
        ]

        for one, other in permutations(settings, 2):
            assert one.http_port != other.http_port
            assert not one.key_prefix.startswith(other.key_prefix)
            assert not one.channel_prefix.startswith(other.channel_prefix)
            assert RelaySettings.model_validate({}).relay_port != one.http_port

    def test_env_file_shows_the_defaults(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Every setting but the keys is in the example, and uncommenting all changes nothing."""
        for name in known_names():
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
        plain = Settings.load()

        shown = dict(re.findall(r"^#(\w+)=(.*)$", ENV_FILE.read_text(), re.MULTILINE))
        for name, value in shown.items():
            monkeypatch.setenv(name, value)

        assert set(shown) == DAEMON_NAMES - KEYS
        assert Settings.load() == plain


def by_field(feed: str) -> dict[str, str]:
    """Return what an instance sets, by the field of the setting."""
    return {
        name.removeprefix("SPOTD_").lower(): value
        for name, value in feed_settings(feed).items()
        if name.startswith("SPOTD_")
    }
