"""`ureg db`: the stores themselves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from universal_registry.cli.command import Command, Example, Group, output_option
from universal_registry.cli.compact import compact, complete_since
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


db.add_command(compact)


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
        counts = {"since": found.since, "lines": found.lines, "records": found.records}
        write(json_text({"ok": True, "revision": found.revision, **counts}))
    else:
        since = complete_since(found)
        write(f"sound: {found.lines} lines up to revision {found.revision}{since}; {found.records} records")


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
        bring_up(settings)
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


def bring_up(settings: Settings) -> None:
    """Run the migrations that are missing. Raises what opening the stores raises."""
    asyncio.run(_migrate(settings))


async def _migrate(settings: Settings) -> None:
    from universal_registry.app import open_app
    from universal_registry.kernel.world import SystemWorld

    await (await open_app(settings, world=SystemWorld())).close()


@db.command(
    "to-postgres",
    cls=Command,
    examples=(Example("REGISTRY_DB_HOST=db.internal ureg db to-postgres", "with REGISTRY_DB_NAME, _USER, _PASSWORD"),),
)
@click.option("-o", "--output", type=click.Choice(("text", "json")), default="text", help="The form.")
def to_postgres(output: str) -> None:
    """Move the SQLite files of this home into the empty PostgreSQL database that the settings name, and compare both.

    All in one transaction: what stops it leaves both sides as they were. Readers, targets and peers go on from their
    places. The files are kept under other names. No daemon may run meanwhile.
    """
    from universal_registry.care.moving import move_to_postgres
    from universal_registry.kernel.errors import StorageUnavailable, UsageError
    from universal_registry.kernel.world import SystemWorld
    from universal_registry.storage.home import is_initialised, none_here
    from universal_registry.storage.postgres_errors import TRIED_AGAIN
    from universal_registry.storage.replacing import half_moved

    settings = current_settings()
    if settings.database is None:
        raise UsageError(
            "the settings name no PostgreSQL database", hint="set REGISTRY_DB_HOST, see docs/how-to/postgresql.md"
        )
    places = Places(settings.home)
    if not is_initialised(places, settings.key_file) and not half_moved(places):
        raise none_here(places)
    try:
        done = asyncio.run(move_to_postgres(settings, settings.database, SystemWorld()))
    except StorageUnavailable as error:
        if error.hint == TRIED_AGAIN:  # a daemon does that; this command is over
            error.hint = "the files here are as they were; start the server, and say this again"
        raise
    if output == "json":
        value = {"rows": done.rows, "revision": done.point.revision, "incarnation": done.point.incarnation}
        write(json_text({**value, "aside": done.aside, "again": done.again}))
        return
    write(f"{done.rows} rows moved, each as it was; revision {done.point.revision}")
    note(f"the SQLite files are kept: {done.aside}; keep REGISTRY_DB_HOST set for the daemon too, then: ureg up")
