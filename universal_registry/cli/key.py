"""`ureg key`: the keys that secrets and payloads are sealed with."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from universal_registry.cli.command import Command, Example, Group, output_option, result_option
from universal_registry.cli.output import TABLES, Column, Shape, emit, json_text, tell, write
from universal_registry.cli.session import Session, current_settings, note, session, warn

if TYPE_CHECKING:
    from universal_registry.registry.key_check import Seals
    from universal_registry.security.keyring import Keyring
    from universal_registry.storage.keyfile import KeyFiles

_LOOK_SECONDS = 0.5


def _file(item: dict[str, Any]) -> str:
    if item["here"]:
        return "here"
    return "removed" if item["state"] == "retired" else "missing"


_SHAPE = Shape(
    "keys",
    (
        Column("KEY", "kid", whole=True),
        Column("STATE", "state"),
        Column("SINCE", "created_at"),
        Column("USES", lambda item: "" if item["uses"] is None else item["uses"]),
        Column("FILE", _file),
    ),
    lambda item: str(item["kid"]),
)


@click.group(
    "key",
    cls=Group,
    examples=(
        Example("ureg key ls", "which keys there are, and what each still opens"),
        Example("ureg key backup ~/keys.backup", "all of them, under a passphrase"),
        Example("ureg key rotate"),
    ),
)
def key() -> None:
    """The keys that secrets and payloads are sealed with at rest."""


# --- looking --------------------------------------------------------------------------------------------------------


@key.command("ls", cls=Command, examples=(Example("ureg key ls"), Example("ureg key ls -o json")))
@output_option()
def ls(output: str) -> None:
    """The keys of this registry, the one that seals first, and how many rows hold something that only it opens."""
    with session() as asked:
        found = asked.read("/v1/-/keys", count=True)
    emit(found["keys"], output, _SHAPE)
    if output in TABLES:
        _tell_rotation(found)
    warn(found["warnings"])


def _tell_rotation(found: dict[str, Any]) -> None:
    if (rotation := found["rotation"]) is not None:
        note(f"a rotation to key {rotation['kid']} is under way: {_progress(rotation)}")
    elif not found["read_only"]:
        note(f"the next rotation is due at {found['due_at']}")


def _progress(rotation: dict[str, Any]) -> str:
    return f"{rotation['place']}, {rotation['resealed']} rows so far"


@key.command("verify", cls=Command, examples=(Example("ureg key verify", "with a daemon or without"),))
@click.option("-o", "--output", type=click.Choice(("text", "json")), default="text", help="The form.")
def verify(output: str) -> None:
    """Open every sealed value of the store, each in its own place: secrets of records, the log, events, kept answers.

    Reads only, without the daemon. Names what does not open, and exits with 1.
    """
    from universal_registry.kernel.errors import Corrupt

    found = asyncio.run(_verified())
    opened = sum(found.opened.values())
    if output == "json":
        write(json_text({"ok": not found.wrong, "opened": dict(found.opened), "wrong": list(found.named)}))
    for text in found.named if output == "text" else ():
        note(text)
    if found.wrong:
        raise Corrupt(f"{found.wrong} sealed values do not open; {opened} do", hint="restore them from a backup")
    if output == "text":
        by_key = ", ".join(f"{count} with key {kid}" for kid, count in sorted(found.opened.items()))
        write(f"sound: {opened} sealed values open: {by_key}")


async def _verified() -> Seals:
    from universal_registry.app import open_app
    from universal_registry.kernel.world import SystemWorld
    from universal_registry.registry.key_check import check_seals

    app = await open_app(current_settings(), world=SystemWorld(), read_only=True)
    try:
        return await check_seals(app.service, app.sealer, app.stores.keys)
    finally:
        await app.close()


@key.command(
    "open",
    cls=Command,
    examples=(
        Example("ureg key open logs/registry.log", "where ENCRYPTION_CONFIG has encrypt_logs"),
        Example("journalctl -u universal-registry -o cat | ureg key open -"),
    ),
)
@click.argument("file")
def open_(file: str) -> None:
    """Print log lines with their sealed fields open. Lines that are not sealed stay as they are."""
    import sys

    from universal_registry.cli.reading import read_file, read_input

    lines = (read_input() if file == "-" else read_file(file)).splitlines(keepends=True)
    for line in asyncio.run(_opened(lines)):
        sys.stdout.write(line)


async def _opened(lines: list[bytes]) -> list[str]:
    from universal_registry.app import open_app
    from universal_registry.kernel.world import SystemWorld
    from universal_registry.observe.sealed_lines import opened_line

    app = await open_app(current_settings(), world=SystemWorld(), read_only=True)
    try:
        return [opened_line(line, app.sealer) for line in lines]
    finally:
        await app.close()


@key.command("digest", cls=Command, examples=(Example("ureg key digest system/mine"),))
@click.argument("name")
def digest(name: str) -> None:
    """Print what stands for a target's name in /metrics where ENCRYPTION_CONFIG has encrypt_metrics."""
    write(asyncio.run(_digest(name)))


