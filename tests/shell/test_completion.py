"""`ureg completion`: real shells complete commands, options, kinds and names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHELLS = ("bash", "zsh", "fish")
_BASH = """
source "$1"; shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_ureg_complete
printf '%s\\n' "${COMPREPLY[@]}"
"""
# The function itself in a real zsh; what it gives to the completion system is printed.
_ZSH = """
file=$1; shift
_describe() { print -rl -- ${(P)argv[-1]} }
compadd() { shift; print -rl -- "$@" }
compdef() { : }
words=("$@") CURRENT=$#
source $file
_ureg
"""


class Place:
    """A home with three aliases, `ureg` on the path, and the scripts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {
            "HOME": str(folder),
            "REGISTRY_HOME": str(folder / "h"),
            "REGISTRY_LISTEN": "",
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "LANG": "C.UTF-8",
            "TERM": "dumb",
        }
        (folder / "bin").mkdir()
        self.calls = folder / "calls"
        command = folder / "bin" / "ureg"
        command.write_text(
            f'#!/bin/sh\necho "$@" >> {self.calls}\nexec {sys.executable} -P -m universal_registry "$@"\n'
        )
        command.chmod(0o755)
        self.ureg("init")
        for name in ("gs", "gl", "a b"):
            self.ureg("set", "alias", name, "command=x")
        for shell in SHELLS:
            (folder / f"ureg.{shell}").write_text(self.ureg("completion", shell))
        self.calls.write_text("")

    def ureg(self, *words: str) -> str:
        return self.run("ureg", *words)

    def run(self, *words: str) -> str:
        done = subprocess.run(words, env=self.environ, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
        return done.stdout

    def complete(self, shell: str, line: str) -> list[str]:
        """What the shell offers at the end of the line."""
        if shutil.which(shell) is None:
            pytest.skip(f"{shell} is not installed")
        file = str(self.folder / f"ureg.{shell}")
        if shell == "bash":
            return self.run("bash", "-c", _BASH, "bash", file, *line.split(" ")).splitlines()
        if shell == "fish":
            found = self.run("fish", "--no-config", "-c", f"source {file}; complete -C '{line}'")
            return [each.split("\t")[0] for each in found.splitlines()]
        found = self.run("zsh", "-f", "-c", _ZSH, "zsh", file, *line.split(" ")).splitlines()
        return [each.split(":")[0] for each in found if each.startswith(line.rpartition(" ")[2])]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    if (tmp_path / "h" / "run" / "address").exists():
        made.ureg("down")


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_options_kinds_and_names(place: Place, shell: str) -> None:
    for line, offered, not_offered in (
        ("ureg tar", "target", "get"),
        ("ureg target a", "add", "ls"),
        ("ureg undo --dr", "--dry-run", "--home"),
        ("ureg get pal", "palette", "alias"),
        ("ureg get alias -o n", "ndjson", "yaml"),
        ("ureg get alias g", "gl", "target"),
        ("ureg completion f", "fish", "bash"),
    ):
        found = place.complete(shell, line)
        assert offered in found, (line, found)
        assert not_offered not in found, (line, found)


@pytest.mark.parametrize("shell", SHELLS)
def test_names_come_from_the_socket_without_a_python(place: Place, shell: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    place.ureg("up")
    place.calls.write_text("")
    found = place.complete(shell, "ureg get alias g")
    assert {"gs", "gl"} <= set(found)
    assert place.calls.read_text() == ""


def test_scripts_are_sound() -> None:
    from universal_registry.cli.completion import script

    for shell in SHELLS:
        if shutil.which(shell) is not None:
            done = subprocess.run([shell, "-n"], input=script(shell), capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, ""), shell
