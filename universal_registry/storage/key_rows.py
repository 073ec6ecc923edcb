"""What both engines share in keeping keys and in sealing anew: places in their order, rows, cursors."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import orjson
from msgspec.structs import replace

from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.key_state import FIRST, KeyRow, KeyState, Rotation
from universal_registry.storage.ddl import quoted

Anew = Callable[[str, str], str]
LINES = 1000
"""Lines of the log that are looked at in one go: most hold nothing that is sealed."""
_SEALED = re.compile(r"[0-9a-f]{8}:[A-Za-z0-9_-]+=*")
_CHANGES, _ANSWERS, _FACTS = "changes", "answers", "facts"


class Found(NamedTuple):
    """Rows to be written (the new text, their key, the old text), and where to go on: None at the place's end."""

    updates: list[tuple[Any, ...]]
    after: str | None


def secret_tables(catalogue: Catalogue) -> list[str]:
    """The tables whose records may hold secrets."""
    return sorted(kind.plural for kind in catalogue.kinds.values() if kind.secret_paths)


def places(catalogue: Catalogue) -> list[str]:
    """All places with something sealed, in the order of a pass.

    Records before the log: a change copies the secrets that it leaves alone from the record into its line.
    """
    return [*(f"records/{table}" for table in secret_tables(catalogue)), _CHANGES, _ANSWERS, _FACTS]


def table_of(place: str) -> str | None:
    """The table of records that a place is, as SQL writes its name; None for the others."""
    head, slash, table = place.partition("/")
    return quoted(table) if slash and head == "records" else None


def moved(rotation: Rotation, found: Found, order: Sequence[str]) -> tuple[Rotation, bool]:
    """The rotation behind what was found, and whether the pass has ended: then it stays where it is."""
    count = len(found.updates)
    more = replace(rotation, resealed=rotation.resealed + count, changed=rotation.changed + count)
    if found.after is not None:
        return replace(more, after=found.after), False
    following = order[order.index(rotation.place) + 1 :]
    return (replace(more, place=following[0], after=""), False) if following else (more, True)


def at_first(rotation: Rotation, order: Sequence[str]) -> Rotation:
    """With the name of the first place, where it stands before a pass."""
    return replace(rotation, place=order[0], after="") if rotation.place == FIRST else rotation


def records_found(rows: Sequence[Sequence[Any]], limit: int, anew: Anew) -> Found:
    """From rows of (namespace, name, spec)."""
    updates = [(text, *row) for row in rows if (text := anew("document", row[2])) != row[2]]
    return Found(updates, _cursor(rows[-1][:2]) if len(rows) == limit else None)


def lines_found(rows: Sequence[Sequence[Any]], last: int | None, seen: int, anew: Anew) -> Found:
    """From rows of (position, op, body); `last` and `seen`: of the lines that were looked at."""
    updates = []
    for position, op, body in rows:
        text = anew("event" if op == "event" else "document", body)
        if text != body:
            updates.append((text, position, body))
    return Found(updates, str(last) if seen == LINES else None)


def answers_found(rows: Sequence[Sequence[Any]], limit: int, anew: Anew) -> Found:
    """From rows of (actor, key, answer)."""
    updates = [(text, *row) for row in rows if (text := anew("value", row[2])) != row[2]]
    return Found(updates, _cursor(rows[-1][:2]) if len(rows) == limit else None)


def facts_found(rows: Sequence[Sequence[Any]], anew: Anew) -> Found:
    """From rows of (key, value), of which only some are sealed."""
    sealed = [row for row in rows if _SEALED.fullmatch(row[1])]
    return Found([(text, *row) for row in sealed if (text := anew("value", row[1])) != row[1]], None)


def pair_after(rotation: Rotation) -> tuple[str, str]:
    """The cursor of a place whose rows have two words for a key."""
    first, second = orjson.loads(rotation.after) if rotation.after else ("", "")
    return first, second


def line_after(rotation: Rotation) -> int:
    """The cursor in the log."""
    return int(rotation.after or 0)


def _cursor(pair: Sequence[Any]) -> str:
    return orjson.dumps(list(pair)).decode()


def key_row(row: Sequence[Any]) -> KeyRow:
    """A key, from its columns."""
    kid, print_, state, created_at, retired_at, wrapped = row
    return KeyRow(
        kid=kid,
        fingerprint=print_,
        state=KeyState(state),
        created_at=created_at,
        retired_at=retired_at,
        wrapped=wrapped,
    )


def row_of_key(row: KeyRow) -> tuple[Any, ...]:
    """The columns of a key."""
    return (row.kid, row.fingerprint, str(row.state), row.created_at, row.retired_at, row.wrapped)


def rotation_of(row: Sequence[Any]) -> Rotation:
    """A rotation, from its columns."""
    kid, began_at, worker, at, place, reached, resealed, changed = row
    return Rotation(
        kid=kid, began_at=began_at, by=worker, at=at, place=place, after=reached, resealed=resealed, changed=changed
    )


def row_of_rotation(rotation: Rotation) -> tuple[Any, ...]:
    """The columns of a rotation."""
    given = (rotation.kid, rotation.began_at, rotation.by, rotation.at, rotation.place, rotation.after)
    return (*given, rotation.resealed, rotation.changed)