async def _digest(name: str) -> str:
    from universal_registry.app import open_app
    from universal_registry.kernel.world import SystemWorld

    app = await open_app(current_settings(), world=SystemWorld(), read_only=True)
    try:
        return app.keys.digest(name)
    finally:
        await app.close()


# --- changing -------------------------------------------------------------------------------------------------------


@key.command(
    "rotate", cls=Command, examples=(Example("ureg key rotate"), Example("ureg key rotate --no-wait", "only begin it"))
)
@click.option("--no-wait", is_flag=True, help="Only begin it: the daemon goes on with it.")
@result_option()
def rotate(no_wait: bool, output: str) -> None:
    """Replace the key that seals by a new one, and seal everything anew with it.

    Everything stays readable meanwhile; a rotation that was interrupted goes on where it was. The daemon does it if one
    runs. The old key stays in config/keys/ until `ureg key retire`.
    """
    with session(drive=False) as asked:
        answer = asked.write("/v1/-/keys/rotate", None)
        if not no_wait:
            answer = _waited(asked, answer)
    if output == "json":
        write(json_text(answer, indent=2))
        return
    sealing = answer["keys"][0]["kid"]
    if answer["rotation"] is not None:
        tell(f"rotation to key {answer['rotation']['kid']} begun; `ureg key ls` says how far it is")
        return
    tell(f"key {sealing} seals, and everything is sealed with it")
    for each in answer["keys"][1:]:
        if each["here"] and each["uses"] == 0:
            note(f"key {each['kid']} opens nothing any more: ureg key retire {each['kid']}")


def _waited(asked: Session, answer: dict[str, Any]) -> dict[str, Any]:
    """Until no rotation is under way. Without a daemon, each turn does what can be done by then."""
    import time

    shown = ""
    while answer["rotation"] is not None:
        driven = asked.daemon is None
        answer = asked.write("/v1/-/keys/rotate", None, resume=True) if driven else asked.read("/v1/-/keys")
        if (rotation := answer["rotation"]) is None:
            break
        if shown != (shown := _progress(rotation)):
            note(shown)
        time.sleep(_LOOK_SECONDS)
    return answer if answer["keys"][0]["uses"] is not None else dict(asked.read("/v1/-/keys", count=True))


@key.command("retire", cls=Command, examples=(Example("ureg key retire 3f2a9c01"),))
@click.argument("kid", metavar="KEY")
@result_option()
def retire(kid: str, output: str) -> None:
    """Give up an old key, and remove its file. Refused while anything in the store is sealed with it.

    Backups of the database from before the rotation need it: keep a `ureg key backup` with them.
    """
    with session(drive=False) as asked:
        answer = asked.write("/v1/-/keys/retire", {"kid": kid})
    if output == "json":
        write(json_text(answer))
    else:
        tell(f"key {answer['kid']} is retired; nothing was sealed with it any more")
        note("older backups of the database may still need it")


# --- backup and restore ---------------------------------------------------------------------------------------------

passphrase_option = click.option(
    "--passphrase-file", metavar="FILE|-", help="Read the passphrase from this file's first line; - is standard input."
)


