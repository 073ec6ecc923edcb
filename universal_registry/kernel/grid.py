"""Plain tables: aligned by what a terminal shows, fitted to its width, and with nothing in them that could steer it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from universal_registry.kernel.visible import escaped

GAP = 2
_LEAST = 6
_LONGEST = 100
_ELLIPSIS = "…"
Item = dict[str, Any]


class Column(NamedTuple):
    """A column of a table. `path`: a field of the item, or a function of it. `whole`: an id or a name, which can be
    pasted into commands, so that no cell of it is cut. `long`: words of others, such as an answer: a table shows how
    they begin, other forms all of them."""

    title: str
    path: str | Callable[[Item], Any]
    whole: bool = False
    long: bool = False

    def of(self, item: Item) -> Any:
        if not isinstance(self.path, str):
            return self.path(item)
        value: Any = item
        for step in self.path.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        return value


def width(text: str) -> int:
    """How many columns of a terminal the text takes: two for wide characters, none for combining ones."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def cell(value: Any) -> str:
    """A value as a table shows it; what is empty is a dash."""
    if value is None or value in ("", [], {}):
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return escaped(value)
    if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
        return ",".join(cell(item) for item in value)
    if isinstance(value, dict | list):
        import json

        return escaped(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    return str(value)


def table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], limit: int | None, whole: Collection[int] = ()
) -> list[str]:
    """The lines of a table of cells. With a `limit`, wide columns are cut, and then the last ones left out.

    `whole`: columns to be pasted into commands. They are the last to give way, and no cell of theirs is ever cut: one
    that is wider than its column makes its line longer.
    """
    widths = (max(map(width, (title, *cells))) for title, *cells in zip(titles, *rows, strict=True))
    columns = dict(enumerate(widths))
    if limit is not None:
        columns = _fitted(columns, limit, whole)
    return [_line(cells, columns, whole) for cells in (titles, *rows)]


def _fitted(columns: dict[int, int], limit: int, whole: Collection[int]) -> dict[int, int]:
    columns = dict(columns)
    least = {each: min(size, limit // 2 if each in whole else _LEAST) for each, size in columns.items()}
    while len(columns) > 1 and sum(least[each] + GAP for each in columns) - GAP > limit:
        soft = [each for each in columns if each not in whole]
        if not soft:
            break
        del columns[soft[-1]]
    spare = limit - GAP * (len(columns) - 1)
    while (over := sum(columns.values()) - spare) > 0 and (pool := _shrinkable(columns, least, whole)):
        widest = max(pool, key=columns.__getitem__)
        others = sorted(columns[each] for each in pool)[-2] if len(pool) > 1 else 0
        lowest = least[widest] if columns[widest] > least[widest] else 1
        columns[widest] = max(columns[widest] - over, min(others, columns[widest] - 1), lowest)
    return columns


def _shrinkable(columns: dict[int, int], least: dict[int, int], whole: Collection[int]) -> list[int]:
    """The columns to take from next: the others before those to be whole."""
    wide = [each for each, size in columns.items() if size > least[each]]
    soft = [each for each in wide if each not in whole]
    return soft or wide or [each for each, size in columns.items() if size > 1 and each not in whole]


def _line(cells: Sequence[str], columns: dict[int, int], whole: Collection[int]) -> str:
    parts = []
    for number, wanted in columns.items():
        text = cells[number] if number in whole else cut(cells[number], wanted)
        parts.append(text + " " * (wanted - width(text)))
    return (" " * GAP).join(parts).rstrip()


def cut(text: str, columns: int) -> str:
    """The text in at most so many columns, an ellipsis where it was cut."""
    if width(text) <= columns:
        return text
    kept, used = "", 0
    for char in text:
        used += _columns(char)
        if used > columns - 1:
            break
        kept += char
    return kept + _ELLIPSIS


def table_of(items: Sequence[Item], columns: Sequence[Column], limit: int | None) -> list[str]:
    """The lines of a table of the items; see `table`."""
    rows = [[_cell(column, item) for column in columns] for item in items]
    whole = {number for number, column in enumerate(columns) if column.whole}
    return table([column.title for column in columns], rows, limit, whole)


def _cell(column: Column, item: Item) -> str:
    text = cell(column.of(item))
    return cut(text, _LONGEST) if column.long else text
