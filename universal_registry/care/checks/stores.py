"""The stores, their keys and their backups."""

from __future__ import annotations

import shlex
from datetime import datetime

from universal_registry.care.checks.finding import Check, Facts, Need, Said, fail, ok, skip, warn

_DRILL_DAYS = 90
_LARGE_WAL = 1 << 30
_NOT_MADE = ("no backup is made", "the backup that was begun")
"""How what `care/schedule.py` says begins."""


def sound(facts: Facts) -> Said:
    """The engine finds nothing wrong with the stores."""
    for store, what in facts.broken.items():
        return fail(f"{store}: {what}", "ureg restore FILE --replace")
    if facts.unread:
        return skip(facts.unread)
    if facts.engine != "sqlite":
        return skip("the server is; ureg db check looks at each row")
    return ok("the engine finds nothing wrong (ureg db check looks at each row)")


def schema(facts: Facts) -> Said:
    """The stores are of this version."""
    if facts.newer:
        return fail(facts.newer, "uv tool upgrade universal-registry")
    if facts.pending:
        return warn(f"{facts.pending} migrations were not run yet", "ureg db migrate", "migrate")
    return ok("of this version")


def wal(facts: Facts) -> Said:
    """SQLite's log is folded in."""
    size = max((size for name, size in facts.sizes.items() if name.endswith("-wal")), default=0)
    if size < _LARGE_WAL:
        return ok(f"{size >> 20} MiB")
    return warn(f"{size >> 20} MiB: some reader has kept a state for long; do not remove it", "ureg down && ureg up")


def readable(facts: Facts) -> Said:
    """The registry opens."""
    if facts.silent and facts.settings_trouble and not facts.answers:
        return skip("the settings cannot be read")
    if facts.silent and facts.key_trouble:
        return skip("its key cannot be used")
    if facts.silent and facts.holder_is_daemon and not facts.answers:
        return skip("the daemon does not answer")
    return fail(facts.silent, "ureg status") if facts.silent else ok("it opens")


def key(facts: Facts) -> Said:
    """The key is there, and it is the one. A new one is never made over sealed data: removing it loses everything."""
    if facts.settings_trouble:
        return skip("the settings, which may name another, cannot be read")
    if facts.key_trouble:
        return fail(facts.key_trouble, facts.key_command)
    if facts.key_replaced:
        why = f"the key file holds key {facts.key_replaced}, which does not seal"
        return warn(f"{why}; the one that does is in config/keys, and put there by the next write", "ureg key ls")
    return ok("it is the one")


def key_age(facts: Facts) -> Said:
    """The key is replaced in time."""
    old = [each for each in facts.keys.get("warnings", []) if "has sealed for" in each]
    return warn(old[0], "ureg key rotate") if old else ok("it is not due, or replaces itself")


def rotation(facts: Facts) -> Said:
    """No rotation was left in the middle with nobody to go on with it."""
    if facts.keys.get("rotation") is None or facts.answers:
        return ok("none waits")
    return warn("a rotation waits for a daemon", "ureg key rotate")


def key_backup(facts: Facts) -> Said:
    """The keys were written somewhere else since the last rotation."""
    done = facts.marks.get("key_backup")
    if done is None:
        return warn("the keys were never backed up", "ureg key backup FILE")
    keys = facts.keys.get("keys") or []
    if keys and keys[0]["kid"] not in done.get("kids", []):
        return warn(f"key {keys[0]['kid']} is newer than the last backup of the keys", "ureg key backup FILE")
    return ok(f"on {done['at']}")


def backup(facts: Facts) -> Said:
    """There is a backup, and it is not old."""
    if facts.backup_age is not None:
        hours = facts.backup_age / 3600
        if facts.backup_age > 2 * facts.backup_interval:
            return warn(f"the newest in {facts.backup_folder} is {hours:.0f} hours old", "ureg backup FOLDER")
        return ok(f"the newest is {hours:.0f} hours old")
    if "backup" in facts.marks and not facts.backup_folder:
        return ok(f"by hand, on {facts.marks['backup']['at']}")
    return warn("there is none", "ureg backup FILE")


def made(facts: Facts) -> Said:
    """The daemon makes those that it is to make."""
    if not facts.backup_folder:
        return ok("it is to make none")
    wrong = [each for each in facts.status.get("warnings", []) if each.startswith(_NOT_MADE)]
    if wrong:
        return fail(wrong[0], f"ls -ld {shlex.quote(facts.backup_folder)}")
    return ok("it makes them") if facts.answers else skip("none runs")


def drill(facts: Facts) -> Said:
    """It was tried whether a backup comes back."""
    done = facts.marks.get("drill")
    if done is None:
        return warn("it was never tried whether a backup comes back", "ureg drill")
    days = (facts.now - datetime.fromisoformat(done["at"])).days
    return ok(f"{days} days ago") if days <= _DRILL_DAYS else warn(f"the last one was {days} days ago", "ureg drill")


CHECKS = (
    Check("stores", "sound", sound, Need.REGISTRY),
    Check("stores", "schema", schema, Need.REGISTRY),
    Check("stores", "wal", wal, Need.REGISTRY),
    Check("stores", "readable", readable, Need.REGISTRY),
    Check("keys", "key", key, Need.REGISTRY),
    Check("keys", "age", key_age, Need.ANSWER),
    Check("keys", "rotation", rotation, Need.ANSWER),
    Check("keys", "backup", key_backup, Need.REGISTRY),
    Check("backups", "newest", backup, Need.REGISTRY),
    Check("backups", "made", made, Need.ANSWER),
    Check("backups", "drill", drill, Need.REGISTRY),
)
