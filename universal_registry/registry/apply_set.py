"""Apply sets: which records a set of files has made, so that what has left the files can be deleted. Pure.

A set is itself a record, written in the same revision as the records that it names: it cannot say what is not so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.ids import SYSTEM_NAMESPACE, Key
from universal_registry.registry.drafts import Document
from universal_registry.registry.record import Record
from universal_registry.registry.selector import Selector
from universal_registry.registry.words import shown

KIND, CLASSIFICATION = "policy", "ApplySet"
SETS = Selector(kinds=(KIND,), namespaces=(SYSTEM_NAMESPACE,), classifications=(CLASSIFICATION,))
_PREFIX = "apply-set."
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class ApplySet(msgspec.Struct, frozen=True, kw_only=True):
    """`members`: the records that the set has made. `revision`: of the record that it is; 0: it is not there yet."""

    name: str
    members: frozenset[Key] = frozenset()
    revision: int = 0


class Planned(NamedTuple):
    """`operations`: of one batch, the last of them the set's own record. `kept`: what is not deleted, and why."""

    operations: list[Document]
    kept: tuple[str, ...]


def check_set_name(name: str) -> str:
    """The name of a set. Raises Invalid."""
    if not _NAME.fullmatch(name):
        hint = "1 to 63 letters, digits and . _ -, a letter or digit first"
        raise Invalid(f"the name of an apply set {shown(name)} cannot be used", hint=hint)
    return name


def parse_set(record: Record) -> ApplySet:
    """The set that a record is. Raises Invalid for one that somebody has written otherwise."""
    body = record.spec.get("apply_set")
    members = body.get("members") if isinstance(body, dict) else None
    parts = [str(each).split("/", 2) for each in members] if isinstance(members, list) else [[]]
    if not all(len(each) == 3 for each in parts) or not record.name.startswith(_PREFIX):
        hint = f"ureg history {KIND} {record.name} -n {SYSTEM_NAMESPACE}"
        raise Invalid(f"{record.key} does not say which records it is about", hint=hint)
    return ApplySet(
        name=record.name.removeprefix(_PREFIX),
        members=frozenset(Key(*each) for each in parts),
        revision=record.revision,
    )


def set_document(own: ApplySet, members: Collection[Key]) -> dict[str, Any]:
    """The set as an operation, if its record is still the one that was looked at."""
    return {
        "op": "put", "kind": KIND, "namespace": SYSTEM_NAMESPACE, "name": _PREFIX + own.name,
        "classification": CLASSIFICATION, "spec": {"apply_set": {"members": sorted(map(str, members))}},
        "meta": {"revision": own.revision},
    }  # fmt: skip


def leaving(own: ApplySet, keys: Collection[Key]) -> list[Key]:
    """The members that the documents with these keys do not mention."""
    return sorted(own.members.difference(keys))


def plan(
    documents: Sequence[Document],
    keys: Collection[Key],
    own: ApplySet,
    others: Iterable[ApplySet],
    *,
    prune: Mapping[Key, int] | None,
) -> Planned:
    """What applying the documents (`keys`: of their records) as that set is to do.

    `prune`: the members that leave it and are there, at which revision: they are deleted if they are still at it,
    unless another set has them too. None: all members stay.
    """
    if prune is None:
        return Planned([*documents, set_document(own, own.members.union(keys))], ())
    theirs = {key: other.name for other in others if other.name != own.name for key in other.members}
    deletes: list[Document] = [
        {"op": "delete", **key._asdict(), "meta": {"revision": revision}}
        for key, revision in prune.items()
        if key not in theirs
    ]
    kept = tuple(f"{key} is of the set {theirs[key]} too, and stays" for key in prune if key in theirs)
    return Planned([*documents, *deletes, set_document(own, keys)], kept)
