"""The command `ureg` itself: finds the command that was called, imports only that, and makes errors of usage ours."""

from __future__ import annotations

import importlib

import click

from universal_registry.cli.command import Command, Example, Group
from universal_registry.cli.commands import BY_NAME, ENTRIES, SECTIONS
from universal_registry.kernel.errors import UsageError

_EXAMPLES = (
    Example("ureg init", "once: make the registry"),
    Example("ureg set alias gs command='git status -sb'", "put something into it"),
    Example("ureg get alias", "look"),
    Example("ureg target add mine http://127.0.0.1:9000 --select kind=alias", "have each change sent there"),
    Example("ureg where gs", "see that it arrived"),
)


class _Root(Group):
    """The top: commands come from the table and are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [entry.name for entry in ENTRIES]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        entry = BY_NAME.get(cmd_name)
        if entry is None:
            return None
        found = getattr(importlib.import_module(f"universal_registry.cli.{entry.module}"), entry.attribute)
        assert isinstance(found, Command | Group)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        found = super().resolve_command(ctx, args)
        if found[1] is not None:
            found[1].short_help = BY_NAME[args[0]].help
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - as above
        for section in SECTIONS:
            rows = [(entry.name, entry.help) for entry in ENTRIES if entry.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)


def _version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from universal_registry import __version__

        print(f"ureg {__version__}")
        ctx.exit()


def root() -> Group:
    """The command `ureg`."""
    made = _Root(
        "ureg",
        examples=_EXAMPLES,
        help="Change something once. It arrives everywhere, and you can see that it did.",
        subcommand_metavar="COMMAND ...",
        epilog="Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 not allowed, 5 conflict, 6 invalid data, "
        "7 no daemon, 8 partly delivered, 9 refused, 10 warnings, 124 timed out, 130 interrupted.",
    )
    made.params.append(
        click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show it.")
    )
    return made


def run(words: list[str]) -> int:
    """Run one command line; its exit code. Raises RegistryError, also for wrong usage."""
    try:
        # Not click's own `main`: it would take Ctrl-C and a closed pipe for itself.
        command = root()
        with command.make_context("ureg", list(words)) as context:
            code = command.invoke(context)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.ClickException as error:
        raise _usage(error) from None
    return code if isinstance(code, int) else 0


def _usage(error: click.ClickException) -> UsageError:
    message = " ".join(error.format_message().split())  # click breaks some of its messages into lines
    message = message[:1].lower() + message[1:] if not message.startswith("ureg") else message
    context = getattr(error, "ctx", None)
    hint = None if message.endswith((")", "?")) or context is None else f"see: {context.command_path} --help"
    return UsageError(message.rstrip("."), hint=hint)
