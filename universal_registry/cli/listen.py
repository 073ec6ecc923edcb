"""`ureg listen`: receive events here, and print them."""

from __future__ import annotations

import click

from universal_registry.cli.command import Example, command
from universal_registry.cli.reading import secret_text
from universal_registry.cli.session import note


@command(
    "listen",
    Example("ureg listen :9000", "on this machine only"),
    Example("ureg listen :9000 --secret @secret.txt", "refuse what is not signed with it"),
    Example("ureg listen :9000 --secret @secret.txt --key @key.txt", "and open what is sealed"),
    Example("ureg listen :0 -o ndjson", "a free port; one JSON object for each event"),
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
@click.option("-o", "--output", type=click.Choice(("text", "ndjson")), default="text", help="The form.")
def listen(address: str, secrets: tuple[str, ...], keys: tuple[str, ...], output: str) -> int:
    """Receive events until Ctrl-C, and print a line for each: what became of it, type, subject, sequence, signature."""
    import asyncio

    checked = [secret_text(word, "secret") for word in secrets]
    return asyncio.run(_listen(address, checked, [secret_text(word, "key") for word in keys], output))


async def _listen(address: str, secrets: list[str], keys: list[str], output: str) -> int:
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

    receiver = Receiver(world=SystemWorld(), secrets=secrets, seal_keys=keys, on_event=told)
    host, port = await receiver.start(*listen_address(address))
    shown = f"[{host}]" if ":" in host else host
    note(f"listening on http://{shown}:{port}/ (Ctrl-C ends it)")
    try:
        await ended.wait()
    finally:
        await receiver.stop()
    note(", ".join(f"{count} {word}" for word, count in receiver.counts().items()))
    return 0
