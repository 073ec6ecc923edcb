"""`ureg target remove`: a target that is no more."""

from __future__ import annotations

from typing import Any

import click

from universal_registry.cli.command import Command, Example, result_option
from universal_registry.cli.output import json_text, tell, write
from universal_registry.cli.session import note, session
from universal_registry.cli.targets import short_target, target_path
from universal_registry.kernel.ids import SYSTEM_NAMESPACE


@click.command(
    "remove",
    cls=Command,
    examples=(
        Example("ureg target remove mine --dry-run", "what would go with it"),
        Example("ureg target remove mine --routes", "and the routes that send nowhere else"),
    ),
)
@click.argument("name")
@click.option("--routes", "with_routes", is_flag=True, help="Also the routes that send to it alone.")
@click.option("-m", "--message", default="", metavar="TEXT", help="Why, for the log.")
@click.option("--dry-run", is_flag=True, help="Say what would go, and store nothing.")
@result_option()
def remove(name: str, with_routes: bool, message: str, dry_run: bool, output: str) -> None:
    """Remove a target. What has not arrived there is dropped; what has stays there. Routes that name it wait for one of
    that name, or go too. `ureg undelete endpoint NAME -n system` brings the target back, without what was dropped.
    """
    with session() as asked:
        found = asked.read(target_path(name))
        routes = [each for each in asked.read("/v1/-/routes")["items"] if each["route"] in found["routes"]]
        alone = [each["route"] for each in routes if not each["follow"] and each["targets"] == [found["target"]]]
        gone = alone if with_routes else []
        keys = [("endpoint", found["name"]), *(("policy", each) for each in gone)]
        operations = [
            {"op": "delete", "kind": kind, "namespace": SYSTEM_NAMESPACE, "name": each} for kind, each in keys
        ]
        revision = None
        if not dry_run:
            answer = asked.write("/v1/batch", {"operations": operations, "message": message})
            revision = answer["revision"]
    lane = found["lane"] or {}
    told = {
        "target": found["target"],
        "revision": revision,
        "dropped": lane.get("queued", 0) + lane.get("dead", 0),
        "routes_removed": gone,
        "routes_waiting": [each["route"] for each in routes if each["route"] not in gone and not each["follow"]],
    }
    if output == "json":
        write(json_text(told, indent=2))
    else:
        _tell(told, alone)


def _tell(told: dict[str, Any], alone: list[str]) -> None:
    name, count = short_target(told["target"]), told["dropped"]
    would, at = ("", f", revision {told['revision']}") if told["revision"] is not None else ("would be ", "")
    tell(f"target {name} {would}removed{at}")
    if count:
        tell(f"{count} {'delivery' if count == 1 else 'deliveries'} to it {would or ''}dropped")
    for route in told["routes_removed"]:
        tell(f"route {route} {would}removed")
    for route in told["routes_waiting"]:
        more = "; --routes removes it too" if route in alone else ""
        note(f"route {route} names it, and waits for a target of that name{more}")
