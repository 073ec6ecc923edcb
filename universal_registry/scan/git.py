"""Git repositories below the given folders (`repository`), named by the path of their work tree.

Only `config`, `HEAD` and refs are read. Credentials in addresses are stripped. The search does not follow links, does
not look inside a repository for further ones, and is bounded in depth and number.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator

from universal_registry.scan.base import Found, Machine, Source, SourceReader
from universal_registry.scan.secrets import without_credentials

_DEPTH = 6
_FOLDERS = 50_000
_CONFIG_BYTES = 1 << 20
_REFS_BYTES = 64 << 20
_REF_BYTES = 4096
_NOT_INTO = frozenset(
    {"node_modules", "__pycache__", "site-packages", "lost+found", ".cache", ".venv", ".tox", ".npm", ".Trash"}
)
_NOT_BELOW = frozenset({"/proc", "/sys", "/dev", "/run"})
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SECTION = re.compile(r'\[\s*([A-Za-z0-9.-]+)\s*(?:"((?:[^"\\]|\\.)*)"\s*)?\]\s*(.*)')


def _where(machine: Machine) -> list[str]:
    return [f"{machine.logical(folder).rstrip('/')}/**/.git" for folder in machine.folders]


def _find(source: Source) -> Iterator[Found]:
    machine = source.machine
    queue = deque((machine.logical(folder), 0) for folder in machine.folders)
    seen: set[str] = set()
    while queue:
        path, depth = queue.popleft()
        if path in seen:
            continue
        if len(seen) >= _FOLDERS:
            source.skip(f"more than {_FOLDERS} folders to search; the rest is left out", path)
            return
        seen.add(path)
        entries = source.entries(path)
        git = next((entry for entry in entries if entry.name == ".git"), None)
        if git is not None:
            yield from _repository(source, path)
            continue
        if {"HEAD", "objects", "refs", "config"} <= {entry.name for entry in entries}:
            yield from _bare(source, path)
            continue
        if depth < _DEPTH:
            queue.extend((f"{path.rstrip('/')}/{name}", depth + 1) for name in _inner(path, entries))


def _inner(path: str, entries: list[os.DirEntry[str]]) -> Iterator[str]:
    for entry in entries:
        try:
            folder = entry.is_dir(follow_symlinks=False)
        except OSError:
            continue
        if folder and entry.name not in _NOT_INTO and f"{path.rstrip('/')}/{entry.name}" not in _NOT_BELOW:
            yield entry.name


def _repository(source: Source, path: str) -> Iterator[Found]:
    folder = common = f"{path.rstrip('/')}/.git"
    info = source.link(folder)
    pointer = source.stat(folder)
    if info is None and pointer is not None and pointer.st_size and not source.stat(f"{folder}/HEAD"):
        match = re.match(r"gitdir: *(.+)", (source.head(folder, _REF_BYTES) or b"").decode("utf-8", "replace"))
        if not match:
            source.skip("not a git folder, and no pointer to one", folder)
            return
        folder = common = os.path.normpath(os.path.join(path, match[1].strip()))
        shared = (source.head(f"{folder}/commondir", _REF_BYTES) or b"").decode("utf-8", "replace").strip()
        common = os.path.normpath(os.path.join(folder, shared)) if shared else folder
    yield from _describe(source, path, folder, common)


def _bare(source: Source, path: str) -> Iterator[Found]:
    yield from _describe(source, path, path, path)


def _describe(source: Source, path: str, folder: str, common: str) -> Iterator[Found]:
    remotes = _remotes(source.text(f"{common}/config", _CONFIG_BYTES) or "")
    branch, commit = _head(source, folder, common)
    first = next(iter(remotes.values()), None)
    spec = {
        "url": remotes.get("origin", first),
        "path": path,
        "branch": branch,
        "commit": commit,
        "remotes": remotes or None,
    }
    yield from source.found("repository", path, "GitRepository", spec, path.rpartition("/")[2])


def _head(source: Source, folder: str, common: str) -> tuple[str | None, str | None]:
    """Branch and commit. Either may be unknown: detached, or not born yet."""
    text = (source.head(f"{folder}/HEAD", _REF_BYTES) or b"").decode("utf-8", "replace").strip()
    if _COMMIT.fullmatch(text):
        return None, text
    ref = text.removeprefix("ref:").strip()
    if not text.startswith("ref:") or not ref.startswith("refs/") or ".." in ref:
        return None, None
    loose = (source.head(f"{common}/{ref}", _REF_BYTES) or b"").decode("utf-8", "replace").strip()
    commit = loose if _COMMIT.fullmatch(loose) else _packed(source, common, ref)
    return ref.removeprefix("refs/heads/"), commit


def _packed(source: Source, common: str, ref: str) -> str | None:
    for line in (source.text(f"{common}/packed-refs", _REFS_BYTES) or "").split("\n"):
        commit, _, name = line.partition(" ")
        if name == ref and _COMMIT.fullmatch(commit):
            return commit
    return None


def _remotes(config: str) -> dict[str, str]:
    """Remote -> its first address, without credentials, sorted by name."""
    found: dict[str, str] = {}
    section, name = "", ""
    for line in re.sub(r"\\\n", "", config).split("\n"):
        line = line.strip()
        if match := _SECTION.match(line):
            section, name = match[1].lower(), re.sub(r"\\(.)", r"\1", match[2] or "")
            line = match[3]
        key, equals, value = (part.strip() for part in line.partition("="))
        if section == "remote" and name and equals and key.lower() == "url" and name not in found:
            found[name] = without_credentials(_value(value))
    return dict(sorted(found.items()))


def _value(text: str) -> str:
    """A configuration value: comments off, quotes off, escapes undone."""
    out, quoted = [], False
    for part in re.findall(r'\\.|"|[^\\"#;]+|[#;\\]', text):
        if part == '"':
            quoted = not quoted
        elif part in "#;" and not quoted:
            break
        else:
            out.append({"\\n": "\n", "\\t": "\t"}.get(part, part[-1]) if part.startswith("\\") else part)
    return "".join(out).strip()


READER = SourceReader("git", "git repositories below the given folders", ("repository",), _where, _find)
