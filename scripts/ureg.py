"""Starts `ureg` from the checkout that this file is in, whichever Python runs it.

Kept to syntax that old Pythons parse too, so that the wrong one ends in one line and not in a traceback.
"""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
# What the program cannot do without (uvloop it can).
NEEDED = (
    "aiohttp",
    "apsw",
    "asyncpg",
    "click",
    "cryptography",
    "httptools",
    "idna",
    "jinja2",
    "jmespath",
    "msgspec",
    "nats",
    "orjson",
    "prometheus_client",
    "ruamel",
    "websockets",
)


def start():
    """Runs the command line; the exit code. 2 with one line when this Python cannot."""
    if sys.version_info < (3, 11):
        return _unfit("is Python %d.%d; 3.11 or newer is needed" % sys.version_info[:2])
    from importlib.machinery import PathFinder

    lacking = [name for name in NEEDED if PathFinder.find_spec(name) is None]
    if lacking:
        return _unfit("lacks " + ", ".join(lacking))
    sys.path[0] = ROOT  # not scripts/, and not what an older install may have left
    sys.argv[0] = os.path.join(ROOT, "ureg")
    from universal_registry.__main__ import main

    return main()


def _unfit(why):
    sys.stderr.write("ureg: %s %s; unset REGISTRY_PYTHON to let ureg make .venv\n" % (sys.executable, why))
    return 2


sys.exit(start())
