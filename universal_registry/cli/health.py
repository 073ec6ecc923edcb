"""`ureg health` and `ureg metrics`: how the daemon does, in words and in numbers."""

from __future__ import annotations

import click

from universal_registry.cli.command import Example, answer_option, command
from universal_registry.cli.output import tell, told_in_words, write, write_value
from universal_registry.cli.session import note, session
from universal_registry.kernel.errors import Unreachable


@command("health", Example("ureg health"), Example("ureg health -o json"))
@answer_option()
def health(output: str) -> int:
    """Look now whether the database can be used and all workers are at work. Exits with 1 and says what is wrong when
    not, with 7 when no daemon runs."""
    with session() as asked:
        if asked.daemon is None:
            raise Unreachable("no daemon runs here", hint="ureg up")
        found = asked.request("GET", "/health").json()
    if not told_in_words(output):
        write_value(found, output)
    else:
        tell(f"{found['status']}{': ' + found['reason'] if found.get('reason') else ''}")
        for name, worker in found["workers"].items():
            died = f", died {worker['deaths']} times" if worker["deaths"] else ""
            tell(f"  {name:<12} {worker['state']}{died}")
        for warning in found["warnings"]:
            note(warning)
    return 0 if found["status"] == "ok" else 1


@command(
    "metrics",
    Example("ureg metrics | grep lag"),
    Example("ureg metrics --rules > alerts.yml", "alert rules for Prometheus"),
    Example("ureg metrics --board > board.json", "a board for Grafana"),
)
@click.option("--rules", "file", flag_value="alerts.yml", help="Print the alert rules instead.")
@click.option("--board", "file", flag_value="grafana.json", help="Print the Grafana board instead.")
def metrics(file: str | None) -> None:
    """The figures as Prometheus reads them at `/metrics`, and what goes with them."""
    if file is not None:
        from importlib.resources import files

        text = (files("universal_registry.observe") / "monitoring" / file).read_text(encoding="utf-8")
    else:
        with session() as asked:
            text = asked.request("GET", "/metrics").body.decode()
    write(text.rstrip("\n"))
