"""What should stand where, of the records that have arrived, by the plan of this machine. Reads and writes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from universal_registry.agent.members import member_of
from universal_registry.agent.places import Places
from universal_registry.agent.plan import OF_RECORD, Entry, Form, Plan
from universal_registry.agent.texts import Item, order_of, text_of
from universal_registry.kernel.errors import Invalid, Malformed, RegistryError
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.registry.agent_report import is_for
from universal_registry.registry.record import Record

USUAL_MODE = 0o644
_RECORD_MODE = re.compile(r"0?[0246][04][04]")
"""Modes that a record may ask for: nobody else writes, nobody executes. The plan may say any other."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One place. `content`: the whole file, what stands between the marks of a block, members as `members.ours` gives
    them, or the target of a link. `mode` None: that of the file that is there. `sources`: the records that it is made
    of -> their revisions."""

    path: Path
    entry: Entry
    content: bytes
    mode: int | None
    sources: dict[str, int]

    @property
    def key(self) -> str:
        """What it is called in the state: a file may have several blocks."""
        return key_of(self.path, self.entry.form, self.entry.name)

    @property
    def mark(self) -> str:
        return mark_of(self.entry.form, self.content, self.mode)


class _Meta(msgspec.Struct):
    revision: int


class _Document(msgspec.Struct):
    """What is relied upon in a record."""

    kind: str
    namespace: str
    name: str
    classification: str
    spec: dict[str, Any]
    meta: _Meta
    labels: dict[str, str] = {}


class Unfit(msgspec.Struct, frozen=True, kw_only=True):
    """A record that an entry selects, and that cannot stand anywhere as it is."""

    entry: str
    record: str
    revision: int
    why: str


def key_of(path: Path | str, form: Form, entry: str) -> str:
    """The name of a place."""
    return f"{path}\n{entry}" if form.is_shared else str(path)


def mark_of(form: str, content: bytes, mode: int | None) -> str:
    """What tells one content of a place from another. The mode is part of a file of ours, and not of others' files."""
    seen = mode if form == Form.FILE else None
    return sha256(b"%s %s\n" % (form.encode(), b"-" if seen is None else b"%o" % seen) + content).hexdigest()


def check_item(document: Any) -> dict[str, Any]:
    """The document of a record, of which the rest of this may suppose that it is one. Raises Malformed."""
    try:
        msgspec.convert(document, _Document)
    except msgspec.ValidationError as error:
        raise Malformed(f"what the registry sent is no record: {error}") from None
    found: dict[str, Any] = document
    return found


def record_text(item: Item) -> str:
    """`kind/namespace/name`."""
    return f"{item['kind']}/{item['namespace']}/{item['name']}"


def selected(plan: Plan, entry: Entry, items: Iterable[Item]) -> Iterator[Item]:
    """Those that the entry selects, and that are not for another machine."""
    for item in items:
        if entry.selector.matches(_as_record(item)) and is_for(item["kind"], item["spec"], plan.name):
            yield item


def wanted(plan: Plan, places: Places, items: Iterable[Item]) -> tuple[list[Wanted], list[Unfit]]:
    """All places of the plan, and the records that have none. No path is in it twice, but for blocks of one file."""
    every = list(items)
    found: dict[str, Wanted] = {}
    unfit: list[Unfit] = []
    taken: dict[Path, Entry] = {}
    for entry in plan.entries:
        for group in _groups(entry, sorted(selected(plan, entry, every), key=order_of)):
            made = _made(plan, places, entry, group, unfit)
            if made is None:
                continue
            other = taken.setdefault(made.path, entry)
            if made.key in found or (other is not entry and not (entry.form is other.form and entry.form.is_shared)):
                why = f"{made.path} has another record already, of entry {other.name}"
                unfit += [_unfit(entry, item, why) for item in group if record_text(item) in made.sources]
                continue
            found[made.key] = made
    return list(found.values()), unfit


def _groups(entry: Entry, items: list[Item]) -> list[list[Item]]:
    return [[item] for item in items] if entry.is_each else [items] if items else []


def _made(plan: Plan, places: Places, entry: Entry, group: list[Item], unfit: list[Unfit]) -> Wanted | None:
    """What the records of one place become; None when none of them can stand there."""
    texts: dict[str, str] = {}
    members: dict[str, Any] = {}
    sources: dict[str, int] = {}
    path, mode = None, entry.mode
    for item in group:
        try:
            path = path or places.place(_path(entry, item))
            if entry.form is Form.MEMBERS:
                _add_member(members, item)
            else:
                texts[record_text(item)] = _text(plan, places, entry, item, path)
            if entry.is_each and entry.form is Form.FILE:
                mode = _mode(entry, item)
            sources[record_text(item)] = item["meta"]["revision"]
        except RegistryError as error:
            texts.pop(record_text(item), None)
            unfit.append(_unfit(entry, item, error.message))
    if path is None or not sources:
        return None
    content = canonical(members) if members else "".join(texts.values()).encode()
    if mode is None and entry.form is Form.FILE:
        mode = USUAL_MODE
    return Wanted(path=path, entry=entry, content=content, mode=mode, sources=sources)


def _add_member(members: dict[str, Any], item: Item) -> None:
    made = member_of(item)
    if item["name"] in members:
        raise Invalid(f"another namespace has a {item['name']} that is here already")
    members[item["name"]] = made


def _path(entry: Entry, item: Item) -> str:
    if entry.path != OF_RECORD:
        return entry.path_of(item["name"]) if entry.is_each else entry.path
    field = "source" if entry.form is Form.LINK else "path"
    path = item["spec"].get(field)
    if not isinstance(path, str) or not path:
        raise Invalid(f"it says no {field}")
    return path


def _text(plan: Plan, places: Places, entry: Entry, item: Item, path: Path) -> str:
    if entry.form is not Form.LINK:
        text = text_of(item)
        exactly = entry.is_each and entry.form is Form.FILE
        return text if exactly or text.endswith("\n") else text + "\n"
    target = item["spec"].get("target")
    if not isinstance(target, str):
        raise Invalid("it has no target")
    places.check_link(path, target, plan.link_roots)
    return target


def _mode(entry: Entry, item: Item) -> int:
    said = item["spec"].get("mode")
    if entry.mode is not None or said is None:
        return USUAL_MODE if entry.mode is None else entry.mode
    if not isinstance(said, str) or not _RECORD_MODE.fullmatch(said):
        raise Invalid(f"its mode {said!r:.20} is more than a record may say", hint="`mode:` in the plan says any")
    return int(said, 8)


def _unfit(entry: Entry, item: Item, why: str) -> Unfit:
    return Unfit(entry=entry.name, record=record_text(item), revision=item["meta"]["revision"], why=why)


def _as_record(item: Mapping[str, Any]) -> Record:
    """The record of a document, as far as selectors look at it."""
    meta = item["meta"]
    return Record(
        kind=item["kind"],
        namespace=item["namespace"],
        name=item["name"],
        classification=item["classification"],
        labels=item.get("labels") or {},
        spec=item["spec"],
        uid="",
        generation=1,
        revision=meta["revision"],
        created_revision=meta["revision"],
        created_at="",
        updated_at="",
        created_by="",
        updated_by="",
        fingerprint="",
    )