@key.command(
    "backup",
    cls=Command,
    examples=(
        Example("ureg key backup ~/keys.backup", "asks for a passphrase"),
        Example("ureg key backup /media/usb/keys.backup --passphrase-file pass.txt"),
    ),
)
@click.argument("file")
@passphrase_option
def backup(file: str, passphrase_file: str | None) -> None:
    """Write all keys of this home into a new file (mode 0600), under a passphrase.

    Keep it apart from the backups of the database: together with the passphrase it opens them.
    """
    from pathlib import Path

    from universal_registry.care.marks import KEY_BACKUP, mark
    from universal_registry.kernel.errors import Conflict
    from universal_registry.kernel.world import SystemWorld
    from universal_registry.security.key_backup import wrap_keys
    from universal_registry.storage.keyfile import write_private

    files, world = _files(), SystemWorld()
    ring = _named(files.load(), _sealed_with())
    path = Path(file)
    if path.exists():  # before anybody types a passphrase; `write_private` is what makes it sure
        raise Conflict(f"{path} is there already", hint="name a file that is not: nothing is overwritten")
    write_private(path, wrap_keys(ring, passphrase(passphrase_file, twice=True), world), world)
    mark(current_settings().home, KEY_BACKUP, world, kids=sorted(ring.keys), file=str(path.absolute()))
    tell(f"{_counted(ring)} written to {path}; fingerprint {ring.fingerprint}")


@key.command(
    "restore",
    cls=Command,
    examples=(
        Example("ureg key restore ~/keys.backup"),
        Example('echo "$PASSPHRASE" | ureg key restore keys.backup --passphrase-file -'),
    ),
)
@click.argument("file")
@passphrase_option
def restore(file: str, passphrase_file: str | None) -> None:
    """Put the keys of a backup back where they belong. Nothing is written unless the store was sealed with one of them.

    What stands there already is kept, in config/keys/. Without a store, the keys are for one that comes.
    """
    from universal_registry.cli.reading import read_file
    from universal_registry.security.key_backup import unwrap_keys

    text = read_file(file)
    expected = _sealed_with()
    ring = _named(unwrap_keys(text, passphrase(passphrase_file, twice=False)), expected)
    files = _files()
    for kid in sorted(ring.keys.keys() - {ring.primary}):
        files.keep(ring.key(kid))
    files.make_primary(ring.key(ring.primary), restoring=True)
    tell(f"{_counted(ring)} restored; key {ring.primary} seals")
    if expected is None:
        note("there is no store here yet: put its backup back, or `ureg init` makes a new one with this key")


def _counted(ring: Keyring) -> str:
    return f"{len(ring.keys)} {'key' if len(ring.keys) == 1 else 'keys'}"


def _named(ring: Keyring, expected: str | None) -> Keyring:
    """The keys, with that as the primary which the store was sealed with. Raises KeyMismatch."""
    from universal_registry.kernel.errors import KeyMismatch

    if expected is None:
        return ring
    kid = ring.named(expected)
    if kid is None:
        raise KeyMismatch(
            f"the store was sealed with key {expected}; among these there is only {', '.join(sorted(ring.keys))}",
            hint="nothing was written; use the backup that belongs to this store",
        )
    return ring.sealing_with(kid)


def _files() -> KeyFiles:
    from universal_registry.kernel.world import SystemWorld
    from universal_registry.storage.keyfile import key_files

    return key_files(current_settings(), SystemWorld())


def _sealed_with() -> str | None:
    from universal_registry.kernel.settings import Places
    from universal_registry.kernel.world import SystemWorld
    from universal_registry.storage.sealed_with import sealed_with, sealed_with_on_server

    settings = current_settings()
    if settings.database is not None:
        return asyncio.run(sealed_with_on_server(settings.database, SystemWorld()))
    return sealed_with(Places(settings.home).registry_db)


def passphrase(file: str | None, *, twice: bool) -> str:
    """From a file or standard input (the first line), else asked for."""
    import sys

    from universal_registry.cli.reading import read_file, read_input, text_of
    from universal_registry.kernel.errors import UsageError

    if file is None and sys.stdin is not None and sys.stdin.isatty():
        return _asked(twice=twice)
    data = read_input() if file in (None, "-") else read_file(str(file))
    found = text_of(data, "the passphrase").split("\n", 1)[0].rstrip("\r")
    if not found:
        raise UsageError("there is no passphrase", hint="its first line is taken: --passphrase-file FILE, or -")
    return found


def _asked(*, twice: bool) -> str:
    from getpass import getpass

    from universal_registry.kernel.errors import UsageError

    found = getpass("passphrase: ")
    if twice and getpass("once more: ") != found:
        raise UsageError("the two are not the same", hint="nothing was written; try again")
    return found
