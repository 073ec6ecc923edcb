"""`ureg init`, `serve`, `up`, `down`, `restart`: a registry and its daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from universal_registry.cli.command import Example, command
from universal_registry.cli.output import write
from universal_registry.cli.session import current_settings, forgiving_settings, loaded_settings, note, warn

if TYPE_CHECKING:
    from universal_registry.kernel.settings import Settings


@command("init", Example("ureg init"), Example("ureg init --home ~/registry"))
def init() -> None:
    """Make the stores, the key and the admin token. What is there already stays as it is."""
    from universal_registry.app import init as make

    made = make(current_settings())
    for path in made.created:
        write(f"created {path.relative_to(made.home) if path.is_relative_to(made.home) else path}")
    word = "new" if made.new else "there already"
    write(f"registry {made.incarnation} in {made.home}: {word}, revision {made.revision}")
    if made.served:
        note("a daemon runs, so nothing was made: what is missing is made by `ureg init` after `ureg down`")


def _address_options(function: click.decorators.FC) -> click.decorators.FC:
    listen = click.option("--listen", metavar="HOST:PORT", help="TCP address; port 0 is a free one, '' is none.")
    socket = click.option("--socket", metavar="PATH", help="Unix socket.")
    return listen(socket(function))


@command("serve", Example("ureg serve"), Example("ureg serve --listen 127.0.0.1:0 &"))
@_address_options
def serve(listen: str | None, socket: str | None) -> int:
    """Run the daemon in the foreground, until SIGTERM or SIGINT; a home is made where there is none."""
    from universal_registry.serving import serve as run

    loaded = loaded_settings(listen=listen, socket=socket)
    return run(loaded.settings, notes=loaded.warnings)


@command("up", Example("ureg up"), Example("ureg up --listen 127.0.0.1:8081"))
@_address_options
def up(listen: str | None, socket: str | None) -> None:
    """Start the daemon in the background and wait until it is ready. One that runs already is left alone.

    A store that is found to be damaged is named; one of more than 256 MiB is not looked through, see `ureg doctor`.
    """
    loaded = loaded_settings(listen=listen, socket=socket)
    warn(list(loaded.warnings))
    _start(loaded.settings)


def _start(settings: Settings) -> None:
    from universal_registry.care.looking import damage
    from universal_registry.serving import up as start

    started = start(settings)
    word = "runs already" if started.already else "started"
    write(f"daemon {word}: pid {started.pid}, {', '.join(started.addresses)}")
    if not started.already and (found := damage(settings, most_bytes=256 << 20)):
        warn([f"{found}: ureg restore FILE --replace puts a backup in its place"])


@command("down", Example("ureg down"))
def down() -> None:
    """Stop the daemon: deliveries under way get their time, nothing that waits is lost."""
    loaded, _ = forgiving_settings()
    if not _stop(loaded.settings):
        note("no daemon runs")


def _stop(settings: Settings) -> bool:
    from universal_registry.serving import down as stop

    stopped = stop(settings)
    if stopped.pid is not None:
        write(f"daemon stopped: pid {stopped.pid}")
    return stopped.pid is not None


@command("restart", Example("ureg restart"), Example("ureg restart --listen 127.0.0.1:8081"))
@_address_options
def restart(listen: str | None, socket: str | None) -> None:
    """Stop the daemon and start it anew, with the settings as they are now; start it where none runs.

    Settings that cannot be used are refused before anything is stopped. Nothing that waits is lost. It listens where
    the settings and these options say. One that a service manager runs is better restarted by that.
    """
    loaded = loaded_settings(listen=listen, socket=socket)
    warn(list(loaded.warnings))
    if not _stop(loaded.settings):
        note("no daemon ran")
    _start(loaded.settings)
