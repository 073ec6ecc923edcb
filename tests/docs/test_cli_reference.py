"""docs/reference/cli.md and the commands say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from universal_registry.cli.commands import ENTRIES
from universal_registry.cli.getting import FORMS
from universal_registry.cli.root import root
from universal_registry.kernel.errors import RegistryError

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^#{3,4} (ureg [^\n]+)\n(.*?)(?=^#{2,4} |\Z)", PAGE, re.MULTILINE | re.DOTALL))


def commands() -> Iterator[tuple[str, click.Command]]:
    top = root()
    for entry in ENTRIES:
        found = top.get_command(click.Context(top), entry.name)
        assert found is not None
        if entry.help.startswith("("):
            continue
        yield from _with_its_own(f"ureg {entry.name}", found)


def _with_its_own(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        for word, each in command.commands.items():
            yield from _with_its_own(f"{name} {word}", each)


ALL = dict(commands())


def test_each_command_has_its_section_and_each_section_its_command() -> None:
    assert list(SECTIONS) == list(ALL)


@pytest.mark.parametrize("name", ALL)
def test_a_section_says_what_the_command_says(name: str) -> None:
    command, section = ALL[name], SECTIONS[name]
    assert " ".join((command.help or "").split()) in section
    options = {
        word
        for each in command.params
        if isinstance(each, click.Option) and not {"--home", "--context"} & set(each.opts)
        for word in each.opts
    }
    documented = {word for row in re.findall(r"^\| (`-.*?) \|", section, re.MULTILINE) for word in _flags(row)}
    assert documented == options
    if not isinstance(command, click.Group):
        for example in command.examples:  # type: ignore[attr-defined]
            assert example.line in section


def _flags(cell: str) -> list[str]:
    return [word.partition("=")[0] for word in re.findall(r"`(-[^`]*)`", cell)]


def test_what_is_not_built_is_said_to_be() -> None:
    unbuilt = PAGE.partition("## Not built yet")[2]
    for entry in ENTRIES:
        assert (f"`{entry.name}`" in unbuilt) is entry.help.startswith("(")


def test_every_exit_code_is_documented() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", PAGE, re.MULTILINE)}
    used = {each.exit_code for each in _tree(RegistryError)}
    assert documented == used | {0, 10, 130}


def _tree(base: type[RegistryError]) -> Iterator[type[RegistryError]]:
    yield base
    for each in base.__subclasses__():
        yield from _tree(each)


def test_every_form_is_documented() -> None:
    forms = PAGE.partition("### Forms")[2].partition("###")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", forms, re.MULTILINE)) == FORMS
