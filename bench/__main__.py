"""`python -m bench [--only NAME] [--quick] [--json FILE]`: the table on stdout, the same as JSON in a file."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import costs, deliveries, fanout, fleet, herd, replicate, start, watch, web, writes
from bench.figures import Line, as_json, table
from bench.machine import ROOT, busy_seconds, facts, say, scratch

Measure = Callable[[Path, bool], list[Line]]
PARTS: dict[str, Measure] = {
    "writes": lambda folder, quick: writes.measure(folder, rounds=1 if quick else 3, seconds=1.0 if quick else 1.5),
    "web": lambda folder, quick: web.measure(folder, rounds=1 if quick else 3, seconds=1.0 if quick else 2.0),
    "deliveries": lambda folder, quick: deliveries.measure(folder, rounds=1 if quick else 3, quick=quick),
    "fleet": lambda folder, quick: fleet.measure(folder, rounds=1 if quick else 3, quick=quick),
    "herd": lambda folder, quick: herd.measure(folder, rounds=1 if quick else 3, quick=quick),
    "watch": lambda folder, quick: watch.measure(folder, rounds=1 if quick else 3, quick=quick),
    "fanout": lambda folder, quick: fanout.measure(folder, rounds=1 if quick else 3, quick=quick),
    "replicate": lambda folder, quick: replicate.measure(folder, quick=quick),
    "costs": lambda folder, quick: costs.measure(folder, rounds=2 if quick else 3, quick=quick),
    "start": lambda folder, _: start.measure(folder, rounds=3),
}


def main() -> int:
    """0 when all that was asked for could be measured, whatever came of it."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append", help="measure only this; may be given again")
    parser.add_argument("--quick", action="store_true", help="one round, smaller stores: to see that it works")
    parser.add_argument("--json", type=Path, default=ROOT / "bench" / "results.json", metavar="FILE")
    options = parser.parse_args()
    lines: list[Line] = []
    failed: dict[str, str] = {}
    began, ours, all_busy = time.monotonic(), _own_seconds(), busy_seconds()
    with scratch() as folder:
        machine: dict[str, Any] = facts(folder)
    for name in options.only or PARTS:
        try:
            with scratch() as folder:
                lines += PARTS[name](folder, options.quick)
        except Exception as error:  # noqa: BLE001 - one part that cannot be measured must not cost the others
            traceback.print_exc()
            failed[name] = f"{type(error).__name__}: {error}"[:300]
    elapsed = time.monotonic() - began
    machine["seconds"] = round(elapsed, 1)
    machine["load1_at_end"] = round(os.getloadavg()[0], 2)
    machine["cores_used_by_others"] = round(max(0.0, busy_seconds() - all_busy - (_own_seconds() - ours)) / elapsed, 2)
    print(f"{machine['at']}, " + ", ".join(f"{key} {each}" for key, each in machine.items() if key != "at"))
    print(table(lines))
    for name, why in failed.items():
        print(f"NOT MEASURED: {name}: {why}")
    found = {"machine": machine, "quick": options.quick, "failed": failed, "lines": [as_json(line) for line in lines]}
    options.json.write_text(json.dumps(found, indent=1) + "\n")
    say(f"{options.json}")
    return 1 if failed else 0


def _own_seconds() -> float:
    """CPU seconds of this process and of all its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


if __name__ == "__main__":
    sys.exit(main())
