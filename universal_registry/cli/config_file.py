"""Changing one value of `config.py` and nothing else of it: comments, order and the rest stay as they were written."""

from __future__ import annotations

import ast
import json
import os
import stat
from pathlib import Path

from universal_registry.kernel.errors import NotFound, ReadOnlyStore, SettingError
from universal_registry.kernel.literals import literal_tables
from universal_registry.kernel.world import SystemWorld
from universal_registry.storage.durable import replaced_file

_NEW = '"""The settings of this registry; docs/reference/settings.md has every key. It is read, never run."""\n'


def with_value(source: str, table: str, key: str, value: object, file: str) -> str:
    """The source with `table[key]` being `value`. Raises SettingError where it is not written out as literals."""
    literal_tables(source, file, [table])  # refuses what cannot be read, naming the line
    found = _dict(source, table)
    raw = source.encode()
    if found is None:
        gap = "\n\n" if source.rstrip() else ""
        return f'{source.rstrip()}{gap}\n{table} = {{\n    "{key}": {_literal(value)},\n}}\n'.lstrip("\n")
    starts = [0]
    for line in raw.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for word, item in zip(found.keys, found.values, strict=True):
        if isinstance(word, ast.Constant) and word.value == key:
            begin = starts[item.lineno - 1] + item.col_offset
            end = starts[(item.end_lineno or item.lineno) - 1] + (item.end_col_offset or 0)
            return (raw[:begin] + _literal(value).encode() + raw[end:]).decode()
    place = starts[found.lineno - 1] + found.col_offset + 1
    ending = b"" if raw[place : place + 1] in (b"\n", b"\r") else b"\n" if not found.keys else b" "
    return (raw[:place] + f'\n    "{key}": {_literal(value)},'.encode() + ending + raw[place:]).decode()


def _literal(value: object) -> str:
    """As Python writes it, texts with double quotes."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _dict(source: str, table: str) -> ast.Dict | None:
    """The dict that counts: the last of that name."""
    found = None
    for node in ast.parse(source).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict() as value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.Dict() as value)
            ) if name == table:
                found = value
    return found


def change(path: Path, table: str, key: str, value: object) -> None:
    """Write it into the file, which is made when it is not there; whole or not at all.

    Raises SettingError, ReadOnlyStore, NotFound when there is no such folder.
    """
    path = Path(os.path.realpath(path))
    if not path.parent.is_dir():
        raise NotFound(f"there is no folder {path.parent}", hint="ureg init")
    try:
        source = path.read_text("utf-8") if path.exists() else _NEW
        made = with_value(source, table, key, value, path.name)
        if literal_tables(made, path.name, [table])[table][key].value != value:
            raise SettingError(f"{path} cannot be changed here", hint=f'set "{key}" of {table} in it by hand')
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644
        with replaced_file(path, SystemWorld().new_id(), mode=mode) as file:
            file.write(made.encode())
    except UnicodeDecodeError:
        raise SettingError(f"{path} is not UTF-8") from None
    except OSError as error:
        raise ReadOnlyStore(f"{path} cannot be written: {error.strerror or error}") from None
