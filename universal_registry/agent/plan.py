"""The plan of a machine: which records go where, and what may be run. A local file, and the only word on that."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

from universal_registry.agent.members import KIND as SERVER_KIND
from universal_registry.agent.places import Places, Root, check_text, make_root
from universal_registry.agent.texts import WRITTEN
from universal_registry.kernel.errors import Invalid, Refused, RegistryError
from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.kernel.visible import escaped
from universal_registry.registry.catalogue import Catalogue
from universal_registry.registry.selector import Selector, parse_selector

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
OF_RECORD = "record"
"""Instead of a path: each record names its own."""
LINK_KIND = "symlink"
_MODE = re.compile(r"0?[0-7]{3}")
_COMMENT = re.compile(r"[#;\"/%-]{1,3}")
_NAME_IN_PATH = "{name}"
_FILE = "{file}"


class Form(StrEnum):
    """How records stand: as a whole file, as a marked block among lines of others, as members of an object in a JSON
    file, beside those of others, as symbolic links."""

    FILE = "file"
    BLOCK = "block"
    MEMBERS = "members"
    LINK = "link"

    @property
    def is_shared(self) -> bool:
        """Whether others have something in the same file."""
        return self in (Form.BLOCK, Form.MEMBERS)


class _Said(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An entry as it is written."""

    select: str | list[str]
    path: str
    form: Form = msgspec.field(default=Form.FILE, name="as")
    mode: str | None = None
    comment: str = "#"
    member: str = "mcpServers"
    check: list[str] = []
    reload: list[str] = []
    health: list[str] = []
    health_within: float = 10.0


