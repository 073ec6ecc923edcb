"""Hosts of the ssh client's configuration (`host_alias`, plain name).

As in ssh, the first value obtained for an option counts, over every `Host` block that matches the alias. A `Match`
block is left out, since deciding it may run a program. Paths of keys are recorded, keys are never opened.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

from universal_registry.scan.base import Found, Machine, Source, SourceReader, brief, whole

_SYSTEM = "/etc/ssh/ssh_config"
_FILES = 256
_DEPTH = 16
_MOST_WILD = 500
_WILD = re.compile(r"[*?!]")
_MOST_PORT = 65_535
_FILE_BYTES = 1 << 20
# Options without credentials and without commands.
_OPTIONS = frozenset(
    [
        "addressfamily",
        "addkeystoagent",
        "compression",
        "connecttimeout",
        "dynamicforward",
        "forwardagent",
        "forwardx11",
        "hostkeyalias",
        "identitiesonly",
        "localforward",
        "loglevel",
        "preferredauthentications",
        "proxyjump",
        "pubkeyauthentication",
        "remoteforward",
        "requesttty",
        "serveralivecountmax",
        "serveraliveinterval",
        "stricthostkeychecking",
        "tcpkeepalive",
        "updatehostkeys",
    ]
)


@dataclass(slots=True)
class _Config:
    """Blocks in file order, each with its host patterns (none: all hosts) and options; aliases with their file.

    `literal` finds the blocks that name an alias, `wild` holds those that a pattern decides.
    """

    blocks: list[tuple[tuple[str, ...], list[tuple[str, str]]]] = field(default_factory=list)
    literal: dict[str, list[int]] = field(default_factory=dict)
    wild: list[int] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    files: int = 0

    def begin(self, patterns: tuple[str, ...], path: str) -> None:
        """A block begins; what follows belongs to it."""
        number = len(self.blocks)
        self.blocks.append((patterns, []))
        if not patterns or any(_WILD.search(pattern) for pattern in patterns):
            self.wild.append(number)
        for name in patterns:
            if not _WILD.search(name):
                self.literal.setdefault(name, []).append(number)
                self.aliases.setdefault(name, path)

    def options(self, alias: str) -> Iterator[tuple[str, str]]:
        """The options that hold for an alias, in file order."""
        for number in sorted({*self.literal.get(alias, ()), *self.wild}):
            patterns, options = self.blocks[number]
            if _matches(alias, patterns):
                yield from options


def _where(machine: Machine) -> list[str]:
    return [machine.at_home(".ssh", "config"), _SYSTEM]


def _find(source: Source) -> Iterator[Found]:
    config = _Config()
    for path in _where(source.machine):
        config.begin((), path)
        _load(source, config, path, (), 0)
    if len(config.wild) > _MOST_WILD:
        source.skip(f"more than {_MOST_WILD} Host blocks with patterns", _where(source.machine)[0])
        return
    for alias in config.aliases:
        yield from _host(source, config, alias)


def _host(source: Source, config: _Config, alias: str) -> Iterator[Found]:
    first: dict[str, str] = {}
    for key, value in config.options(alias):
        first.setdefault(key, value)
    port = whole(first.get("port", ""), _MOST_PORT) or None
    if port is None and "port" in first:
        source.skip(f"{brief(first['port'], 20)!r} of ssh host {alias!r} is not a port", source.machine.at_home(".ssh"))
    spec = {
        "hostname": re.sub("%(.)", lambda m: {"h": alias, "%": "%"}.get(m[1], m[0]), first.get("hostname", alias)),
        "port": port,
        "user": first.get("user"),
        "identity_file": first.get("identityfile"),
        "file": config.aliases[alias],
        "options": {key: value for key, value in sorted(first.items()) if key in _OPTIONS} or None,
    }
    yield from source.found("host_alias", alias, "SshHostAlias", spec)


def _matches(alias: str, patterns: tuple[str, ...]) -> bool:
    if not patterns:
        return True
    if any(_fits(alias, pattern[1:]) for pattern in patterns if pattern.startswith("!")):
        return False
    return any(_fits(alias, pattern) for pattern in patterns if not pattern.startswith("!"))


def _fits(alias: str, pattern: str) -> bool:
    # Only * and ? are special to ssh; runs of * are joined, so that no pattern takes long.
    return fnmatch.fnmatchcase(alias, re.sub(r"\*+", "*", pattern).replace("[", "[[]"))


def _load(source: Source, config: _Config, path: str, patterns: tuple[str, ...], depth: int) -> None:
    config.files += 1
    if depth > _DEPTH or config.files > _FILES:
        source.skip("too many files included by the ssh configuration", path)
        return
    ignoring = False
    for number, line in enumerate((source.text(path, _FILE_BYTES) or "").split("\n"), 1):
        key, words = _words(source, path, number, line)
        if key == "host":
            patterns, ignoring = tuple(words), False
            config.begin(patterns, path)
        elif key == "match":
            patterns, ignoring = (), words != ["all"]
            config.begin((), path)
            if ignoring:
                source.skip(f"the Match block at line {number} is not evaluated", path)
        elif words and not ignoring and key == "include":
            for name in _included(source, path, words):
                _load(source, config, name, patterns, depth + 1)
            config.begin(patterns, path)
        elif words and not ignoring:
            config.blocks[-1][1].append((key, " ".join(words)))


def _words(source: Source, path: str, number: int, line: str) -> tuple[str, list[str]]:
    match = re.fullmatch(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*?)\s*", line)
    if not match:
        return "", []
    try:
        return match[1].lower(), shlex.split(match[2], comments=True)
    except ValueError:
        source.skip(f"line {number} has a quote that is not closed", path)
        return "", []


def _included(source: Source, path: str, words: list[str]) -> Iterator[str]:
    base = "/etc/ssh" if path.startswith("/etc/ssh/") else source.machine.at_home(".ssh")
    for word in words:
        pattern = source.machine.at_home(word[2:]) if word.startswith("~/") else os.path.join(base, word)
        folder, _, last = os.path.normpath(pattern).rpartition("/")
        if re.search(r"[*?\[]", folder):
            source.skip("an Include with a pattern in its folder is not followed", pattern)
        elif re.search(r"[*?\[]", last):
            yield from (f"{folder}/{name}" for name in fnmatch.filter(source.names(folder), last))
        else:
            yield f"{folder}/{last}"


READER = SourceReader("ssh", "hosts of the ssh client configuration", ("host_alias",), _where, _find)
