"""The alerts fire when they should and stay silent when they should, as promtool computes it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.kit.metrics_table import daemon_text, relay_text
from tests.kit.prometheus import RULES

A, B = 'job="spotd", instance="a"', 'job="spotd", instance="b"'
RELAY = 'job="relay", instance="c"'

# Values every 15 s, in promtool's notation: `1x8` is 1 nine times, `0+2x8` rises by 2.
HEALTHY = {
    f"spotd_leader{{{A}}}": "1x80",
    f"spotd_leader{{{B}}}": "0x80",
    f"spotd_ready{{{A}}}": "1x80",
    f"spotd_ready{{{B}}}": "1x80",
    f"spotd_stream_connected{{{A}}}": "1x80",
    f"spotd_stream_connected{{{B}}}": "0x80",
    f'spotd_market{{{A}, state="open"}}': "1x80",
    f'spotd_symbols{{{A}, state="live"}}': "30x80",
    f'spotd_symbols{{{A}, state="stale"}}': "0x80",
    f'spotd_symbols{{{A}, state="refused"}}': "0x80",
    f"spotd_breaker_state{{{A}}}": "0x80",
    f"spotd_lag_seconds{{{A}}}": "0.03x80",
    f"spotd_redis_errors_total{{{A}}}": "3x80",
    f'spotd_reconnects_total{{{A}, reason="closed"}}': "2x80",
    f'spotd_loop_lag_seconds_bucket{{{A}, le="0.01"}}': "0+10x80",
    f'spotd_loop_lag_seconds_bucket{{{A}, le="0.5"}}': "0+10x80",
    f'spotd_loop_lag_seconds_bucket{{{A}, le="+Inf"}}': "0+10x80",
    f"spotd_relay_ready{{{RELAY}}}": "1x80",
    f'spotd_relay_clients{{{RELAY}, kind="websocket"}}': "500x80",
    f"spotd_relay_clients_blocked{{{RELAY}}}": "3x80",
    f'spotd_relay_refused_total{{{RELAY}, code="404"}}': "0+1x80",
}
# What differs from health, and the alerts that it raises in the end.
FAULTS: dict[str, tuple[dict[str, str | None], set[str]]] = {
    "nobody leads": ({f"spotd_leader{{{A}}}": "1x10 0x70"}, {"SpotdNoLeader"}),
    "both lead": ({f"spotd_leader{{{B}}}": "0x10 1x70"}, {"SpotdTwoLeaders"}),
    "no daemon at all": (
        {f"spotd_leader{{{A}}}": None, f"spotd_leader{{{B}}}": None},
        {"SpotdAbsent"},
    ),
    "one daemon alone": ({f"spotd_leader{{{B}}}": None}, {"SpotdStandbyMissing"}),
    "a standby that is not ready": ({f"spotd_ready{{{B}}}": "0x80"}, {"SpotdNotReady"}),
    "no stream by day": ({f"spotd_stream_connected{{{A}}}": "0x80"}, {"SpotdStreamDown"}),
    "an open breaker": ({f"spotd_breaker_state{{{A}}}": "2x80"}, {"SpotdBreakerOpen"}),
    "one reconnect a minute": (
        {f'spotd_reconnects_total{{{A}, reason="closed"}}': "0+0.25x80"},
        {"SpotdReconnects"},
    ),
    "old prices": ({f"spotd_lag_seconds{{{A}}}": "8x80"}, {"SpotdLagging"}),
    "stale symbols": ({f'spotd_symbols{{{A}, state="stale"}}': "4x80"}, {"SpotdSymbolsStale"}),
    "refused entries": (
        {f'spotd_symbols{{{A}, state="refused"}}': "4x80"},
        {"SpotdSymbolsRefused"},
    ),
    "failing calls": ({f"spotd_redis_errors_total{{{A}}}": "0+1x80"}, {"SpotdRedisErrors"}),
    "a late loop": (
        {f'spotd_loop_lag_seconds_bucket{{{A}, le="0.01"}}': "0+5x80"},
        {"SpotdLoopLag"},
    ),
    "a relay without Redis": ({f"spotd_relay_ready{{{RELAY}}}": "0x80"}, {"SpotdRelayNotReady"}),
    "clients that do not read": (
        {f"spotd_relay_clients_blocked{{{RELAY}}}": "90x80"},
        {"SpotdRelaySlowClients"},
    ),
    "a flood that is refused": (
        {f'spotd_relay_refused_total{{{RELAY}, code="404"}}': "0+10x80"},
        {"SpotdRelayRefuses"},
    ),
}
CALM: dict[str, dict[str, str | None]] = {
    "health": {},
    "a fail-over of 15 s": {
        f"spotd_leader{{{A}}}": "1x70 0x9",
        f"spotd_leader{{{B}}}": "0x70 0 1x8",
    },
    "no stream at night": {
        f"spotd_stream_connected{{{A}}}": "0x80",
        f'spotd_market{{{A}, state="open"}}': "0x80",
    },
    "no stream where nobody wants a symbol": {
        f"spotd_stream_connected{{{A}}}": "0x80",
        f'spotd_symbols{{{A}, state="live"}}': "0x80",
    },
    "two feeds, each with its leader": {
        'spotd_leader{job="sip", instance="d"}': "1x80",
        'spotd_leader{job="sip", instance="e"}': "0x80",
    },
    "a daemon without quotes": {f"spotd_lag_seconds{{{A}}}": None},
}


def rules() -> list[dict[str, Any]]:
    """Return all rules of the file."""
    return [
        rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    ]


def firing(tmp_path: Path, changes: dict[str, str | None], expected: set[str]) -> str:
    """Return what promtool has against these alerts, and no other, firing after 20 minutes."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool (Debian: prometheus)")
    series = {**HEALTHY, **changes}
    firing_now = 'count by (alertname) (ALERTS{alertstate="firing"})'
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(expected)]
    case = {
        "interval": "15s",
        "input_series": [
            {"series": name, "values": values}
            for name, values in series.items()
            if values is not None
        ],
        "promql_expr_test": [{"expr": firing_now, "eval_time": "20m", "exp_samples": samples}],
    }
    file = tmp_path / "case.yaml"
    file.write_text(
        yaml.safe_dump(
            {"rule_files": [str(RULES)], "evaluation_interval": "15s", "tests": [case]},
            width=10_000,
        )
    )
    run = subprocess.run(
        [promtool, "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    return "" if run.returncode == 0 else run.stdout + run.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_raises_its_alert(fault: str, tmp_path: Path) -> None:
    """Each fault raises the alert that names it, and no other."""
    changes, expected = FAULTS[fault]

    assert firing(tmp_path, changes, expected) == ""


@pytest.mark.parametrize("case", CALM)
def test_no_false_alarm(case: str, tmp_path: Path) -> None:
    """What is no fault raises nothing."""
    assert firing(tmp_path, CALM[case], set()) == ""


def test_each_alert_is_raised_by_a_fault() -> None:
    """No rule is without a fault that raises it."""
    raised = set().union(*(expected for _, expected in FAULTS.values()))

    assert raised == {rule["alert"] for rule in rules()}


def test_rules_name_metrics_that_exist() -> None:
    """Each metric in an expression is one that a daemon or a relay has."""
    known = {
        sample.name
        for text in (daemon_text(), relay_text())
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }

    for rule in rules():
        assert set(re.findall(r"\bspotd_\w+", rule["expr"])) <= known


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_person_knows_what_to_do(rule: dict[str, Any]) -> None:
    """Each alert has a severity, says what is wrong and what to do, and names its runbook."""
    annotations = rule["annotations"]
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(annotations) == {"summary", "action", "runbook"}
    assert all(annotations[name].endswith((".", "?")) for name in ("summary", "action"))
