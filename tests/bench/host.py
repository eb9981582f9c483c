"""What a guest costs the host daemon, measured beside a floor in the same run: ``make bench``.

The real daemon runs with a configuration file on a core of its own; the guests are simulated in another process on another
core. Wherever there is a floor, the daemon and the floor take turns with the same guests.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import pstats
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from .processes import Gone
from .scenarios import SCENARIOS
from .stage import GUESTS_CORE, HOST_CORE, Options
from .table import draw

#: How many functions of a profile are shown.
_SHOWN = 40


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Measure, and print a table."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    if parsed.profile and len(parsed.only) != 1:
        parser.error("--profile needs --only with one scenario")
    options = _options(parsed)
    os.sched_setaffinity(0, {GUESTS_CORE})
    # Whoever ends the bench ends all that it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        (_print_json if parsed.json else _print_tables)(options, parsed.only)
    except Gone as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    if options.profile:
        pstats.Stats(str(options.profile)).sort_stats("tottime").print_stats(_SHOWN)
    return 0


def _print_tables(options: Options, names: Sequence[str]) -> None:
    """A table for each scenario, as soon as it is measured."""
    print("\n".join(f"{name}: {value}" for name, value in _surroundings(options).items()), flush=True)
    for name in names:
        rows = SCENARIOS[name](options)
        print(f"\n{draw(rows)}", flush=True)


def _print_json(options: Options, names: Sequence[str]) -> None:
    rows = [row.as_mapping() for name in names for row in SCENARIOS[name](options)]
    print(json.dumps({"surroundings": _surroundings(options), "rows": rows}, indent=2))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").partition("\n")[0])
    add, default = parser.add_argument, Options()
    add("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), help="what to measure (default: all)")
    add("--guests", nargs="+", type=int, default=list(default.guests), help="numbers of guests (default: 1000 5000 10000)")
    add("--seconds", type=float, default=default.seconds, help="how long each figure is watched (default: %(default)g)")
    add("--rounds", type=int, default=default.rounds, help="how often daemon and floor take turns (default: %(default)s)")
    add("--quick", action="store_true", help="one round of three seconds")
    add("--json", action="store_true", help="print JSON")
    add("--state", action="store_true", help="let the daemon keep its state in a file, as the packages do")
    add("--uvloop", action=argparse.BooleanOptionalAction, help="with or without uvloop (default: the daemon's)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the daemon; repeatable")
    add("--profile", type=Path, metavar="FILE", help="run the daemon under cProfile, without the floor; FILE is the profile")
    return parser


def _options(parsed: argparse.Namespace) -> Options:
    loop = None if parsed.uvloop is None else {"VMACCORD_LOOP": "uvloop" if parsed.uvloop else "asyncio"}
    state = ["state={place}/state.sqlite"] if parsed.state else []
    brief = parsed.quick or parsed.profile is not None
    return Options(
        guests=tuple(sorted(parsed.guests)),
        seconds=3.0 if parsed.quick else parsed.seconds,
        rounds=1 if brief else parsed.rounds,
        settings=(*state, *parsed.set),
        environment=loop,
        profile=parsed.profile,
    )


def _surroundings(options: Options) -> dict[str, str]:
    shared = GUESTS_CORE == HOST_CORE
    return {
        "Python": platform.python_version(),
        "CPU": _cpu(),
        "cores": "ONE FOR ALL, figures are too high" if shared else "one for the host, one for the guests",
        "event loop": (options.environment or {}).get("VMACCORD_LOOP", "the daemon's default"),
        "settings": ", ".join(options.settings) or "defaults",
        "measured": f"medians of {options.rounds} of {options.seconds:g} s",
    }


def _cpu() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
