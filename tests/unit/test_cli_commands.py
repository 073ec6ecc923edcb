"""All commands: help begins with examples that are right, the table is true, mistakes are met, little is imported."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from universal_registry.cli.command import Command, Group
from universal_registry.cli.commands import ENTRIES
from universal_registry.cli.main import main
from universal_registry.cli.plain_get import parse
from universal_registry.cli.root import root
from universal_registry.cli.session import Session
from universal_registry.client.http import Reply
from universal_registry.kernel.errors import Unauthenticated, UsageError
from universal_registry.kernel.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def commands() -> Iterator[tuple[list[str], Command | Group]]:
    """Each command with its words, groups and the top included."""
    top = root()
    context = click.Context(top)
    yield [], top
    for name in top.list_commands(context):
        found = top.get_command(context, name)
        assert isinstance(found, Command | Group)
        yield from _with_its_own([name], found)


def _with_its_own(words: list[str], command: Command | Group) -> Iterator[tuple[list[str], Command | Group]]:
    yield words, command
    if isinstance(command, Group):
        for inner, each in command.commands.items():
            assert isinstance(each, Command | Group)
            yield from _with_its_own([*words, inner], each)


ALL = list(commands())


@pytest.mark.parametrize(("words", "command"), ALL, ids=[" ".join(words) or "ureg" for words, _ in ALL])
def test_help_begins_with_runnable_examples(
    words: list[str], command: Command | Group, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag in ("-h", "--help"):
        assert main([*words, flag]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        assert "ureg" in out.splitlines()[0].split("#")[0]
        assert "Usage: ureg" in out
        assert "\x1b" not in out
    assert command.examples


@pytest.mark.parametrize(
    "line", sorted({example.line for _, command in ALL for example in command.examples}), ids=lambda line: line[:60]
)
def test_every_example_is_understood(line: str) -> None:
    for part in re.split(r" \| | && ", line):
        if "ureg" not in part.split():  # another program's words, which may hold what looks like ours
            continue
        words = shlex.split(re.split(" >>? ", part)[0].removesuffix("&"))
        if words[0] != "ureg":
            continue
        command: click.Command = root()
        rest = words[1:]
        context: click.Context | None = None
        while isinstance(command, click.Group):
            context = click.Context(command, parent=context, info_name="ureg")
            _, found, rest = command.resolve_command(context, rest)
            assert found is not None
            command = found
        command.make_context(command.name, list(rest), parent=context)


def test_the_table_names_what_is_there() -> None:
    for entry, (words, command) in zip(ENTRIES, [each for each in ALL if len(each[0]) == 1], strict=True):
        assert words == [entry.name] == [command.name]
        assert command.help or command.callback


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gte"], "did you mean 'get'"),
        (["target", "lst"], "did you mean 'ls'"),
        (["zzzzzz"], "--help` lists them"),
        (["get", "alias", "--outptu", "json"], "--output"),
        (["get"], "KIND"),
        (["set", "alias"], "NAME"),
        (["unidirectional", "--source", "a"], "no target"),
        (["x" * 5000], "no command"),
        (["get", "alias", "-o", "xml"], "xml"),
        (["--nope"], "--nope"),
    ],
)
def test_mistakes_are_one_line_and_say_what_was_meant(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as caught:
        main(words)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def imported_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules), file=sys.stderr)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stderr.split())


HEAVY = {"aiohttp", "asyncio", "ruamel", "cryptography", "apsw", "orjson", "msgspec", "universal_registry.app"}


def test_help_imports_no_command_and_nothing_heavy() -> None:
    found = imported_by("from universal_registry.cli.main import main; main(['--help'])")
    assert not found & HEAVY
    assert "universal_registry.cli.set" not in found


def test_a_plain_get_does_without_click() -> None:
    code = "from universal_registry.cli.plain_get import parse; parse(['alias']); import universal_registry.cli.getting"
    found = imported_by(code)
    assert not found & (HEAVY | {"click", "urllib.request", "http", "shutil", "subprocess"})


PLAIN = ["", "alias", "gs", "a/b", "-", "--", "-o", "--output", "json", "name", "xml", "-n", "--namespace", "h"]
WORDS = st.sampled_from([*PLAIN, "-l", "-ojson", "--output=json", "--home", "-h", "-rf"])


@given(st.lists(WORDS, max_size=6))
def test_the_plain_form_of_get_is_read_as_click_reads_it(words: list[str]) -> None:
    question = parse(words)
    if question is None:
        return
    context = click.Context(root())
    command = root().get_command(context, "get")
    assert command is not None
    params = command.make_context("get", list(words)).params
    assert (params["kind"], params["name"], params["namespace"], params["output"]) == question[:4]
    assert not any(params[each] for each in ("globs", "classes", "labels", "fields", "selectors"))


def test_who_may_not_come_in_is_told_what_to_do_at_a_command_line() -> None:
    class Closed:
        def request(self, *_: object, **__: object) -> Reply:
            raise Unauthenticated("a token is needed", hint="send a header")

        def close(self) -> None:
            """Nothing is open."""

    asked = Session(Settings(home=Path("/x")), Closed(), "127.0.0.1:1")
    for ask in (lambda: asked.read("/v1/-/kinds"), lambda: list(asked.lines("/v1/-/export", {}))):
        with pytest.raises(Unauthenticated, match="as the user whose daemon this is, or as root"):
            ask()
