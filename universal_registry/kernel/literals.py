"""Dicts that a Python file writes out, read as literals: the file is parsed, never run."""

from __future__ import annotations

import ast
from collections.abc import Collection
from typing import NamedTuple

from universal_registry.kernel.errors import SettingError

HINT = "write plain values: the file is read, never run"


class Literal(NamedTuple):
    """A value and the line that it stands on."""

    value: object
    line: int


def literal_tables(source: str, file: str, wanted: Collection[str]) -> dict[str, dict[str, Literal]]:
    """Of the dicts that the source assigns at its top level, those whose names are `wanted`; the last of a name counts.

    `file`: its name, for messages. Raises SettingError naming the line.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        said = str(error.msg if isinstance(error, SyntaxError) else error)
        raise SettingError(f"{file}{line} is not Python: {said}", setting=file) from None
    found = {}
    for node in tree.body:
        name = _assigned(node)
        if name in wanted and isinstance(node, ast.Assign | ast.AnnAssign):
            found[name] = _table(node.value or node, name, file)
    return found


def _assigned(node: ast.stmt) -> str:
    """The one plain name that the statement assigns to; empty when there is none."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return ""


def _table(node: ast.AST, name: str, file: str) -> dict[str, Literal]:
    if not isinstance(node, ast.Dict):
        where = f"{file}:{getattr(node, 'lineno', 1)}"
        raise SettingError(
            f"{name} in {where} is not a dict written out", hint="write {...} with plain values", setting=name
        )
    found: dict[str, Literal] = {}
    for key, item in zip(node.keys, node.values, strict=True):
        word = None if key is None else _value(key)
        value = _value(item)
        if not isinstance(word, str) or isinstance(value, _Unreadable):
            raise SettingError(
                f"{name} in {file}:{item.lineno} is not written out as a literal", hint=HINT, setting=name
            )
        if word in found:
            raise SettingError(
                f"{name} in {file}:{item.lineno} gives {word} a second time",
                hint=f"the first is in line {found[word].line}",
                setting=name,
            )
        found[word] = Literal(value, item.lineno)
    return found


class _Unreadable:
    """Stands for what is no literal."""


def _value(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _Unreadable()
