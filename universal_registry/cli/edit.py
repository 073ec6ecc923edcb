"""`ureg edit`: change a record in an editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from typing import Any

import click

from universal_registry.cli.command import Example, command, namespace_option, result_option
from universal_registry.cli.documents import read_documents
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
@result_option()
def edit(kind: str, name: str | None, namespace: str | None, message: str | None, output: str) -> None:
    """Change a record as YAML in an editor. What was saved is written when the editor ends, if anything was changed.

    Refused (5) when somebody else changed the record meanwhile. What is not taken is kept in a file, which is named.
    """
    kind, name = split_reference(kind, name)
    if name is None:
        raise UsageError("no NAME is given", hint="ureg edit KIND NAME")
    with session() as asked:
        found = fetch(asked, kind, name, namespace)
        before = {field: value for field, value in found.items() if field not in _OWN}
        path = _draft(found["kind"], yaml_text(before))
        after = _edited(path)
        if after == before:
            os.unlink(path)
            note("nothing was changed")
            return
        try:
            answer = asked.request(
                "PUT",
                record_path(found["namespace"], found["kind"], found["name"]),
                query={"message": message},
                json=after,
                headers=guard(found["meta"]["revision"]),
            ).json()
        except RegistryError:
            note(f"what you wrote is kept in {path}")
            raise
    os.unlink(path)
    warn(answer["warnings"])
    if output == "json":
        write(json_text(answer, indent=2))
    else:
        tell(f"{key_text(answer['record'])} {answer['effect']}, revision {answer['revision']}")


def _draft(kind: str, text: str) -> str:
    """A file of ours alone that holds the text."""
    descriptor, path = tempfile.mkstemp(prefix=f"ureg-{kind}-", suffix=".yaml")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _edited(path: str) -> dict[str, Any]:
    """What the file holds once the editor has ended. Raises Invalid, UsageError, NotFound; then the file is kept."""
    known = environment()
    words = shlex.split(known.get("VISUAL") or known.get("EDITOR") or "vi")
    try:
        code = subprocess.run([*words, path], check=False).returncode  # noqa: S603 - the user's own editor
    except (OSError, IndexError):
        raise NotFound(f"the editor {' '.join(words)!r:.80} cannot be run", hint="set EDITOR") from None
    if code != 0:
        os.unlink(path)
        raise RegistryError(f"the editor ended with {code}; nothing is written")
    try:
        values = read_documents(path)
        if len(values) != 1 or not isinstance(values[0], dict):
            raise Invalid(f"{path} does not hold one record")
    except RegistryError:
        note(f"what you wrote is kept in {path}")
        raise
    return dict(values[0])
