"""Looks of terminals and editors (`theme`, and `palette` where the file names colours), one of each for a program.

Read: kitty, alacritty (TOML), ghostty, foot, X resources, WezTerm (its literal lines) and VS Code.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from universal_registry.scan.base import Found, Machine, Source, SourceReader

_FILE_BYTES = 1 << 20
_ANSI = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_NAMES = (*_ANSI, *(f"bright_{name}" for name in _ANSI))
_Settings = dict[str, str]
_WEZTERM = re.compile(r"""\b(color_scheme|font_size|font)\s*=\s*(?:wezterm\.font\(?\s*)?["']?([^"',\n)]+)""")


class _Surface(NamedTuple):
    name: str
    classification: str
    paths: tuple[str, ...]  # below the home folder; the first that exists counts
    parse: Callable[[str], _Settings]


def _find(source: Source) -> Iterator[Found]:
    for surface in _SURFACES:
        for path in (source.machine.at_home(path) for path in surface.paths):
            text = source.text(path, _FILE_BYTES)
            if text is None:
                continue
            try:
                settings = surface.parse(text)
            except (ValueError, RecursionError):
                source.skip(f"not what {surface.name} writes", path)
                continue
            yield from _look(source, surface, path, settings)
            break


def _look(source: Source, surface: _Surface, path: str, settings: _Settings) -> Iterator[Found]:
    colors = {name: settings[f"color{i}"] for i, name in enumerate(_NAMES) if f"color{i}" in settings}
    background, foreground = settings.get("background"), settings.get("foreground")
    if colors:
        palette = {"colors": colors, "background": background, "foreground": foreground}
        yield from source.found("palette", surface.name, "AnsiPalette", palette)
    font = " ".join(settings[key] for key in ("font", "font_size") if settings.get(key))
    spec = {
        "surface": surface.name,
        "palette": surface.name if colors else None,
        "font": font or None,
        "background": background,
        "foreground": foreground,
        "cursor": settings.get("cursor"),
        "settings": {"theme": settings["theme"]} if settings.get("theme") else None,
        "path": path,
    }
    if any(spec[key] for key in ("palette", "font", "background", "foreground", "settings")):
        yield from source.found("theme", surface.name, surface.classification, spec, settings.get("theme", ""))


def _kitty(text: str) -> _Settings:
    rows = (line.split(None, 1) for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = {row[0]: row[1].strip() for row in rows if len(row) == 2}
    return _renamed(found, {"font_family": "font", "include": "theme"})


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        key, equals, value = (part.strip() for part in line.partition("="))
        if equals and not key.startswith(("#", ";")):
            yield key, value.strip("\"'")


def _ghostty(text: str) -> _Settings:
    found: _Settings = {}
    for key, value in _pairs(text):
        number, equals, color = value.partition("=")
        if key == "palette" and equals:
            found[f"color{number.strip()}"] = color.strip()
        else:
            found[key] = value
    return _renamed(found, {"font-family": "font", "font-size": "font_size", "cursor-color": "cursor"})


def _foot(text: str) -> _Settings:
    found = dict(_pairs(text))
    for i in range(8):
        found |= {f"color{i + 8 * j}": found[f"{kind}{i}"] for j, kind in enumerate(_FOOT) if f"{kind}{i}" in found}
    return found


_FOOT = ("regular", "bright")


def _xresources(text: str) -> _Settings:
    found: _Settings = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and not line.lstrip().startswith(("!", "#")):
            found[re.split(r"[.*]", key.strip())[-1]] = value.strip()
    return _renamed(found, {"faceName": "font", "faceSize": "font_size", "cursorColor": "cursor"})


def _alacritty(text: str) -> _Settings:
    document = tomllib.loads(text)
    colors, font = _table(document, "colors"), _table(document, "font")
    found: dict[str, Any] = dict(_table(colors, "primary"))
    found |= {"cursor": _table(colors, "cursor").get("cursor"), "font_size": font.get("size")}
    found["font"] = _table(font, "normal").get("family")
    for j, kind in enumerate(("normal", "bright")):
        found |= {f"color{8 * j + i}": _table(colors, kind).get(name) for i, name in enumerate(_ANSI)}
    return _texts(found)


def _vscode(text: str) -> _Settings:
    plain = re.sub(r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/', lambda match: match[1] or "", text, flags=re.DOTALL)
    document = json.loads(re.sub(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])', lambda match: match[1] or "", plain))
    names = {"workbench.colorTheme": "theme", "editor.fontFamily": "font", "editor.fontSize": "font_size"}
    return _texts({ours: document.get(theirs) for theirs, ours in names.items()} if isinstance(document, dict) else {})


def _wezterm(text: str) -> _Settings:
    found = {key: value.strip() for key, value in _WEZTERM.findall(re.sub(r"--[^\n]*", "", text))}
    return _renamed(found, {"color_scheme": "theme"})


def _table(value: dict[str, Any], key: str) -> dict[str, Any]:
    inner = value.get(key)
    return inner if isinstance(inner, dict) else {}


def _texts(found: dict[str, Any]) -> _Settings:
    usable = {key: value for key, value in found.items() if isinstance(value, str | int | float)}
    return {key: f"{value:g}" if isinstance(value, float) else str(value) for key, value in usable.items()}


def _renamed(found: _Settings, names: dict[str, str]) -> _Settings:
    return {**found, **{ours: found[theirs] for theirs, ours in names.items() if theirs in found}}


_SURFACES = (
    _Surface("kitty", "TerminalTheme", (".config/kitty/kitty.conf",), _kitty),
    _Surface("alacritty", "TerminalTheme", (".config/alacritty/alacritty.toml", ".alacritty.toml"), _alacritty),
    _Surface("ghostty", "TerminalTheme", (".config/ghostty/config",), _ghostty),
    _Surface("foot", "TerminalTheme", (".config/foot/foot.ini",), _foot),
    _Surface("xresources", "TerminalTheme", (".Xresources", ".Xdefaults"), _xresources),
    _Surface("wezterm", "TerminalTheme", (".config/wezterm/wezterm.lua", ".wezterm.lua"), _wezterm),
    _Surface("code", "EditorTheme", (".config/Code/User/settings.json",), _vscode),
    _Surface("codium", "EditorTheme", (".config/VSCodium/User/settings.json",), _vscode),
)


def _where(machine: Machine) -> list[str]:
    return [machine.at_home(path) for surface in _SURFACES for path in surface.paths]


READER = SourceReader("themes", "looks of terminals and editors", ("theme", "palette"), _where, _find)
