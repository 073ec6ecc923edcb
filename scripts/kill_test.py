"""Kill a daemon (-9) under load as often as you like, and judge what is left.

    .venv/bin/python scripts/kill_test.py 1000
    .venv/bin/python scripts/kill_test.py 200 --engine postgresql

The short form of this is a test (`tests/faults/test_kills.py`). Exits 1 when something that was promised did not hold.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Run it, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", nargs="?", type=int, default=1000, help="how many (1000)")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; by default another each time")
    parser.add_argument("--engine", choices=("sqlite", "postgresql"), default="sqlite", help="which store (sqlite)")
    parser.add_argument("--broken", default=None, help="a protection to do without: see tests/faults/child_broken.py")
    parser.add_argument("--folder", type=Path, default=None, help="an empty folder to work in, which is kept")
    given = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "faults")]
    import pgserver
    from killing import trial

    seed = int(time.time()) if given.seed is None else given.seed
    print(f"seed {seed}, {given.engine}", flush=True)
    folder = given.folder or Path(tempfile.mkdtemp(prefix="ureg-kills-"))
    server = pgserver.Server() if given.engine == "postgresql" else None
    try:
        figures = trial(folder, kills=given.kills, seed=seed, broken=given.broken, server=server)
    finally:
        if server is not None:
            server.close()
        if given.folder is None:
            shutil.rmtree(folder)
    for name, value in figures._asdict().items():
        if name != "violations":
            print(f"{name:17} {value}")
    for violation in figures.violations:
        print(f"NOT HELD: {violation}")
    print("something was lost" if figures.violations else "nothing was lost")
    return 1 if figures.violations else 0


if __name__ == "__main__":
    sys.exit(main())
