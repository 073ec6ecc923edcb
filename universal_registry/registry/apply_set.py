"""Apply sets: which records a set of files has made, so that what has left the files can be deleted. Pure.

A set is itself a record, written in the same revision as the records that it names: it cannot say what is not so.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
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
    """`members`: the records that the set has made. `made`: how often it made some of them again. `revision`: of the
    record that it is; 0: it is not there yet. A record that began after that revision is none that the set has made."""

    name: str
    members: frozenset[Key] = frozenset()
    made: int = 0
    revision: int = 0


class Planned(NamedTuple):
    """`operations`: of one batch, the last of them the set's own record. `told`: what somebody may not expect, such as
    what is not deleted, and why."""

    operations: list[Document]
    told: tuple[str, ...]


def check_set_name(name: str) -> str:
    """The name of a set. Raises Invalid."""
    if not _NAME.fullmatch(name):
        hint = "1 to 63 letters, digits and . _ -, a letter or digit first"
        raise Invalid(f"the name of an apply set {shown(name)} cannot be used", hint=hint)
    return name


def key_of(name: str) -> Key:
    """The key of the record that a set is."""
    return Key(KIND, SYSTEM_NAMESPACE, _PREFIX + name)


def parse_set(record: Record) -> ApplySet:
    """The set that a record is. Raises Invalid for one that somebody has written otherwise."""
    body = record.spec.get("apply_set")
    members = body.get("members") if isinstance(body, dict) else None
    parts = [str(each).split("/", 2) for each in members] if isinstance(members, list) else [[]]
    if not all(len(each) == 3 for each in parts) or not record.name.startswith(_PREFIX):
        hint = f"ureg history {KIND} {record.name} -n {SYSTEM_NAMESPACE}"
        raise Invalid(f"{record.key} does not say which records it is about", hint=hint)
    made = body.get("made") if isinstance(body, dict) else None
    return ApplySet(
        name=record.name.removeprefix(_PREFIX),
        members=frozenset(Key(*each) for each in parts),
        made=made if isinstance(made, int) else 0,
        revision=record.revision,
    )


def set_document(own: ApplySet, members: Collection[Key], made: int) -> dict[str, Any]:
    """The set as an operation, if its record is still the one that was looked at."""
    return {
        "op": "put", "kind": KIND, "namespace": SYSTEM_NAMESPACE, "name": _PREFIX + own.name,
        "classification": CLASSIFICATION,
        "spec": {"apply_set": {"members": sorted(map(str, members)), "made": made}},
        "meta": {"revision": own.revision},
    }  # fmt: skip


def plan(
    documents: Sequence[Document],
    keys: AbstractSet[Key],
    own: ApplySet,
    others: Iterable[ApplySet],
    there: Mapping[Key, Record],
    *,
    prune: bool,
) -> Planned:
    """What applying the documents (`keys`: of their records) as that set is to do. `there`: the records that there are
    of those and of the set.

    `prune`: the members that the documents do not mention are deleted if they are still at the revision that `there`
    has, unless somebody has made them anew since the set was written, or another set has them too.
    """
    left = sorted(key for key in own.members.difference(keys) if key in there)
    mine = [key for key in left if there[key].created_revision <= own.revision]
    made = own.made + any(_to_be_made(key, own, there) for key in keys)
    taken = sorted(key for key in there.keys() & keys if key not in own.members)
    told = [f"{key} was there already, and is of the set {own.name} now" for key in taken]
    if not prune:
        return Planned([*documents, set_document(own, {*keys, *mine}, made)], tuple(told))
    theirs = {key: other.name for other in others for key in other.members}
    deletes = [_delete(there[key]) for key in mine if key not in theirs]
    told += [f"{key} is of the set {theirs[key]} too, and stays" for key in mine if key in theirs]
    told += [f"{key} was made anew by {there[key].created_by}, and stays" for key in left if key not in mine]
    return Planned([*documents, *deletes, set_document(own, keys, made)], tuple(told))


def _delete(record: Record) -> Document:
    return {"op": "delete", **record.key._asdict(), "meta": {"revision": record.revision}}


def _to_be_made(key: Key, own: ApplySet, there: Mapping[Key, Record]) -> bool:
    """Whether a member is made again now: then the set is to be written, too, so as not to be older than it."""
    return key in own.members and (key not in there or there[key].created_revision > own.revision)
