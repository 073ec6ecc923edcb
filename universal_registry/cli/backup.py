"""`ureg backup`, `ureg restore` and `ureg drill`: a registry in one file, and the proof that it comes back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from universal_registry.cli.command import Example, answer_option, command
from universal_registry.cli.key import passphrase, passphrase_option
from universal_registry.cli.output import tell, told_in_words, write_value
from universal_registry.cli.session import current_settings, note

if TYPE_CHECKING:
    from universal_registry.care.backup import Written
    from universal_registry.care.drill import Opened
    from universal_registry.kernel.settings import Settings
    from universal_registry.security.keyring import Keyring

_keys_option = click.option(
    "--keys", "keys_file", metavar="FILE", help="The keys: what `ureg key backup` wrote. Asks for its passphrase."
)


@command(
    "backup",
    Example("ureg backup ~/registry.backup", "with a daemon or without"),
    Example("ureg backup /var/backups/ureg", "into a folder, under a name with the time and the revision"),
    Example("ureg backup - | ssh other 'cat > registry.backup'", "to standard output"),
)
@click.argument("where", metavar="FILE|FOLDER|-")
@answer_option()
def backup(where: str, output: str) -> None:
    """Write the whole registry as it is at this moment into a new file (mode 0600): both stores, sealed.

    Nobody waits for it. It opens with the keys of this registry, and holds none of them: keep a `ureg key backup`, and
    keep it elsewhere. Each backup is whole; none builds on another.
    """
    from universal_registry.care.backup import make_backup
    from universal_registry.care.marks import BACKUP, mark
    from universal_registry.kernel.world import SystemWorld
    from universal_registry.storage.keyfile import key_files

    settings, world = current_settings(), SystemWorld()
    _check_there(settings)
    ring = key_files(settings, world).load()
    if where == "-":
        made, path = _streamed(settings, ring), "standard output"
    else:
        made = asyncio.run(make_backup(settings, ring, world, Path(where).absolute()))
        path = str(made.path)
    header, point = made.header, made.header.point
    mark(settings.home, BACKUP, world, file=path, revision=point.revision)
    if where == "-" or told_in_words(output):
        say = note if where == "-" else tell
        say(f"{made.rows} rows at revision {point.revision} written to {path} ({made.bytes} bytes)")
        named = (
            f"keys {', '.join(header.keys)}, which are" if len(header.keys) > 1 else f"key {header.keys[0]}, which is"
        )
        note(f"it opens with {named} not in it: ureg key backup FILE")
        return
    value = {"file": path, "bytes": made.bytes, "rows": made.rows, "fingerprint": header.fingerprint}
    value |= {"keys": list(header.keys), "at": header.at, "revision": point.revision}
    write_value({**value, "incarnation": point.incarnation}, output)


def _streamed(settings: Settings, ring: Keyring) -> Written:
    import sys

    from universal_registry.care.backup import stream_backup
    from universal_registry.kernel.errors import UsageError
    from universal_registry.kernel.world import SystemWorld

    if sys.stdout.isatty():
        raise UsageError("a backup is not for a terminal", hint="name a file, or send it on: ureg backup - > FILE")
    return asyncio.run(stream_backup(settings, ring, SystemWorld(), sys.stdout.buffer))


@command(
    "restore",
    Example("ureg restore ~/registry.backup", "into the home where its key still is"),
    Example("ureg restore registry.backup --keys keys.backup", "on a new machine"),
    Example("ureg restore registry.backup --replace", "what is there goes aside, and is kept"),
)
@click.argument("file")
@_keys_option
@passphrase_option
@click.option("--replace", is_flag=True, help="Put aside what is there; it is kept, and named.")
@answer_option()
def restore(file: str, keys_file: str | None, passphrase_file: str | None, replace: bool, output: str) -> None:
    """Put the registry of a backup where there is none: into this home, or into the PostgreSQL database
    that the settings name.

    The key is checked first, every row is read back and compared, and until then nothing takes the place of anything.
    What was done after the backup is not in it: so its history goes on under another name, and readers with a place in
    the old one are told to read everything again; targets get what waited for them, and the current state once more.
    """
    from universal_registry.care.restore import restore as put_back
    from universal_registry.kernel.errors import KeyMismatch
    from universal_registry.kernel.world import SystemWorld

    settings = current_settings()
    keys = _keys(keys_file, passphrase_file)
    try:
        done = asyncio.run(put_back(Path(file), settings, SystemWorld(), keys=keys, replace=replace))
    except KeyMismatch as error:
        if keys is None:
            error.hint = "name what `ureg key backup` wrote: --keys FILE"
        raise
    point = done.header.point
    if not told_in_words(output):
        value = {"rows": done.rows, "revision": point.revision, "incarnation": done.incarnation, "aside": done.aside}
        write_value({**value, "at": done.header.at, "without": list(done.without)}, output)
        return
    tell(f"{done.rows} rows restored, each as in the backup of {done.header.at}; revision {point.revision}")
    if done.aside:
        note(f"what was there is kept: {done.aside}")
    if done.without:
        note(f"not here: key {', '.join(done.without)}; what is sealed with it does not open: ureg key verify")
    note("next: ureg db check, then ureg up")


@command(
    "drill",
    Example("ureg drill", "a backup is made, restored elsewhere, and compared"),
    Example(
        "ureg drill /var/backups/ureg/last.backup --keys ~/keys.backup", "with what would be there in an emergency"
    ),
)
@click.argument("file", required=False)
@_keys_option
@passphrase_option
@answer_option()
def drill(file: str | None, keys_file: str | None, passphrase_file: str | None, output: str) -> None:
    """Prove that a backup comes back: restore it into a temporary folder, compare it with this registry record by
    record, check its chain, open everything that is sealed, and replace its key.

    Without FILE a backup is made first. The registry itself is only read. With --keys everything is opened with the
    keys of that backup alone, as on a new machine.
    """
    from universal_registry.care.marks import DRILL, mark
    from universal_registry.kernel.world import SystemWorld
    from universal_registry.storage.keyfile import key_files

    settings, world = current_settings(), SystemWorld()
    _check_there(settings)
    keys = _keys(keys_file, passphrase_file)
    ring = keys if keys is not None else key_files(settings, world).load()
    steps = asyncio.run(_drill(settings, ring, Path(file) if file else None, told=told_in_words(output)))
    mark(settings.home, DRILL, world, keys=keys_file is not None, kids=sorted(ring.keys))
    if told_in_words(output):
        tell("it comes back")
        if keys_file is None:
            note("with --keys FILE it is also shown that the backup of the keys opens it")
    else:
        write_value({"ok": True, "steps": steps}, output)


async def _drill(settings: Settings, ring: Keyring, backup: Path | None, *, told: bool) -> list[dict[str, Any]]:
    import tempfile

    import msgspec

    from universal_registry.care import drill as drills
    from universal_registry.kernel.world import SystemWorld

    async def opener(of: Settings) -> Opened:
        from universal_registry.app import open_app

        return await open_app(of, world=SystemWorld(), read_only=of.home == settings.home)

    steps = []
    with tempfile.TemporaryDirectory(prefix="ureg-drill-") as scratch:
        async for step in drills.drill(settings, SystemWorld(), ring, Path(scratch), opener, backup=backup):
            steps.append(msgspec.structs.asdict(step))
            if told:
                tell(f"  {step.name:<9}{step.shown}")
    return steps


def _keys(file: str | None, passphrase_file: str | None) -> Keyring | None:
    """The keys of a key backup; None when none was named."""
    from universal_registry.cli.reading import read_file
    from universal_registry.kernel.errors import UsageError
    from universal_registry.security.key_backup import unwrap_keys

    if file is None:
        if passphrase_file is not None:
            raise UsageError("--passphrase-file opens a key backup", hint="name it: --keys FILE")
        return None
    text = read_file(file)
    return unwrap_keys(text, passphrase(passphrase_file, twice=False))


def _check_there(settings: Settings) -> None:
    from universal_registry.kernel.settings import Places
    from universal_registry.storage.home import is_initialised, none_here

    places, files = Places(settings.home), settings.database is None
    if not is_initialised(places, settings.key_file, files=files):
        raise none_here(places, files=files)