class _SaidPlan(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    roots: list[str]
    entries: dict[str, _Said]
    name: str = ""
    link_roots: list[str] = []
    timeout: float = 30.0


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Records that `selector` selects stand as `form` at `path`: each where it says itself (OF_RECORD), each at its own
    (with `{name}` in it), or all in one. `member`: of the file's object, that MEMBERS stand in. `check`, `reload`,
    `health`: commands as lists of words; empty: none."""

    name: str
    terms: tuple[str, ...]
    selector: Selector
    path: str
    form: Form
    mode: int | None
    comment: str
    member: str
    check: tuple[str, ...]
    reload: tuple[str, ...]
    health: tuple[str, ...]
    health_within: float

    @property
    def is_each(self) -> bool:
        """Whether each record has a place of its own."""
        return self.path == OF_RECORD or _NAME_IN_PATH in self.path

    def path_of(self, name: str) -> str:
        """The path of a record of that name, of an entry with `{name}`. Raises Invalid when it is no name of a file."""
        if name in ("", ".", "..") or "/" in name or name.startswith("."):
            raise Invalid(f"{escaped(name)[:60]!r} cannot be the name of a file here")
        return self.path.replace(_NAME_IN_PATH, name)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """`name`: of the machine, as the registry is told it. `timeout`: seconds for each command."""

    name: str
    roots: tuple[Root, ...]
    link_roots: tuple[Root, ...]
    entries: tuple[Entry, ...]
    timeout: float

    def terms(self) -> list[str]:
        """A selector of what any entry may select, for one watch: the kinds."""
        kinds = sorted({kind for entry in self.entries for kind in entry.selector.kinds})
        spaces = {space for entry in self.entries for space in entry.selector.namespaces or ("",)}
        named = [] if "" in spaces else sorted(spaces)
        return [*(f"kind={kind}" for kind in kinds), *(f"namespace={space}" for space in named)]


def read_plan(document: Any, *, home: str, host: str, catalogue: Catalogue) -> Plan:
    """The plan of a document. `home`: what `~` is. Raises Invalid and Refused, which say what cannot be followed."""
    try:
        said = msgspec.convert(document, _SaidPlan)
    except msgspec.ValidationError as error:
        raise Invalid(f"the plan cannot be read: {error}", hint="docs/how-to/agent.md shows one") from None
    name = said.name or host
    if not NAME.fullmatch(name):
        raise Invalid(
            f"the machine's name {escaped(name)[:60]!r} cannot be used", hint="`name:` in the plan says another"
        )
    if not said.entries or not said.roots:
        raise Invalid("the plan has no roots or no entries", hint="docs/how-to/agent.md shows one")
    if not 0 < said.timeout <= 3600:
        raise Invalid(f"timeout is {said.timeout:g}", hint="seconds, more than 0 and at most 3600")
    roots = tuple(make_root(root, home) for root in said.roots)
    links = tuple(make_root(root, home) for root in said.link_roots)
    entries = tuple(_placed(each, body, home, catalogue) for each, body in said.entries.items())
    _check_paths(entries, Places(roots, ()))
    return Plan(name=name, roots=roots, link_roots=links, entries=entries, timeout=said.timeout)


def _placed(name: str, said: _Said, home: str, catalogue: Catalogue) -> Entry:
    try:
        return _entry(name, said, home, catalogue)
    except RegistryError as error:
        raise type(error)(f"entry {escaped(name)[:60]}: {error.message}", hint=error.hint) from None


def _entry(name: str, said: _Said, home: str, catalogue: Catalogue) -> Entry:
    if not NAME.fullmatch(name):
        raise Invalid("its name cannot be used", hint="letters, digits and . _ -, a letter or digit first")
    terms = (said.select,) if isinstance(said.select, str) else tuple(said.select)
    selector = parse_selector(list(terms), catalogue)
    _check_kinds(selector, said.form)
    path = check_text(said.path, "its path")
    if path != OF_RECORD:
        path = home + path[1:] if path.startswith("~/") else path
        if not os.path.isabs(path):
            raise Invalid(f"its path {path} is neither whole nor `record`", hint="from / or ~/ on")
    elif said.form.is_shared or not {*selector.kinds} <= {"config_file", LINK_KIND}:
        raise Invalid("only files and links are put where their records say", hint="give a path")
    if said.form is Form.LINK and path != OF_RECORD and _NAME_IN_PATH not in path:
        raise Invalid("each link needs a path of its own", hint="`path: record`, or {name} in the path")
    if not _COMMENT.fullmatch(said.comment):
        raise Invalid(f"comment is {escaped(said.comment)[:20]!r}", hint="what begins a comment in that file, as #")
    if not 0 <= said.health_within <= 3600:
        raise Invalid(f"health_within is {said.health_within:g}", hint="seconds, 0 to 3600")
    if said.form is Form.LINK and (said.check or said.mode):
        raise Invalid("a link has neither a check nor a mode", hint="reload and health are run for it")
    return Entry(
        name=name,
        terms=terms,
        selector=selector,
        path=path,
        form=said.form,
        mode=_mode(said.mode),
        comment=said.comment,
        member=check_text(said.member, "its member"),
        check=_command(said.check, "check"),
        reload=_command(said.reload, "reload"),
        health=_command(said.health, "health"),
        health_within=said.health_within,
    )


def _check_kinds(selector: Selector, form: Form) -> None:
    fit = {Form.LINK: {LINK_KIND}, Form.MEMBERS: {SERVER_KIND}}.get(form, WRITTEN)
    unfit = {*selector.kinds} - fit
    if unfit or not selector.kinds:
        what = f"{min(unfit)} is no kind" if unfit else "it selects no kind of record"
        raise Invalid(f"{what} for `as: {form}`", hint="kind=" + ", kind=".join(sorted(fit)))
    if SYSTEM_NAMESPACE in selector.namespaces:
        raise Invalid(f"records of namespace {SYSTEM_NAMESPACE} are the registry's own")


def _mode(text: str | None) -> int | None:
    if text is None:
        return None
    if not _MODE.fullmatch(text) or int(text, 8) & 0o002:
        raise Invalid(
            f"mode {escaped(text)[:20]!r} cannot be used", hint='as "0644"; not such that everybody may write'
        )
    return int(text, 8)


def _command(words: list[str], what: str) -> tuple[str, ...]:
    if any("\0" in word for word in words) or (words and not words[0]):
        raise Invalid(f"{what} is no list of words to run")
    if what != "check" and _FILE in words:
        raise Invalid(f"{what} is run when the file is in its place", hint="{file} is for check: the file to be")
    return tuple(words)


def _check_paths(entries: tuple[Entry, ...], places: Places) -> None:
    """Each is below a root. One path may have several entries of a form that is shared, and else one."""
    known: dict[Path, Entry] = {}
    for entry in entries:
        if entry.path == OF_RECORD:
            continue
        try:
            path = places.place(entry.path)
        except Refused as error:
            raise Refused(f"entry {entry.name}: {error.message}", hint="`roots:` in the plan allows folders") from None
        other = known.setdefault(path, entry)
        if other is not entry and not (entry.form is other.form and entry.form.is_shared):
            raise Invalid(
                f"entries {other.name} and {entry.name} are for one path: {entry.path}", hint="one of the two"
            )


def words_for(words: tuple[str, ...], draft: str) -> list[str]:
    """The words of a check, with the path of the file to be in them."""
    return [word.replace(_FILE, draft) for word in words]
