"""A record as leaves that merge on their own, and back. Pure, and the same on every node.

A path is a JSON pointer into the record's content (`/spec/port`; a `#` that begins a name is `~2`). An array is one
leaf, unless the catalogue says how its items are told apart: in a `set` by their values, in a `list_by` by a field;
such an item is `#` and canonical JSON, as in `/spec/tags/#"a"`, and they come back in the order of that. An object
deeper than MOST_DEPTH is one leaf; so are the members of `spec`, or all of `spec`, in a record with more than
MOST_LEAVES. What is or holds a sealed secret has no leaf: it stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, cast

from universal_registry.kernel.jsonvalue import canonical
from universal_registry.registry.record import CONTENT_FIELDS, Content, Lifecycle
from universal_registry.security.cipher import is_sealed
from universal_registry.sync.version import LIFE, State, Version, shown

MOST_DEPTH = 8
MOST_LEAVES = 256
SET = "set"
LIST_BY = "list_by:"

Arrays = Mapping[str, str]
"""How the arrays at some paths of a kind are told apart: `set`, or `list_by:<field>`."""

_EMPTY = {"title": "", "description": "", "lifecycle": Lifecycle.ACTIVE, "health": None, "expires_at": None}
_OBJECTS = ("labels", "annotations", "spec")


def flatten(content: Content, arrays: Arrays) -> dict[str, Any]:
    """The leaves of a record: those of an envelope field that says nothing are left out."""
    for depth in (MOST_DEPTH, 2):
        leaves = dict(_content_leaves(content, arrays, depth))
        if len(leaves) <= MOST_LEAVES:
            return leaves
    return dict(_content_leaves(content, arrays, 1))


def _content_leaves(content: Content, arrays: Arrays, depth: int) -> Iterator[tuple[str, Any]]:
    for field in CONTENT_FIELDS:
        value = getattr(content, field)
        if field in _OBJECTS:
            if value:
                yield from _leaves(value, f"/{field}", arrays, depth - 1 if field == "spec" else MOST_DEPTH)
        elif field not in _EMPTY or value != _EMPTY[field]:
            yield f"/{field}", value


def _leaves(value: Any, path: str, arrays: Arrays, depth: int) -> Iterator[tuple[str, Any]]:
    if depth > 0 and value:
        if isinstance(value, dict) and not is_sealed(value):
            for name, each in value.items():
                yield from _leaves(each, f"{path}/{_escaped(name)}", arrays, depth - 1)
            return
        rule = arrays.get(path, "") if isinstance(value, list) else ""
        if rule == SET:
            yield from ((f"{path}/{_mark(each)}", each) for each in value)
            return
        if rule and (items := _items(value, rule.removeprefix(LIST_BY))) is not None:
            for mark, each in items.items():
                yield from _leaves(each, f"{path}/{mark}", arrays, depth - 1)
            return
    if not _holds_seal(value):
        yield path, value


def _items(value: list[Any], field: str) -> dict[str, dict[str, Any]] | None:
    """The items by the field that tells them apart; None when it does not: then the array is one leaf."""
    if not all(isinstance(each, dict) and field in each for each in value):
        return None
    items = {_mark(each[field]): each for each in value}
    return items if len(items) == len(value) else None


def _mark(value: Any) -> str:
    return "#" + _slashless(canonical(value).decode())


def _escaped(name: str) -> str:
    name = _slashless(name)
    return "~2" + name[1:] if name.startswith("#") else name


def _slashless(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _name(step: str) -> str:
    return step.replace("~2", "#").replace("~1", "/").replace("~0", "~")


def _holds_seal(value: Any) -> bool:
    if isinstance(value, dict):
        return is_sealed(value) or any(map(_holds_seal, value.values()))
    return isinstance(value, list) and any(map(_holds_seal, value))


def shown_leaves(state: State, prefer: str = "") -> dict[str, Version]:
    """What the record shows at each path, none inside of another: of a leaf and those inside of it, whichever holds the
    version of the highest rank. An empty object or array gives way to anything inside of it."""
    if is_plain(state):
        return {path: versions[0] for path, versions in state.fields.items() if path != LIFE}
    tops = {path: shown(versions, prefer) for path, versions in state.fields.items() if path != LIFE}
    tops = {path: version for path, version in tops.items() if not version.gone}
    inner: dict[str, Version] = {}
    for path, version in tops.items():
        for above in _above(path):
            if above in tops and (above not in inner or version.rank > inner[above].rank):
                inner[above] = version
    covered = {above for above, version in inner.items() if not _gives_way(tops[above], version)}
    return {
        path: version
        for path, version in tops.items()
        if (path not in inner or path in covered) and not any(above in covered for above in _above(path))
    }


def is_plain(state: State) -> bool:
    """Whether there is nothing to choose, as in most records: it is there, and each path has one value, none inside of
    another."""
    fields = state.fields
    if LIFE not in fields:
        return False
    for path, versions in fields.items():
        if len(versions) != 1 or versions[0].gone or not fields.keys().isdisjoint(_above(path)):
            return False
    return True


def _gives_way(outer: Version, inner: Version) -> bool:
    return outer.value in ({}, []) or outer.rank < inner.rank


@lru_cache(maxsize=4096)
def _above(path: str) -> tuple[str, ...]:
    """The paths that this one lies inside of, the innermost first. The records of a kind have much the same ones."""
    found = []
    end = path.rfind("/")
    while end > 0:
        path = path[:end]
        found.append(path)
        end = path.rfind("/")
    return tuple(found)


def is_alive(state: State, prefer: str = "") -> bool:
    """Whether the record is there."""
    life = state.fields.get(LIFE)
    return life is not None and not shown(life, prefer).gone


def unflatten(state: State, prefer: str = "") -> dict[str, Any]:
    """The content fields that the record shows, without secrets."""
    tree: dict[str, Any] = {}
    for path, version in sorted(shown_leaves(state, prefer).items()):
        steps = path.split("/")[1:]
        node = tree
        for step in steps[:-1]:
            node = cast("dict[str, Any]", node.setdefault(step, {}))
        node[steps[-1]] = _Leaf(version.value)
    return {name: _folded(value) for name, value in tree.items()}


def with_secrets_of(here: Content, spec: dict[str, Any]) -> dict[str, Any]:
    """The spec with the sealed secrets of the record as it is here."""
    kept = _secrets(here.spec)
    return cast("dict[str, Any]", _with_secrets(spec, kept)) if kept else spec


class _Leaf(NamedTuple):
    """The value of a leaf, which may be an object itself."""

    value: Any


def _folded(node: Any) -> Any:
    """The value that a node of the tree stands for: objects whose steps are all marks are arrays, in their order."""
    if isinstance(node, _Leaf):
        return node.value
    if node and all(step.startswith("#") for step in node):
        return [_folded(node[step]) for step in sorted(node)]
    return {_name(step): _folded(each) for step, each in node.items()}


def _secrets(value: dict[str, Any]) -> dict[str, Any]:
    """The part of an object that is or holds sealed secrets."""
    found: dict[str, Any] = {}
    for name, each in value.items():
        if isinstance(each, dict) and not is_sealed(each):
            if inside := _secrets(each):
                found[name] = inside
        elif _holds_seal(each):
            found[name] = each
    return found


def _with_secrets(value: Any, secrets: dict[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    made = dict(value)
    for name, each in secrets.items():
        is_inside = isinstance(each, dict) and not is_sealed(each)
        made[name] = _with_secrets(made.get(name, {}), each) if is_inside else each
    return made
