"""The manifests for Kubernetes are valid, and name only what spotd has."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from spotd.cli.main import spotd
from spotd.relay.settings import RelaySettings
from spotd.settings import Settings, known_names

KUBERNETES = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
OVERLAYS = ["alpaca", "simulated"]
# The oldest version with `unhealthyPodEvictionPolicy`, and a new one.
VERSIONS = ["1.27", "1.34"]
STOP_S = 5  # the contract's limit of a stop
_NOT_OBJECTS = {
    "Kustomization",
    "Component",
    "ServiceMonitor",
}  # kinds of tools, not Kubernetes' own


def written() -> Iterator[dict[str, Any]]:
    """Yield every object as it is written, before any overlay."""
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] not in _NOT_OBJECTS:
                yield document


def title(document: dict[str, Any]) -> str:
    """Return kind and name of an object."""
    return f"{document['kind']}:{document['metadata']['name']}"


def rendered(overlay: str) -> dict[str, dict[str, Any]]:
    """Return what an overlay makes of the base, by kind and name without the hash."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl")
    text = subprocess.run(
        [kubectl, "kustomize", str(KUBERNETES / "overlays" / overlay)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    found = {}
    for document in yaml.safe_load_all(text):
        name = title(document)
        found[name.rsplit("-", 1)[0] if document["kind"] == "ConfigMap" else name] = document
    return found


WRITTEN = {title(document): document for document in written()}
PODS = {
    name: document["spec"]["template"]["spec"]
    for name, document in WRITTEN.items()
    if document["kind"] == "Deployment"
}
OURS = {name: pod for name, pod in PODS.items() if pod["containers"][0]["image"] == "spotd"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", WRITTEN)
def test_an_object_is_valid(name: str, version: str) -> None:
    """Kubernetes' own schema accepts each object, and knows each of its fields."""
    kubernetes_validate.validate(WRITTEN[name], version, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_valid(overlay: str) -> None:
    """What an overlay makes of the base is valid, too, and all of it is in one namespace."""
    objects = rendered(overlay)
    namespaces = {
        document["metadata"].get("namespace", document["metadata"]["name"])
        for document in objects.values()
    }

    for document in objects.values():
        kubernetes_validate.validate(document, VERSIONS[0], strict=True)
    assert len(namespaces) == 1


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_settings_are_complete(
    overlay: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Daemon and relay can start with the environment and the files that their pods get."""
    objects = rendered(overlay)
    if overlay == "alpaca":  # its keys are files
        for name in ("alpaca_api_key", "alpaca_secret_key"):
            (tmp_path / name).write_text("x")

    for name, settings in (("spotd", Settings), ("spotd-relay", RelaySettings)):
        [container] = objects[f"Deployment:{name}"]["spec"]["template"]["spec"]["containers"]
        given = {each["name"]: each["value"] for each in container["env"]}
        for source in container["envFrom"]:
            generated = source["configMapRef"]["name"].rsplit("-", 1)[0]
            given |= objects[f"ConfigMap:{generated}"]["data"]
        assert set(given) <= set(known_names())
        with monkeypatch.context() as patch:
            for variable, value in given.items():
                patch.setenv(variable, value)
            patch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
            assert settings.load().redis_url.get_secret_value() == given["SPOTD_REDIS_URL"]


def test_secrets_are_files_of_spotd() -> None:
    """The overlay for Alpaca mounts its secrets where spotd looks for them, and nothing else."""
    objects = rendered("alpaca")

    for name in ("spotd", "spotd-relay"):
        pod = objects[f"Deployment:{name}"]["spec"]["template"]["spec"]
        [volume] = pod["volumes"]
        [mount] = pod["containers"][0]["volumeMounts"]
        assert mount["mountPath"] == "/run/secrets"
        assert mount["readOnly"] is True
        assert volume["secret"]["secretName"].startswith("spotd-")


def test_the_simulator_lets_the_daemon_in() -> None:
    """The simulated overlay sends the daemon to the simulator's port, with the simulator's keys."""
    objects = rendered("simulated")
    data = objects["ConfigMap:spotd"]["data"]
    [container] = PODS["Deployment:simulator"]["containers"]
    command, *arguments = container["args"]
    simulate = spotd.get_command(click.Context(spotd), command)
    assert simulate is not None

    given = simulate.make_context(command, arguments).params

    assert given["host"] == "0.0.0.0"  # noqa: S104 - inside of its pod
    assert data["SPOTD_STREAM_URL"].startswith(f"ws://simulator:{given['port']}/")
    assert data["SPOTD_DATA_URL"] == f"http://simulator:{given['port']}"
    assert (data["ALPACA_API_KEY"], data["ALPACA_SECRET_KEY"]) == (given["key"], given["secret"])
    assert {"ports": [{"port": given["port"]}]} in objects["NetworkPolicy:spotd"]["spec"]["egress"]


@pytest.mark.parametrize("name", PODS)
def test_a_pod_is_hardened(name: str) -> None:
    """Every pod meets the restricted standard, is read-only, and knows no other Service."""
    pod = PODS[name]
    [container] = pod["containers"]

    assert pod["enableServiceLinks"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


@pytest.mark.parametrize("name", PODS)
def test_resources(name: str) -> None:
    """Memory is bounded. CPU is not, since a daemon that is held back falls behind."""
    resources = PODS[name]["containers"][0]["resources"]

    assert set(resources["requests"]) == {"cpu", "memory"}
    assert set(resources["limits"]) == {"memory"}


@pytest.mark.parametrize("name", OURS)
def test_a_command_exists(name: str) -> None:
    """A container of ours runs a command of spotd."""
    command = OURS[name]["containers"][0]["args"][0]

    assert spotd.get_command(click.Context(spotd), command) is not None


@pytest.mark.parametrize(
    ("name", "settings", "field"),
    [("spotd", Settings, "http_port"), ("spotd-relay", RelaySettings, "relay_port")],
)
def test_probes(name: str, settings: type[Settings], field: str) -> None:
    """A pod is alive by /livez and ready by /readyz, at the port that is the setting's default."""
    container = PODS[f"Deployment:{name}"]["containers"][0]
    default = settings.model_fields[field].default

    assert container["ports"] == [{"name": "http", "containerPort": default}]
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}


@pytest.mark.parametrize("name", ["spotd", "spotd-relay"])
def test_a_roll_out_takes_nothing_away(name: str) -> None:
    """A new pod is ready before an old one stops, which has more time than its stop needs."""
    deployment = WRITTEN[f"Deployment:{name}"]["spec"]
    pod = deployment["template"]["spec"]
    waits = re.search(r"sleep\((\d+)\)", str(pod["containers"][0].get("lifecycle")))
    waits_s = int(waits[1]) if waits else 0

    assert deployment["replicas"] >= 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    assert pod["terminationGracePeriodSeconds"] > STOP_S + waits_s


@pytest.mark.parametrize("kind", ["PodDisruptionBudget", "Service", "NetworkPolicy"])
@pytest.mark.parametrize("name", ["spotd", "spotd-relay"])
def test_selectors_meet_pods(name: str, kind: str) -> None:
    """Budget, Service and network policy select the pods of their Deployment and no other."""
    spec = WRITTEN[f"{kind}:{name}"]["spec"]
    key = "podSelector" if kind == "NetworkPolicy" else "selector"
    selected = spec[key].get("matchLabels", spec[key])
    labels = WRITTEN[f"Deployment:{name}"]["spec"]["template"]["metadata"]["labels"]

    assert selected.items() <= labels.items()
    assert selected == {"app.kubernetes.io/name": name}


@pytest.mark.parametrize("name", ["spotd", "spotd-relay"])
def test_prometheus_gets_in_and_tells_sets_apart(name: str) -> None:
    """Each Service has a monitor; the relay's sends its token; a job names its namespace."""
    path = KUBERNETES / "components" / "service-monitor" / "monitor.yaml"
    [monitor] = [
        document["spec"]
        for document in yaml.safe_load_all(path.read_text())
        if document["metadata"]["name"] == name
    ]
    service = WRITTEN[f"Service:{name}"]
    assert monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    [endpoint] = monitor["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    [job] = endpoint["relabelings"]
    assert job["targetLabel"] == "job"
    assert "__meta_kubernetes_namespace" in job["sourceLabels"]
    if name == "spotd-relay":
        credentials = endpoint["authorization"]["credentials"]
        assert credentials["key"] == "spotd_relay_token"
        mounted = rendered("alpaca")["Deployment:spotd-relay"]["spec"]["template"]["spec"]
        [volume] = mounted["volumes"]
        assert volume["secret"]["secretName"] == credentials["name"]
