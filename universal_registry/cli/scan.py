"""`ureg scan`: register what this machine has."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import click

from universal_registry.cli.command import Example, command
from universal_registry.cli.machine import this_machine
from universal_registry.cli.output import Column, Shape, emit, json_text, write
from universal_registry.cli.scan_plan import Key, Plan, Record, Tally, is_secret_only, make_plan, vanished
from universal_registry.cli.session import Session, note, session
from universal_registry.kernel.errors import Invalid, TooLarge
from universal_registry.kernel.ids import check_namespace, namespace_from
from universal_registry.scan import LABEL, Found, Machine, Reader, Skipped, home_of, select

_CHUNK = 200
_MOST_LISTED = 20
_COUNTS = ("found", "created", "changed", "unchanged", "vanished", "skipped")
_SHAPE = Shape(
    "things found",
    (
        Column("SOURCE", "source"),
        Column("KIND", "kind"),
        *(Column(word.upper(), word) for word in _COUNTS),
    ),
    lambda item: f"{item['source']}/{item['kind']}",
)


@command(
    "scan",
    Example("ureg scan --dry-run", "look, and write nothing"),
    Example("ureg scan", "everything"),
    Example("ureg scan aliases packages", "only these sources"),
    Example("ureg scan git --folder ~/src", "git repositories below a folder"),
    Example("ureg scan --prune", "and delete the records of what has vanished"),
)
@click.argument("sources", nargs=-1, metavar="[SOURCE]...")
@click.option("--dry-run", is_flag=True, help="Write nothing; say what would change.")
@click.option("--prune", is_flag=True, help="Delete the records of things that are not there any more.")
@click.option("--folder", "folders", multiple=True, metavar="FOLDER", help="Look for git repositories below it.")
@click.option("-n", "--namespace", metavar="NAMESPACE", help="Where the records go; the name of this host if absent.")
@click.option(
    "-o", "--output", type=click.Choice(("table", "json", "ndjson", "tsv")), default="table", help="The form."
)
def scan(
    sources: tuple[str, ...],
    dry_run: bool,
    prune: bool,
    folders: tuple[str, ...],
    namespace: str | None,
    output: str,
) -> None:
    """Register what this machine has: packages, commands, aliases, services, users, certificates and more.

    Files are read, never run. A variable that looks like a secret is sealed; an alias or function that
    seems to hold one is skipped. A second scan changes nothing.
    """
    machine = this_machine(folders)
    readers = select(sources or None)
    where = check_namespace(namespace) if namespace else namespace_from(machine.hostname)
    _show_sources(readers, machine)
    scanned = _Scan(readers, machine, where)
    with session() as asked:
        scanned.compare(asked)
        if not dry_run:
            scanned.write(asked, prune=prune)
    scanned.tell(output, dry_run=dry_run, prune=prune)


def _show_sources(readers: Sequence[Reader], machine: Machine) -> None:
    for reader in readers:
        places = reader.sources(machine)
        shown = ", ".join(places[:4]) + (f" and {len(places) - 4} more" if len(places) > 4 else "")
        note(f"{reader.name:<14}{shown or '(nothing)'}")


class _Scan:
    """One scan: what was found, what is known, and what comes of it."""

    def __init__(self, readers: Sequence[Reader], machine: Machine, namespace: str) -> None:
        from universal_registry.scan import read_all

        self._names = [reader.name for reader in readers]
        self._folders = [str(folder) for folder in machine.folders]
        self._home = home_of(machine)
        self._namespace = namespace
        self._found: dict[Key, Found] = {}
        self._skipped: list[tuple[str, Skipped]] = []
        for reader, item in read_all(machine, self._names):
            if isinstance(item, Found):
                self._found[item.kind, item.name] = item
            else:
                self._skipped.append((reader, item))
        self._plan = Plan()
        self._known: dict[Key, Record] = {}
        self._effects: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
        self._revision: int | None = None
        self._pruned = 0

    # --- comparing and writing ---------------------------------------------------------------------------------------

    def compare(self, asked: Session) -> None:
        """Set what was found against the records of the namespace."""
        records = asked.items("/v1/-/records", {"namespace": self._namespace})
        self._known = {(record["kind"], record["name"]): record for record in records}
        self._plan = make_plan(self._found.values(), self._known, self._namespace)
        self._plan.vanished = vanished(self._known, self._found.keys(), self._names, self._folders, self._home)
        for operation, group in self._plan.operations:
            old = self._known.get((operation["kind"], operation["name"]))
            # What a dry run says; a real one counts what the registry answers.
            word = "created" if old is None else "unchanged" if is_secret_only(operation, old) else "changed"
            self._effects[word][group] += 1

    def write(self, asked: Session, *, prune: bool) -> None:
        """Write it, in batches of a few hundred records: each is one revision."""
        self._effects.clear()
        operations = self._plan.operations
        for start in range(0, len(operations), _CHUNK):
            self._batch(asked, operations[start : start + _CHUNK])
        if prune:
            self._prune(asked)

    def _batch(self, asked: Session, operations: list[tuple[dict[str, Any], tuple[str, str]]]) -> None:
        try:
            answer = asked.write("/v1/batch", {"operations": [each for each, _ in operations], "message": "scan"})
        except (Invalid, TooLarge) as error:
            self._apart(asked, operations, error)
            return
        self._revision = answer["revision"]
        words = {"updated": "changed"}
        for (_, group), result in zip(operations, answer["results"], strict=True):
            self._effects[words.get(result["effect"], result["effect"])][group] += 1

    def _apart(self, asked: Session, operations: list[Any], error: Invalid | TooLarge) -> None:
        """One record that the registry refuses must not keep the others out: it is reported as skipped."""
        if len(operations) == 1:
            operation, (reader, _) = operations[0]
            self._skipped.append((reader, Skipped(error.message, f"{operation['kind']}/{operation['name']}")))
            return
        middle = len(operations) // 2
        self._batch(asked, operations[:middle])
        self._batch(asked, operations[middle:])

    def _prune(self, asked: Session) -> None:
        kept = self._unsure()
        gone = [record for record in self._plan.vanished if record["labels"][LABEL] not in kept]
        for reader in sorted(kept & {record["labels"][LABEL] for record in self._plan.vanished}):
            note(f"{reader} could not be read: nothing of it is deleted")
        for start in range(0, len(gone), _CHUNK):
            operations = [
                {"op": "delete", "kind": record["kind"], "namespace": self._namespace, "name": record["name"]}
                for record in gone[start : start + _CHUNK]
            ]
            self._revision = asked.write("/v1/batch", {"operations": operations, "message": "scan --prune"})["revision"]
        self._pruned = len(gone)

    def _unsure(self) -> set[str]:
        """Readers that found nothing and had to skip something: what they know has hardly vanished."""
        found = {item.labels[LABEL] for item in self._found.values()}
        return {reader for reader, _ in self._skipped} - found

    # --- telling -----------------------------------------------------------------------------------------------------

    def tell(self, output: str, *, dry_run: bool, prune: bool) -> None:
        """Skipped and vanished things on standard error, counts on standard output."""
        for reader, item in self._skipped[:_MOST_LISTED]:
            note(f"skipped ({reader}): {item.path}: {item.reason}")
        if len(self._skipped) > _MOST_LISTED:
            note(f"skipped: {len(self._skipped) - _MOST_LISTED} more")
        self._tell_vanished(prune=prune and not dry_run)
        rows = self._rows()
        if output == "json":
            write(json_text(self._answer(rows, dry_run=dry_run), indent=2))
        elif rows:
            emit(rows, output, _SHAPE)
        self._tell_sum(rows, dry_run=dry_run)

    def _tell_vanished(self, *, prune: bool) -> None:
        gone = self._plan.vanished
        for record in gone[:_MOST_LISTED]:
            note(f"vanished: {record['kind']}/{record['name']}")
        if len(gone) > _MOST_LISTED:
            note(f"vanished: {len(gone) - _MOST_LISTED} more (-o json lists all)")
        if gone and not prune:
            note("what vanished stays registered until: ureg scan --prune")

    def _rows(self) -> list[dict[str, Any]]:
        tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
        for item in self._found.values():
            tallies[item.labels[LABEL], item.kind].found += 1
        for word, groups in (*self._effects.items(), ("unchanged", self._plan.unchanged)):
            for group, count in groups.items():
                setattr(tallies[group], word, getattr(tallies[group], word) + count)
        for record in self._plan.vanished:
            tallies[record["labels"][LABEL], record["kind"]].vanished += 1
        for reader, _ in self._skipped:
            kinds = [kind for name, kind in tallies if name == reader]
            tallies[reader, kinds[0] if kinds else "-"].skipped += 1
        order = {name: number for number, name in enumerate(self._names)}
        return [
            {"source": reader, "kind": kind, **{word: getattr(tally, word) for word in _COUNTS}}
            for (reader, kind), tally in sorted(tallies.items(), key=lambda pair: (order[pair[0][0]], pair[0][1]))
        ]

    def _answer(self, rows: list[dict[str, Any]], *, dry_run: bool) -> dict[str, Any]:
        return {
            "namespace": self._namespace,
            "dry_run": dry_run,
            "revision": self._revision,
            "sources": rows,
            "vanished": [f"{record['kind']}/{record['name']}" for record in self._plan.vanished],
            "pruned": self._pruned,
            "skipped": [{"source": reader, "path": item.path, "reason": item.reason} for reader, item in self._skipped],
        }

    def _tell_sum(self, rows: list[dict[str, Any]], *, dry_run: bool) -> None:
        total = {word: sum(row[word] for row in rows) for word in _COUNTS}
        said = f"{total['found']} found in {self._namespace}: {total['created']} created, {total['changed']} changed"
        said += f", {total['unchanged']} unchanged, {total['vanished']} vanished"
        said += f", {self._pruned} deleted" if self._pruned else ""
        said += f", revision {self._revision}" if self._revision is not None else ""
        note(said + (" (dry run: nothing was written)" if dry_run else ""))
