"""man.py FOLDER: writes ureg(1), and a page for each of its commands, from the commands themselves."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from textwrap import wrap

import click

from universal_registry import __version__
from universal_registry.cli.command_tree import Node, nodes
from universal_registry.cli.root import root


def main(folder: Path) -> None:
    """Write all pages into the folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for _, group in groupby(nodes(), key=lambda node: node.path[:1]):
        first, *inner = group
        text = "".join(f"{line}\n" for line in page(first, inner))
        (folder / f"{title(first)}.1").write_text(text, encoding="utf-8")


def title(node: Node) -> str:
    """`ureg-get`."""
    return "-".join(("ureg", *node.path[:1]))


def page(node: Node, inner: Iterable[Node]) -> Iterator[str]:
    """The lines of a page, in roff."""
    yield f'.TH {title(node).upper()} 1 "" "Universal Registry {__version__}" "Universal Registry"'
    yield ".SH NAME"
    yield from prose(f"{title(node)} - {node.help}")
    yield ".SH SYNOPSIS"
    yield from list(synopsis(node))[:-1]
    yield ".SH DESCRIPTION"
    yield from paragraphs(node.command.help or node.help)
    yield from options(node, ".SH OPTIONS")
    if not node.path:
        yield ".SH COMMANDS"
        for name, does in node.inner:
            yield from entry(f"ureg {name}", does)
    for each in inner:
        yield f".SH {safe(' '.join(('ureg', *each.path)).upper())}"
        yield from synopsis(each)
        yield from paragraphs(each.command.help or each.help)
        yield from options(each, ".PP\nOptions:")
        yield from examples(each, ".PP\nExamples:")
    yield from examples(node, ".SH EXAMPLES")
    yield ".SH EXIT STATUS"
    yield from prose((root().epilog or "").removeprefix("Exit codes: "))
    if node.path:
        yield ".SH SEE ALSO"
        yield ".BR ureg (1)"


def synopsis(node: Node) -> Iterator[str]:
    """How the command is written."""
    pieces = node.command.collect_usage_pieces(click.Context(node.command))
    yield f".B {safe(' '.join(('ureg', *node.path)))}"
    yield safe(" ".join(pieces))
    yield ".PP"


def options(node: Node, head: str) -> Iterator[str]:
    """The options, after a heading."""
    yield head
    for flag in node.flags:
        yield from entry(", ".join(flag.words) + (f" {flag.metavar}" if flag.metavar else ""), flag.help)


def examples(node: Node, head: str) -> Iterator[str]:
    """Lines that can be run, after a heading; nothing where there are none."""
    if not node.command.examples:
        return
    yield head
    for line, does in node.command.examples:
        yield from entry(line, does)


def entry(term: str, text: str) -> Iterator[str]:
    """A word, and what it means."""
    yield ".TP"
    yield f".B {safe(term)}"
    yield from prose(text or "\u00a0")


def paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a help text."""
    for number, each in enumerate(text.replace("\b", "").split("\n\n")):
        if number:
            yield ".PP"
        yield from prose(each)


def prose(text: str) -> Iterator[str]:
    """Text in lines of a length that roff likes."""
    yield from map(guarded, wrap(escaped(text), 78, break_long_words=False, break_on_hyphens=False))


def one_line(text: str) -> str:
    """The text without its line breaks."""
    return " ".join(text.split())


def safe(text: str) -> str:
    """The text as roff shows it."""
    return guarded(escaped(text))


def escaped(text: str) -> str:
    """Without roff's escapes, and with hyphens and quotes that can be copied."""
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")


def guarded(line: str) -> str:
    """A line that is none of roff's requests."""
    return f"\\&{line}" if line.startswith((".", "'")) else line


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: man.py FOLDER")
    main(Path(sys.argv[1]))
