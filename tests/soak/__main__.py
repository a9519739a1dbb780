"""A soak: ``python -m tests.soak --minutes 20``. Exit code 1 where spotd broke a rule.

Random faults at random times under load, with two daemons, a relay and a ``SpotClient``, and a
checker outside of them. The same seed gives the same faults in the same order; what they meet
depends on the machine. ``--rules`` prints every rule with its grace.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

# Ports of a range that no test takes: the suite runs with fewer workers.
os.environ.setdefault("PYTEST_XDIST_WORKER", "gw5")

from tests.soak.plan import KINDS, TOPOLOGIES, kinds_of
from tests.soak.rule_table import Times
from tests.soak.rules import Rules
from tests.soak.soak import Result, soak


def arguments() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--topology", choices=TOPOLOGIES, default="server")
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3)))
    parser.add_argument("--quotes-per-s", type=float, default=250.0)
    parser.add_argument("--ttl", type=float, default=5.0, help="SPOTD_LEADER_TTL_S")
    parser.add_argument("--only", default="", help="kinds of faults, separated by commas")
    parser.add_argument("--home", type=Path, help="a new folder; else kept only on a violation")
    parser.add_argument("--rules", action="store_true", help="print rules and faults, and end")
    args = parser.parse_args()
    if args.home is not None and args.home.is_dir() and any(args.home.iterdir()):
        parser.error(f"{args.home} is not empty: a Sentinel would go on where the last run ended")
    return args


def print_rules(ttl_s: float) -> None:
    """Print every rule with its grace and the reason, and every kind of fault."""
    for rule in Rules(Times(ttl_s)).all():
        print(f"{rule.grace_s:5.2f} s  {rule.name}\n         {rule.why}")
    for name, kind in KINDS.items():
        lasts = f"{kind.shortest_s:g} to {kind.longest_s:g} s" if kind.longest_s else "at once"
        hides = "".join(f", {truth} hidden for {s:g} s" for truth, s in kind.hides.items())
        print(f"{name:20} {lasts}{hides}")


def print_result(result: Result, home: Path) -> None:
    """Print the summary."""
    print(
        f"\n{result.topology}, seed {result.seed}: {result.seconds:.0f} s, {result.rounds} rounds"
    )
    print(
        "faults: " + ", ".join(f"{k} {result.faults.get(k, 0)}" for k in kinds_of(result.topology))
    )
    for name, figure in result.figures.items():
        print(f"  {name}: {figure:,}")
    print("recovery from a single fault, seconds from its end:")
    for kind, took_s in sorted(result.recoveries.items()):
        print(f"  {kind}: " + ", ".join(f"{each:.1f}" for each in took_s))
    print("longest that a rule was broken, and its grace, in seconds:")
    for rule, longest_s, grace_s in result.longest:
        print(f"  {longest_s:5.2f} of {grace_s:5.2f}  {rule}")
    print("processes:")
    for name, size in result.sizes.items():
        print(f"  {name}: {size}")
    print(f"{len(result.violations)} violations")
    for violation in result.violations:
        print(f"  {violation}")
    if result.violations:
        path = home / "violations.txt"
        path.write_text("\n\n".join(f"{v}\n{v.context}" for v in result.violations))
        print(f"what led to each: {path}; all that happened: {home / 'timeline.txt'}")


def main() -> int:
    """Run, print, and return the exit code."""
    args = arguments()
    if args.rules:
        print_rules(args.ttl)
        return 0
    home = args.home or Path(tempfile.mkdtemp(prefix="spotd-soak-"))
    home.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=home / "client.log", level=logging.INFO)  # the SpotClient's
    print(f"{args.minutes:g} minutes on {args.topology}, seed {args.seed}", flush=True)
    only = tuple(filter(None, args.only.split(",")))
    result = asyncio.run(
        soak(
            home,
            seconds=60 * args.minutes,
            seed=args.seed,
            topology=args.topology,
            quotes_per_s=args.quotes_per_s,
            ttl_s=args.ttl,
            only=only,
        )
    )
    print_result(result, home)
    if not result.violations and args.home is None:
        shutil.rmtree(home, ignore_errors=True)
    return 1 if result.violations else 0


if __name__ == "__main__":
    sys.exit(main())
