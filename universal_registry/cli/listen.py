"""`ureg listen`: receive events here, and print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from universal_registry.cli.command import Example, command
from universal_registry.cli.reading import secret_text
from universal_registry.cli.session import note
from universal_registry.kernel.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from universal_registry.cli.listen_exec import Exec


@command(
    "listen",
    Example("ureg listen :9000", "on this machine only"),
    Example("ureg listen :9000 --secret @secret.txt", "refuse what is not signed with it"),
    Example("ureg listen :9000 --secret @secret.txt --key @key.txt", "and open what is sealed"),
    Example("ureg listen :0 -o ndjson", "a free port; one JSON object for each event"),
    Example("ureg listen :9000 --secret @secret.txt --exec ./on-event.sh", "a process for each event"),
    Example("ureg listen :9000 --shell --exec 'logger \"$UREG_EVENT_SUBJECT\"'", "a shell reads it"),
)
@click.argument("address", metavar="[HOST]:PORT")
@click.option(
    "--secret",
    "secrets",
    metavar="SECRET",
    multiple=True,
    help="The target's signing secret (whsec_...) or the sender's public key (whpk_...), as @FILE or -; repeatable.",
)
@click.option(
    "--key",
    "keys",
    metavar="KEY",
    multiple=True,
    help="The target's sealing key (sealkey_...), as @FILE; repeatable.",
)
@click.option("--exec", "command_", metavar="COMMAND", help="Run this for each event that is new: no shell reads it.")
@click.option("--shell", is_flag=True, help="A shell (/bin/sh -c) reads COMMAND.")
@click.option("--timeout", type=click.FloatRange(0.1, 3600), metavar="SECONDS", help="For one run; 25 if absent.")
@click.option("-o", "--output", type=click.Choice(("text", "ndjson")), default="text", help="The form.")
def listen(
    address: str,
    secrets: tuple[str, ...],
    keys: tuple[str, ...],
    command_: str | None,
    shell: bool,
    timeout: float | None,
    output: str,
) -> int:
    """Receive events until Ctrl-C, and print a line for each: what became of it, type, subject, sequence, signature.

    With --exec the command gets the event's data as JSON on standard input, and UREG_EVENT_ID, _TYPE, _SUBJECT,
    _SEQUENCE, _VERIFIED (yes, no, unchecked) and _LATE (yes: a later one of that subject has come already) in its
    environment. Its output is ours; the lines for events then go to standard error. Unless it exits with 0 in time, the
    sender is answered 500, and sends the event again later. Four run at once. Repeats and challenges run nothing.
    """
    import asyncio

    checked = [secret_text(word, "secret") for word in secrets]
    seals = [secret_text(word, "key") for word in keys]
    runs = _runs(command_, shell, timeout)
    return asyncio.run(_listen(address, checked, seals, runs, output))


def _runs(command_: str | None, shell: bool, timeout: float | None) -> Callable[[], Exec] | None:
    """Makes what runs the command; None where there is none. Raises UsageError, NotFound."""
    if command_ is None:
        if shell or timeout is not None:
            raise UsageError(f"{'--shell' if shell else '--timeout'} is of --exec", hint="give it with --exec COMMAND")
        return None
    from universal_registry.cli.listen_exec import SECONDS, Exec, words_of
    from universal_registry.environment import environment

    words = words_of(command_, shell=shell)
    return lambda: Exec(words, environment(), timeout or SECONDS)


async def _listen(
    address: str, secrets: list[str], keys: list[str], runs: Callable[[], Exec] | None, output: str
) -> int:
    import asyncio
    import signal
    import sys

    from universal_registry.client.listen import Receiver, listen_address, printer
    from universal_registry.kernel.world import SystemWorld

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    handle = runs() if runs else None
    tell = printer(sys.stderr if handle else sys.stdout, output)

    def told(heard: object) -> None:
        try:
            tell(heard)  # type: ignore[arg-type]
        except BrokenPipeError:  # `| head`: nobody reads on, so nobody listens on
            ended.set()
            raise

    receiver = Receiver(world=SystemWorld(), secrets=secrets, seal_keys=keys, on_event=told, handle=handle)
    host, port = await receiver.start(*listen_address(address))
    shown = f"[{host}]" if ":" in host else host
    note(f"listening on http://{shown}:{port}/ (Ctrl-C ends it)")
    try:
        await ended.wait()
    finally:
        await receiver.stop()
        if handle:
            await handle.close()
    note(", ".join(f"{count} {word}" for word, count in receiver.counts().items()))
    return 0
