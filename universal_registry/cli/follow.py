"""`ureg follow`: the changes of a registry elsewhere, going on where it was."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from universal_registry.cli import watching
from universal_registry.cli.command import Example, command
from universal_registry.cli.contexts import Context, one, read, registry_url
from universal_registry.cli.reading import read_file
from universal_registry.client.watch import WatchClient
from universal_registry.kernel.errors import Conflict, Invalid, NotFound, UsageError
from universal_registry.kernel.world import SystemWorld
from universal_registry.storage.durable import replaced_file, unwritable


@command(
    "follow",
    Example("ureg follow http://127.0.0.1:8080 --token-file ops.token", "what is there, then each change"),
    Example("ureg follow work kind=alias --state aliases.place -o ndjson", "a context; goes on where it was"),
    Example("ureg follow work --apply", "make this machine what the registry says, by a plan of its own"),
    Example("ureg follow work --apply --dry-run", "what that would change"),
)
@click.argument("place", metavar="URL|CONTEXT")
@click.argument("selectors", nargs=-1, metavar="[SELECTOR]...")
@click.option(
    "--state",
    metavar="FILE",
    help="Keep the place in this file, and go on from there the next time; with --apply, a folder.",
)
@click.option("--from", "start", metavar="PLACE", help="Where to begin: list (if absent), now, beginning, or a cursor.")
@click.option("--token-file", metavar="FILE", help="Holds the token that is sent to the URL.")
@click.option("--ca", metavar="FILE", help="The authority (PEM) of the URL's certificate; if absent, the system's.")
@click.option("-o", "--output", type=click.Choice(watching.FORMS), default="table", help="The form.")
@click.option("--apply", "applied", is_flag=True, help="Put what comes in its places on this machine, and report it.")
@click.option(
    "--plan", metavar="FILE", help="What may go where, and be run; if absent, agent.yaml beside the contexts."
)
@click.option("--dry-run", is_flag=True, help="With --apply: show what would be changed, and change nothing.")
@click.option("--once", is_flag=True, help="With --apply: end when all that is there has been dealt with.")
@click.option("--adopt", multiple=True, metavar="PATH", help="What stands there becomes the content of its record.")
@click.option(
    "--revert", multiple=True, metavar="PATH", help="Replace what stands there, though it is not the agent's."
)
def follow(
    place: str,
    selectors: tuple[str, ...],
    state: str | None,
    start: str | None,
    token_file: str | None,
    ca: str | None,
    output: str,
    applied: bool,
    plan: str | None,
    dry_run: bool,
    once: bool,
    adopt: tuple[str, ...],
    revert: tuple[str, ...],
) -> None:
    """Follow what changes in a registry elsewhere, until Ctrl-C. One that does not answer is waited for, and tells then
    what was missed meanwhile.

    With --state nothing is left out from one run to the next; what was written just before a kill may come again. With
    --apply, what comes is put in its places by the plan of this machine: checked, replaced as a whole, reloaded, rolled
    back when that fails; what was changed here is held until --adopt or --revert; and `ureg where` says what runs.
    """
    where = _context(place, token_file, ca)
    if applied:
        if selectors or start:
            raise UsageError(
                "with --apply the plan says what is followed, and from where", hint="no SELECTOR, no --from"
            )
        from universal_registry.cli.applying import Asked, apply

        apply(where, Asked(plan or "", state or "", adopt, revert, dry_run, once, output))
        return
    if plan or dry_run or once or adopt or revert:
        raise UsageError("--plan, --dry-run, --once, --adopt and --revert are for --apply", hint="add --apply")
    kept = _Place(Path(state), where.address, selectors) if state else None
    begin = start or (kept.cursor if kept else "") or "list"
    client = WatchClient(lambda: (where.address,), token=where.token(), ca_file=where.ca_file)
    query = {"select": list(selectors), "from": begin}
    watching.run(client, query, output, keep=kept.keep if kept else None)


def _context(place: str, token_file: str | None, ca: str | None) -> Context:
    """Whom to follow. Raises UsageError, NotFound."""
    if "://" in place:
        return Context(place, url=registry_url(place), token_file=token_file, ca_file=ca)
    found = one(read()[1], place)
    if found.url is None:
        raise UsageError(f"context {place} is a folder of this machine", hint="ureg get KIND -w --context NAME")
    if token_file or ca:
        raise UsageError("--token-file and --ca are for a URL", hint=f"context {place} has its own")
    return found


class _Place:
    """The file that says how far was read, and of what. Raises Conflict when it is about something else."""

    def __init__(self, path: Path, address: str, selectors: Sequence[str]) -> None:
        self._path, self._world = path, SystemWorld()
        self._of = {"registry": address, "select": list(selectors)}
        self.cursor = ""
        if path.exists():
            self._read()
        elif not path.absolute().parent.is_dir():
            raise NotFound(f"there is no folder {path.absolute().parent} to keep {path.name} in")

    def _read(self) -> None:
        try:
            said: Any = json.loads(read_file(str(self._path)))
            cursor = said.pop("cursor")
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Invalid(f"{self._path} is no place that was kept", hint="name another file, or remove it") from None
        if said != self._of or not isinstance(cursor, str):
            raise Conflict(f"{self._path} is of another registry, or of other selectors", hint="keep one file for each")
        self.cursor = cursor

    def keep(self, cursor: str) -> None:
        """All up to the cursor has been written out: the next run goes on behind it. Raises StorageUnavailable."""
        try:
            with replaced_file(self._path, self._world.new_id(), mode=0o600) as file:
                file.write(json.dumps({**self._of, "cursor": cursor}).encode() + b"\n")
        except OSError as error:
            raise unwritable(error, self._path) from None
