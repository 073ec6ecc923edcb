"""`ureg edit`: change a record in an editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import click

from universal_registry.cli.command import Example, command, namespace_option, result_option
from universal_registry.cli.documents import read_documents
from universal_registry.cli.foretelling import dry_run_option, foretell, operation
from universal_registry.cli.output import json_text, tell, write
from universal_registry.cli.records import fetch, key_text, split_reference
from universal_registry.cli.session import note, session, warn
from universal_registry.cli.set import guard
from universal_registry.cli.yamltext import yaml_text
from universal_registry.client.http import record_path
from universal_registry.environment import environment
from universal_registry.kernel.errors import Invalid, NotFound, RegistryError, UsageError

_OWN = ("kind", "namespace", "name", "meta")


@command(
    "edit",
    Example("ureg edit alias gs", "in $VISUAL, $EDITOR or vi"),
    Example("EDITOR='code --wait' ureg edit service/pay"),
)
@click.argument("kind")
@click.argument("name", required=False)
@namespace_option("Where; `default` if absent.")
@click.option("-m", "--message", metavar="TEXT", help="Why, for the log.")
@dry_run_option()
@result_option()
def edit(kind: str, name: str | None, namespace: str | None, message: str | None, dry_run: bool, output: str) -> None:
    """Change a record as YAML in an editor. What was saved is written when the editor ends, if anything was changed.

    Refused (5) when somebody else changed the record meanwhile. What is not taken, or was only foretold, is kept in a
    file, which is named.
    """
    kind, name = split_reference(kind, name)
    if name is None:
        raise UsageError("no NAME is given", hint="ureg edit KIND NAME")
    with session() as asked:
        found = fetch(asked, kind, name, namespace)
        before = {field: value for field, value in found.items() if field not in _OWN}
        draft = _Draft(found["kind"], yaml_text(before))
        with draft.kept_if_not_taken():
            after = draft.edited()
            if after == before:
                note("nothing was changed")
                return
            if dry_run:
                place = found["kind"], found["name"], found["namespace"]
                foretell(asked, [operation("put", *place, after, found["meta"]["revision"])], output)
                draft.keep()
                return
            answer = asked.request(
                "PUT",
                record_path(found["namespace"], found["kind"], found["name"]),
                query={"message": message},
                json=after,
                headers=guard(found["meta"]["revision"]),
            ).json()
    warn(answer["warnings"])
    if output == "json":
        write(json_text(answer, indent=2))
    else:
        tell(f"{key_text(answer['record'])} {answer['effect']}, revision {answer['revision']}")


class _Draft:
    """A file of ours alone that holds the text."""

    def __init__(self, kind: str, text: str) -> None:
        self._text = text
        self._is_kept = False
        descriptor, self._path = tempfile.mkstemp(prefix=f"ureg-{kind}-", suffix=".yaml")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)

    @contextmanager
    def kept_if_not_taken(self) -> Iterator[None]:
        """The file goes when what it holds was taken, or when nothing was written into it; else it stays, and is named,
        whatever has gone wrong."""
        try:
            yield
        except BaseException:
            if self._is_written():
                self.keep()
            else:
                self._remove()
            raise
        if not self._is_kept:
            self._remove()

    def keep(self) -> None:
        """The file stays, and is named."""
        self._is_kept = True
        note(f"what you wrote is kept in {self._path}")

    def _remove(self) -> None:
        with suppress(FileNotFoundError):  # an editor may have moved it away
            os.unlink(self._path)

    def _is_written(self) -> bool:
        try:
            with open(self._path, "rb") as file:
                return file.read() != self._text.encode()
        except OSError:
            return False

    def edited(self) -> dict[str, Any]:
        """What the file holds once the editor has ended. Raises Invalid, UsageError, NotFound, RegistryError."""
        words = _editor()
        try:
            code = subprocess.run([*words, self._path], check=False).returncode  # noqa: S603 - the user's own editor
        except OSError:
            raise NotFound(f"the editor {' '.join(words)!r:.80} cannot be run", hint="set EDITOR") from None
        if code != 0:
            raise RegistryError(f"the editor ended with {code}; nothing is stored")
        values = read_documents(self._path)
        if len(values) != 1 or not isinstance(values[0], dict):
            raise Invalid(f"{self._path} does not hold one record")
        return dict(values[0])


def _editor() -> list[str]:
    known = environment()
    said = known.get("VISUAL") or known.get("EDITOR") or "vi"
    try:
        words = shlex.split(said)
    except ValueError:
        words = []
    if not words:
        raise UsageError(f"the editor is {said!r:.80}, which is no command", hint="set EDITOR")
    return words
