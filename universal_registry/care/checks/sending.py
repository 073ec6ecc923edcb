"""What is sent, and what keeps it from arriving."""

from __future__ import annotations

from typing import Any

from universal_registry.care.checks.finding import Check, Facts, Need, Said, ok, warn

_DEEP = 10_000


def _targets(facts: Facts) -> list[dict[str, Any]]:
    return list(facts.status.get("targets", []))


def _name(target: dict[str, Any]) -> str:
    return str(target["target"]).removeprefix("system/")


def _lane(target: dict[str, Any]) -> dict[str, Any]:
    return target.get("lane") or {}


def breakers(facts: Facts) -> Said:
    """No breaker is open. It is the daemon's: nothing that another process sets closes it."""
    opened = [_name(each) for each in _targets(facts) if _lane(each).get("breaker") == "open"]
    if not opened:
        return ok("none is open")
    return warn(f"open: {', '.join(opened)}", f"ureg target breaker {opened[0]} --reset")


def held(facts: Facts) -> Said:
    """Each target can be sent to."""
    some = [each for each in _targets(facts) if each.get("reason")]
    if not some:
        return ok("each can be sent to")
    return warn(f"{_name(some[0])}: {some[0]['reason']}", f"ureg target get {_name(some[0])}")


def dead(facts: Facts) -> Said:
    """Nothing was given up."""
    count = facts.status.get("dead", 0)
    return warn(f"{count} deliveries were given up", "ureg delivery ls") if count else ok("nothing was given up")


def queue(facts: Facts) -> Said:
    """What waits is not very much."""
    depth = facts.status.get("health", {}).get("queue_depth", 0)
    return ok(f"{depth} wait") if depth < _DEEP else warn(f"{depth} deliveries wait", "ureg status")


def conflicts(facts: Facts) -> Said:
    """No conflict waits for somebody."""
    some = [each for each in facts.status.get("warnings", []) if "conflicts to review" in each]
    return warn("there are conflicts to review", "ureg conflict ls") if some else ok("none to review")


def peers(facts: Facts) -> Said:
    """Each peer is reached."""
    some = [each for each in facts.status.get("warnings", []) if each.startswith("peer ")]
    return warn(some[0], "ureg peer status") if some else ok("each is reached, or there is none")


def history(facts: Facts) -> Said:
    """No target keeps the history beyond its time."""
    some = [each for each in facts.status.get("warnings", []) if each.startswith("history: ")]
    if not some:
        return ok("none keeps it beyond its time")
    why, _, command = some[0].removeprefix("history: ").rpartition(": ")
    return warn(why, command)


def wire(facts: Facts) -> Said:
    """What is sent may be sealed."""
    some = [each for each in facts.keys.get("warnings", []) if "sealed on the wire" in each]
    return warn(some[0], "ureg config show --origin") if some else ok("sealed where a target asks for it")


CHECKS = (
    Check("sending", "breakers", breakers, Need.ANSWER),
    Check("sending", "targets", held, Need.ANSWER),
    Check("sending", "dead", dead, Need.ANSWER),
    Check("sending", "queue", queue, Need.ANSWER),
    Check("sending", "conflicts", conflicts, Need.ANSWER),
    Check("sending", "peers", peers, Need.ANSWER),
    Check("sending", "history", history, Need.ANSWER),
    Check("sending", "wire", wire, Need.ANSWER),
)
