"""`ureg service`: the daemon as a service of the machine (systemd, launchd) or of one user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from universal_registry.cli.command import Command, Example, Group, result_option
from universal_registry.cli.output import json_text, tell
from universal_registry.cli.session import current_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from universal_registry.cli.service_layout import Layout, Wanted

_SYSTEM = click.option("--system", "scope", flag_value="system", help="The machine's; without a word: if you are root.")
_USER = click.option("--user", "scope", flag_value="user", help="Yours alone.")
_ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="For a trial: everything below it, no account made, no service manager told.",
)
_ON = click.option(
    "--on", metavar="SYSTEM", default=lambda: os.uname().sysname, help="Linux or Darwin, as if it were that."
)


@click.group(
    "service",
    cls=Group,
    examples=(
        Example("ureg service install --user --now", "yours: starts at login, and now"),
        Example("sudo ureg service install --system", "the machine's"),
        Example("ureg service status"),
    ),
)
def service() -> None:
    """The daemon as a service that starts at boot and is watched: by systemd on Linux, by launchd on macOS."""


@service.command(
    "install",
    cls=Command,
    examples=(
        Example("ureg service install --user --now"),
        Example("sudo ureg service install --system --now"),
    ),
)
@_SYSTEM
@_USER
@click.option("--now", is_flag=True, help="Also start it, now and at each boot or login.")
@_ROOT
@_ON
def install(scope: str | None, now: bool, root: Path | None, on: str) -> None:
    """Write the service's files and make the databases; what is there stays. Where no service manager runs, the files
    are for the day when one does.

    `--system` is what install_registry.sh does after it has put the program into /opt.
    """
    from universal_registry.cli import service_install as deeds
    from universal_registry.cli.service_manager import Manager
    from universal_registry.environment import environment

    wanted, command = _wanted(root, on)
    layout = _layout(wanted, _is_system(scope))
    owner = deeds.owner_of(layout, wanted.user, wanted.group)
    deeds.install(layout, owner, command, environment(), tell)
    manager = Manager(layout)
    if manager.is_there:
        manager.reload()
    if now and manager.is_there:
        manager.start()
        tell("the service runs")
    else:
        for line in _next_steps(layout, manager.is_there):
            tell(line)


@service.command("status", cls=Command, examples=(Example("ureg service status"),))
@result_option()
@_ROOT
@_ON
def status(output: str, root: Path | None, on: str) -> int:
    """Look for a service of the machine and for one of yours. Exits with 0 when one runs, with 1 when none of those
    that are installed does, with 3 when none is installed."""
    from universal_registry.cli.service_manager import Manager

    wanted, _ = _wanted(root, on)
    found: dict[str, dict[str, Any]] = {}
    for name, system in (("system", True), ("user", False)):
        layout = _layout(wanted, system)
        if layout.unit.path.exists():
            found[name] = {"file": str(layout.unit.path), **Manager(layout).state()._asdict()}
    if output == "json":
        print(json_text(found))
    for name, each in found.items() if output == "text" else ():
        words = "runs" if each["running"] else "does not run"
        pid = f" (pid {each['pid']})" if each["pid"] else ""
        starts = "starts by itself" if each["enabled"] else "does not start by itself"
        tell(f"{name}: {words}{pid}, {starts}; {each['says']}; {each['file']}")
    if not found:
        from universal_registry.kernel.errors import NotFound

        raise NotFound("no service is installed", hint="ureg service install --user --now")
    return 0 if any(each["running"] for each in found.values()) else 1


@service.command(
    "uninstall",
    cls=Command,
    examples=(Example("ureg service uninstall --user"), Example("sudo ureg service uninstall --system")),
)
@_SYSTEM
@_USER
@click.option("--purge", is_flag=True, help="Also remove the databases, KEYS, logs and settings: nothing is left.")
@_ROOT
@_ON
def uninstall(scope: str | None, purge: bool, root: Path | None, on: str) -> None:
    """Stop the service and remove its files. Records, keys, logs and settings stay, unless `--purge`."""
    from universal_registry.cli import service_install as deeds
    from universal_registry.cli.service_manager import Manager
    from universal_registry.kernel.errors import NotFound

    wanted, _ = _wanted(root, on)
    layout = _layout(wanted, _is_system(scope))
    deeds.owner_of(layout, wanted.user, wanted.group)
    manager, is_there = Manager(layout), layout.unit.path.exists()
    if not is_there and not purge:
        raise NotFound(f"no such service is installed: there is no {layout.unit.path}", hint="ureg service status")
    if is_there and manager.is_there:
        manager.end()
    deeds.uninstall(layout, tell)
    if manager.is_there:
        manager.reload()
    if purge:
        deeds.purge(layout, tell)
    else:
        tell(f"kept: records, keys, logs and settings; the home is {layout.home}")


def _is_system(scope: str | None) -> bool:
    return os.geteuid() == 0 if scope is None else scope == "system"


def _layout(wanted: Wanted, system: bool) -> Layout:
    from universal_registry.cli.service_layout import system_layout, user_layout

    return system_layout(wanted) if system else user_layout(wanted)


def _wanted(root: Path | None, on: str) -> tuple[Wanted, tuple[str, ...]]:
    """What this program would be as a service, and the command that it is."""
    from universal_registry.cli.service_install import serving_command
    from universal_registry.cli.service_layout import Wanted
    from universal_registry.environment import environment

    environ = environment()
    base = root.absolute() if root is not None else Path("/")
    people = base / (environ.get("HOME", "") or os.path.expanduser("~")).lstrip("/")
    config = environ.get("XDG_CONFIG_HOME", "")
    darwin = on == "Darwin"
    program, command = serving_command(Path(__file__).resolve().parents[2])
    user, group = _account(environ) if darwin else ("registry", "registry")
    wanted = Wanted(
        home=current_settings().home,
        program=program,
        darwin=darwin,
        base=base,
        user=user,
        group=group,
        config=base / config.lstrip("/") if config.startswith("/") else people / ".config",
        people=people,
    )
    return wanted, command


def _account(environ: Mapping[str, str]) -> tuple[str, str]:
    """On a Mac: whoever installs it, also by sudo."""
    import grp
    import pwd

    try:
        entry = pwd.getpwnam(environ.get("SUDO_USER", ""))
    except KeyError:
        entry = pwd.getpwuid(os.geteuid())
    return entry.pw_name, grp.getgrgid(entry.pw_gid).gr_name


def _next_steps(layout: Layout, manager_is_there: bool) -> list[str]:
    from universal_registry.cli.service_layout import LABEL, NAME

    if not manager_is_there:
        serving = f"{layout.home}/run_registry.sh" if (layout.home / "run_registry.sh").is_file() else "ureg serve"
        return [f"no service manager runs here; start the daemon with: {serving} &"]
    if layout.darwin:
        path, sudo = layout.unit.path, "sudo " if layout.system else ""
        return [f"start it with: {sudo}launchctl load {path}", f"see it with: launchctl list | grep {LABEL[4:]}"]
    words = "sudo systemctl" if layout.system else "systemctl --user"
    return [f"start it, now and at each boot, with: {words} enable --now {NAME}"]
