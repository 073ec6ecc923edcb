"""`ureg listen`: receive events here, and print them."""

from __future__ import annotations

import click

from universal_registry.cli.command import Example, command
from universal_registry.cli.session import note
from universal_registry.kernel.errors import UsageError


@command(
    "listen",
    Example("ureg listen :9000", "on this machine only"),
    Example("ureg listen :9000 --secret @secret.txt", "refuse what is not signed with it"),
    Example("ureg listen :0 -o ndjson", "a free port; one JSON object for each event"),
)
@click.argument("address", metavar="[HOST]:PORT")
@click.option("--secret", metavar="SECRET", help="The target's signing secret (whsec_...), as @FILE or -.")
@click.option("-o", "--output", type=click.Choice(("text", "ndjson")), default="text", help="The form.")
def listen(address: str, secret: str | None, output: str) -> int:
    """Receive events until Ctrl-C, and print a line for each: what became of it, type, subject, sequence, signature."""
    import asyncio

    return asyncio.run(_listen(address, _secret(secret), output))


def _secret(word: str | None) -> str | None:
    from universal_registry.cli.reading import value_text

    if word is None:
        return None
    text = value_text(word).strip()
    if not text:
        raise UsageError("the secret is empty", hint="it begins with whsec_")
    return text


async def _listen(address: str, secret: str | None, output: str) -> int:
    import asyncio
    import signal
    import sys

    from universal_registry.client.listen import Receiver, listen_address, printer
    from universal_registry.kernel.world import SystemWorld

    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    tell = printer(sys.stdout, output)

    def told(heard: object) -> None:
        try:
            tell(heard)  # type: ignore[arg-type]
        except BrokenPipeError:  # `| head`: nobody reads on, so nobody listens on
            ended.set()
            raise

    receiver = Receiver(world=SystemWorld(), secret=secret, on_event=told)
    host, port = await receiver.start(*listen_address(address))
    shown = f"[{host}]" if ":" in host else host
    note(f"listening on http://{shown}:{port}/ (Ctrl-C ends it)")
    try:
        await ended.wait()
    finally:
        await receiver.stop()
    note(", ".join(f"{count} {word}" for word, count in receiver.counts().items()))
    return 0
