"""`ureg db`: the stores themselves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from universal_registry.cli.command import Command, Example, Group, output_option
from universal_registry.cli.output import Column, Shape, emit, json_text, write
from universal_registry.cli.session import current_settings, note
from universal_registry.kernel.settings import Places

if TYPE_CHECKING:
    from collections.abc import Callable

    from universal_registry.kernel.settings import Settings
    from universal_registry.registry.check import Checked
    from universal_registry.storage.pending import Pending

_SHAPE = Shape(
    "migrations to run: the stores are up to date",
    (Column("STORE", "store"), Column("NUMBER", "number"), Column("NAME", "name")),
    lambda item: f"{item['store']}/{item['number']:04}",
)


@click.group("db", cls=Group, examples=(Example("ureg db check"), Example("ureg db migrate --dry-run")))
def db() -> None:
    """The stores themselves: are they sound, and of this version?"""


@db.command("check", cls=Command, examples=(Example("ureg db check", "with a daemon or without"),))
@click.option("-o", "--output", type=click.Choice(("text", "json")), default="text", help="The form.")
def check(output: str) -> None:
    """Check that the stores are whole and agree with themselves: the files, the hash chain over the whole log, each
    body with what its line commits to, each record with its newest line.

    Reads only. Names the first thing that does not fit, and exits with 1.
    """
    settings = current_settings()
    found = asyncio.run(_check(settings, progress()))
    if output == "json":
        write(json_text({"ok": True, "revision": found.revision, "lines": found.lines, "records": found.records}))
    else:
        write(f"sound: {found.lines} lines up to revision {found.revision}, {found.records} records")


def progress() -> Callable[[str], None]:
    """Tells how far it is, on a terminal: a large log takes a while."""
    import sys

    if not sys.stderr.isatty():
        return lambda _: None
    return lambda text: print(f"\r{text:<40}", end="\r", file=sys.stderr, flush=True)


async def _check(settings: Settings, progress: Callable[[str], None]) -> Checked:
    from universal_registry.app import open_app
    from universal_registry.kernel.errors import Corrupt
    from universal_registry.kernel.world import SystemWorld
    from universal_registry.registry.check import check_registry
    from universal_registry.storage.pending import integrity

    app = await open_app(settings, world=SystemWorld(), read_only=True)
    try:
        places = Places(settings.home)
        for path in (places.registry_db, places.propagation_db):
            if settings.database is None and (wrong := integrity(path)):
                raise Corrupt(f"{path} is damaged: {wrong[0]}", hint="restore it from a backup")
        service = app.service
        return await check_registry(service.records, service.log, service.event_commitment, progress=progress)
    finally:
        await app.close()


@db.command(
    "migrate",
    cls=Command,
    examples=(Example("ureg db migrate --dry-run", "what would be done"), Example("ureg db migrate")),
)
@click.option("--dry-run", is_flag=True, help="List what would be done, and do nothing.")
@output_option("table", "json", "ndjson", "name")
def migrate(dry_run: bool, output: str) -> None:
    """Bring the stores up to this version, and list the steps that were missing. A daemon does so as it starts."""
    settings = current_settings()
    found = _pending(settings)
    emit([step._asdict() for step in found], output, _SHAPE)
    if found and not dry_run:
        asyncio.run(_migrate(settings))
        note(f"{len(found)} done")


def _pending(settings: Settings) -> list[Pending]:
    from universal_registry.kernel.world import SystemWorld
    from universal_registry.storage.pending import pending_migrations, pending_on_server

    if settings.database is not None:
        return asyncio.run(pending_on_server(settings.database, SystemWorld()))
    return pending_migrations(_initialised(settings))


def _initialised(settings: Settings) -> Places:
    from universal_registry.storage.home import is_initialised, none_here

    places = Places(settings.home)
    if not is_initialised(places, settings.key_file):
        raise none_here(places)
    return places


async def _migrate(settings: Settings) -> None:
    from universal_registry.app import open_app
    from universal_registry.kernel.world import SystemWorld

    await (await open_app(settings, world=SystemWorld())).close()
