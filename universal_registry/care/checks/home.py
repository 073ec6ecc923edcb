"""The folder, its files and the settings."""

from __future__ import annotations

from universal_registry.care.checks.finding import Check, Facts, Said, fail, ok, skip, warn

_LEAST_FREE = 256 << 20
_LARGE_LOG = 256 << 20
PRIVATE = {"config": 0o700, "config/encryption.key": 0o600, "config/admin.token": 0o600, "config/keys": 0o700}


def there(facts: Facts) -> Said:
    """A registry is in this home."""
    if facts.half:
        return skip("there is none that is whole")
    return ok("it is there") if facts.initialised else fail("there is no registry here", "ureg init")


def whole(facts: Facts) -> Said:
    """Both stores are there, or none."""
    if facts.half:
        return fail(facts.half, facts.half_command)
    return ok("both stores are there") if facts.initialised else skip("neither is there")


def writable(facts: Facts) -> Said:
    """Whoever runs this may write the home."""
    if facts.home_writable:
        return ok("it can be written")
    return fail("this user cannot write the home", f"sudo chown -R $(id -u) {facts.path('')}")


def space(facts: Facts) -> Said:
    """There is room to write."""
    free = f"{facts.free_bytes >> 20} MiB free"
    return ok(free) if facts.free_bytes >= _LEAST_FREE else fail(f"only {free}: writes will be refused", "df -h")


def private(facts: Facts) -> Said:
    """Keys and the admin token are for their owner alone."""
    wrong = [name for name in PRIVATE if facts.modes.get(name, 0) & 0o077]
    if not wrong:
        return ok("keys and token are private") if facts.modes.keys() & PRIVATE.keys() else skip("there are none")
    return fail(f"others may read {', '.join(wrong)}", f"chmod go= {facts.path(wrong[0])}", "private")


def token(facts: Facts) -> Said:
    """The administrator's token can be used."""
    if facts.token_is_one is None:
        return skip("there is none that can be read")
    if facts.token_is_one:
        return ok("it is a token")
    path = facts.path("config/admin.token")
    return fail("config/admin.token holds no token: nobody is let in by it", f"rm {path}; ureg down; ureg up")


def databases(facts: Facts) -> Said:
    """The database files are not for every user of the machine."""
    files = [name for name in facts.modes if name.endswith(".db")]
    wrong = [name for name in files if facts.modes[name] & 0o007]
    if not wrong:
        return ok("the stores are not open to all users") if files else skip("no file of a store is here")
    return warn(f"every user may read {', '.join(wrong)}", f"chmod o= {facts.path(wrong[0])}", "databases")


def log_size(facts: Facts) -> Said:
    """The log is rotated."""
    size = facts.sizes.get("logs/registry.log")
    if size is None:
        return skip("there is no log")
    if size < _LARGE_LOG:
        return ok(f"logs/registry.log has {size >> 20} MiB")
    return warn(f"logs/registry.log has {size >> 20} MiB: nothing rotates it", "ureg service install")


def settings(facts: Facts) -> Said:
    """Every setting that is given is one."""
    if facts.settings_trouble:
        return fail(facts.settings_trouble, f"${{EDITOR:-vi}} {facts.path('config.py')}")
    if not facts.settings_warnings:
        return ok("each one that is given is one")
    return warn(facts.settings_warnings[0], "ureg config show --origin")


CHECKS = (
    Check("home", "registry", there),
    Check("home", "whole", whole),
    Check("home", "writable", writable),
    Check("home", "space", space),
    Check("home", "private", private),
    Check("home", "token", token),
    Check("home", "databases", databases),
    Check("home", "log-size", log_size),
    Check("home", "settings", settings),
)
