"""`ureg completion`: what a shell needs to complete commands, made from the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib.resources import files

import click

from universal_registry.cli.command import Example, command
from universal_registry.cli.command_tree import Node, nodes
from universal_registry.cli.output import write

SHELLS = ("zsh", "bash", "fish")
_SIMPLE = re.compile(r"[A-Za-z0-9_./=-]+")


@command(
    "completion",
    Example("ureg completion bash > ~/.local/share/bash-completion/completions/ureg"),
    Example('ureg completion zsh > "${fpath[1]}/_ureg"'),
    Example("ureg completion fish > ~/.config/fish/completions/ureg.fish"),
    Example("source <(ureg completion bash)", "only in this shell"),
)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion of a shell: commands, options, kinds, and the names that the registry has.

    Names come from the daemon's socket with curl, and only without these from `ureg` itself.
    """
    write(script(shell))


def script(shell: str) -> str:
    """The whole script, without a line end."""
    text = (files("universal_registry.cli") / "completions" / f"ureg.{shell}").read_text(encoding="utf-8")
    tables = "\n".join(_fish_tables() if shell == "fish" else _tables(helped=shell == "zsh"))
    return text.replace("#@TABLES@", tables).rstrip("\n")


def _kinds() -> str:
    from universal_registry.registry.catalogue import load_catalogue

    return " ".join(load_catalogue().kinds)


def quoted(text: str) -> str:
    """As one word of any shell."""
    return text if _SIMPLE.fullmatch(text) else "'" + text.replace("'", "'\\''") + "'"


# --- bash and zsh: functions that answer in REPLY ---------------------------------------------------------------------


def _tables(*, helped: bool) -> Iterator[str]:
    """`helped`: words with what they mean, which bash does not show."""

    def line(word: str, text: str) -> str:
        return f"{word}:{text if helped else ''}"

    everything = list(nodes())
    yield f"_ureg_kinds={quoted(_kinds())}"
    yield from _function("_ureg_commands", everything, lambda node: "\n".join(line(*each) for each in node.inner))
    yield from _function(
        "_ureg_flags",
        everything,
        lambda node: "\n".join(line(word, flag.help) for flag in node.flags for word in flag.words),
    )
    yield "_ureg_takes() {\n  REPLY=\n  case $1 in"
    for node in everything:
        path = " ".join(("ureg", *node.path))
        by_source: dict[str, list[str]] = {}
        for flag in node.flags:
            if flag.takes:
                by_source.setdefault(flag.takes, []).extend(f"{path}:{word}" for word in flag.words)
        for source, places in by_source.items():
            yield f"    {'|'.join(map(quoted, places))}) REPLY={quoted(source)} ;;"
        for number, source in enumerate(node.operands):
            last = node.many and number == len(node.operands) - 1
            place = quoted(f"{path}:") + "[0-9]*" if last else quoted(f"{path}:{number}")
            yield f"    {place}) REPLY={quoted(source)} ;;"
    yield "  esac\n}"


def _function(name: str, everything: list[Node], said: Callable[[Node], str]) -> Iterator[str]:
    yield f"{name}() {{\n  REPLY=\n  case $1 in"
    for node in everything:
        if text := said(node):
            yield f"    {quoted(' '.join(('ureg', *node.path)))}) REPLY={quoted(text)} ;;"
    yield "  esac\n}"


# --- fish -------------------------------------------------------------------------------------------------------------


def _fish_tables() -> Iterator[str]:
    yield f"set -g __ureg_kinds {_kinds()}"
    for node in nodes():
        path = " ".join(("ureg", *node.path))
        here = f"-n {_fish(f'__ureg_at {_fish(path)}')}"
        if node.inner:
            yield f"set -ga __ureg_groups {_fish(path)}"
            words = " ".join(_fish(f"{path} {name}") for name, _ in node.inner)
            yield f"set -ga __ureg_paths {words}"
        for name, text in node.inner:
            yield f"complete -c ureg -f {here} -a {_fish(name)} -d {_fish(text)}"
        for flag in node.flags:
            yield f"complete -c ureg {here} {_fish_flag(flag.words)} {_fish_value(flag.takes)} -d {_fish(flag.help)}"
            if flag.takes:
                yield f"set -ga __ureg_valued {' '.join(_fish(f'{path}:{word}') for word in flag.words)}"
        for number, source in enumerate(node.operands):
            most = 999 if node.many and number == len(node.operands) - 1 else number
            where = f"-n {_fish(f'__ureg_at {_fish(path)} {number} {most}')}"
            yield f"complete -c ureg {where} {'-F' if source == 'files' else f'-f -a {_fish(_fish_source(source))}'}"


def _fish(text: str) -> str:
    return text if _SIMPLE.fullmatch(text) else "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _fish_flag(words: tuple[str, ...]) -> str:
    return " ".join(f"-l {word[2:]}" if word.startswith("--") else f"-s {word[1:]}" for word in words)


def _fish_value(takes: str) -> str:
    if not takes:
        return "-f"
    return "-r -F" if takes == "files" else f"-x -a {_fish(_fish_source(takes))}"


def _fish_source(source: str) -> str:
    if source.startswith("words "):
        return source.removeprefix("words ")
    return "" if source == "nothing" else f"(__ureg_{'kinds' if source == 'kinds' else 'named ' + source})"
