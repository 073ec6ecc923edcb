"""What all commands share: help that begins with examples, `--home`, errors in one line with what was meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import click

from universal_registry.cli.contexts import CONTEXT, HOME
from universal_registry.cli.getting import FORMS as OUTPUTS
from universal_registry.cli.output import QUERY

HELP_NAMES = ["-h", "--help"]
_WIDTH = 100


class Example(NamedTuple):
    """A line that can be run as it stands, and what it does."""

    line: str
    does: str = ""


def _set_home(_context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        HOME.set(value)


def _set_context(_context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        CONTEXT.set(value)


def place_options() -> list[click.Parameter]:
    """`--home` and `--context`, which every command takes."""
    return [
        click.Option(
            ["--home"], metavar="FOLDER", expose_value=False, callback=_set_home, help="The registry's folder."
        ),
        click.Option(
            ["--context"],
            metavar="NAME",
            expose_value=False,
            callback=_set_context,
            help="The registry of that name, see `ureg context`.",
        ),
    ]


class Command(click.Command):
    """A command with examples. `valued`: options whose value may be left out (`--wait`), and what stands for it."""

    def __init__(self, *args: Any, examples: Sequence[Example] = (), valued: dict[str, str] | None = None, **more: Any):
        more.setdefault("context_settings", {})
        more["context_settings"] = {"help_option_names": HELP_NAMES, "max_content_width": _WIDTH} | more[
            "context_settings"
        ]
        super().__init__(*args, **more)
        self.examples = tuple(examples)
        self._valued = valued or {}
        self.params += place_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`--wait` alone must not eat the word after it."""
        upto = args.index("--") if "--" in args else len(args)
        filled = [f"{word}={self._valued[word]}" if word in self._valued else word for word in args[:upto]]
        return super().parse_args(ctx, filled + args[upto:])

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)
        super().format_help(ctx, formatter)


class Group(click.Group):
    """A command of commands (`target add`)."""

    command_class = Command

    def __init__(self, *args: Any, examples: Sequence[Example] = (), **more: Any) -> None:
        more["context_settings"] = {"help_option_names": HELP_NAMES, "max_content_width": _WIDTH}
        super().__init__(*args, **more)
        self.examples = tuple(examples)
        self.params += place_options()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Called without a word it shows its help."""
        if not args and not ctx.resilient_parsing:
            print(ctx.get_help())
            ctx.exit()
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if self.get_command(ctx, word) is None and not word.startswith("-"):
            raise unknown_command(ctx, word, self.list_commands(ctx))
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)
        super().format_help(ctx, formatter)


def unknown_command(ctx: click.Context, word: str, known: list[str]) -> click.UsageError:
    """The error for a word that is no command, with what may have been meant."""
    from difflib import get_close_matches

    from universal_registry.registry.words import shown

    guesses = get_close_matches(word.lower(), known, n=1, cutoff=0.6) if len(word) <= 64 else []
    path = ctx.command_path
    hint = f"did you mean {guesses[0]!r}?" if guesses else f"`{path} --help` lists them"
    return click.UsageError(f"{path} has no command {shown(word)} ({hint})", ctx)


def write_examples(formatter: click.HelpFormatter, examples: Sequence[Example]) -> None:
    """The examples, before anything else."""
    if examples:
        width = max((len(example.line) for example in examples if example.does), default=0)
        for line, does in examples:
            formatter.write(f"  {line:<{width}}  # {does}\n" if does else f"  {line}\n")
        formatter.write("\n")


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def command(
    name: str, *examples: Example, valued: dict[str, str] | None = None, **more: Any
) -> Callable[[Callable[..., Any]], Command]:
    """`@click.command` of ours."""
    return click.command(name, cls=Command, examples=examples, valued=valued, **more)


def options(*each: Decorator) -> Decorator:
    """Several options as one decorator, in the order in which help shows them."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(each):
            function = option(function)
        return function

    return decorate


def output_option(*outputs: str, default: str = "table") -> Decorator:
    """`-o` and `--query`: how what was read is written."""
    form = click.option(
        "-o", "--output", type=click.Choice(outputs or OUTPUTS), default=default, show_default=True, help="The form."
    )
    query = click.option(
        "--query",
        metavar="EXPRESSION",
        expose_value=False,
        callback=_set_query,
        help="Write what this JMESPath expression makes of the JSON.",
    )
    return lambda function: form(query(function))


def _set_query(_context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        from universal_registry.cli.querying import check

        check(value)
    QUERY.set(value)


def answer_option() -> Decorator:
    """`-o` and `--query` of commands that read one answer: told in words, or as the value."""
    return output_option("text", "json", default="text")


def namespace_option(help_text: str) -> Decorator:
    """`-n`."""
    return click.option("-n", "--namespace", metavar="NAMESPACE", help=help_text)


def result_option() -> Decorator:
    """`-o` of commands that write: one line for people, or the answer as JSON."""
    return click.option("-o", "--output", type=click.Choice(("text", "json")), default="text", help="The form.")
