"""Whether the daemon runs, answers, and does its whole work."""

from __future__ import annotations

from universal_registry.care.checks.finding import Check, Facts, Said, fail, ok, skip, warn

_STALE_METRICS = 30.0
_SOON_DAYS = 14


def runs(facts: Facts) -> Said:
    """A daemon runs: without one nothing is delivered."""
    if facts.holder_is_daemon:
        return ok(facts.holder)
    return warn("no daemon runs: nothing is delivered until one does", "ureg up")


def answers(facts: Facts) -> Said:
    """The one that holds the store answers."""
    if not facts.holder_is_daemon or facts.answers:
        return ok("it answers") if facts.answers else skip("none runs")
    if facts.frozen:
        return fail(f"{facts.holder} was told to stand still (SIGSTOP)", f"kill -CONT {facts.frozen}")
    return fail(f"{facts.holder} holds the store and does not answer", "ureg down")


def lock(facts: Facts) -> Said:
    """Nobody but a daemon holds the store for long. Its WAL is never to be removed: it holds what was acknowledged."""
    if not facts.holder or facts.holder_is_daemon:
        return ok("held by nobody else")
    return warn(f"{facts.holder} holds the store", "ureg status")


def address(facts: Facts) -> Said:
    """No address is left of a daemon that has gone."""
    if not facts.stale_address:
        return ok("no old one is left")
    return warn("run/address is left of a daemon that was killed", "ureg up", "address")


def port(facts: Facts) -> Said:
    """Nobody else has its port."""
    if not facts.port_taken:
        return ok("it is ours, or free")
    return fail(f"another program listens on {facts.port_taken}", "REGISTRY_LISTEN=127.0.0.1:0 ureg up")


def ready(facts: Facts) -> Said:
    """It does its whole work."""
    reason = facts.health.get("reason")
    if not reason:
        return ok("all of its work is done") if facts.health else skip("none runs, or it could not be asked")
    return fail(str(reason), "ureg health")


def workers(facts: Facts) -> Said:
    """No worker is stuck, or dies over and over."""
    states = facts.health.get("workers", {})
    wrong = [name for name, each in states.items() if each["state"] != "running" or each["deaths"]]
    if not wrong:
        return ok(f"{len(states)} at work") if facts.health else skip("none runs, or it could not be asked")
    return warn(f"not well: {', '.join(wrong)}", "ureg health")


def metrics(facts: Facts) -> Said:
    """The metrics file is fresh."""
    if not facts.answers:
        return skip("none runs")
    if facts.metrics_age is not None and facts.metrics_age < _STALE_METRICS:
        return ok("fresh")
    return warn("metrics/registry.metrics is not written", "ureg health")


def tls(facts: Facts) -> Said:
    """The certificate does not end soon."""
    if facts.tls_until is None:
        return ok("no certificate is used")
    days = (facts.tls_until - facts.now).days
    if days >= _SOON_DAYS:
        return ok(f"the certificate is good for {days} days")
    return (fail if days < 0 else warn)(
        f"the certificate ends in {days} days", f"kill -HUP $(cat {facts.path('run/ureg.pid')})"
    )


def exposed(facts: Facts) -> Said:
    """What listens for other machines speaks TLS."""
    if not facts.open_to_others:
        return ok("only this machine, or TLS")
    return warn("other machines reach it without TLS", "set REGISTRY_TLS_CERT and REGISTRY_TLS_KEY")


CHECKS = (
    Check("daemon", "runs", runs),
    Check("daemon", "answers", answers),
    Check("daemon", "lock", lock),
    Check("daemon", "address", address),
    Check("daemon", "port", port),
    Check("daemon", "ready", ready),
    Check("daemon", "workers", workers),
    Check("daemon", "metrics", metrics),
    Check("daemon", "tls", tls),
    Check("daemon", "exposed", exposed),
)
