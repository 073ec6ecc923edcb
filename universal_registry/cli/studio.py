"""`ureg studio`: the registry for AI clients, as an MCP server."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from universal_registry.cli.command import Command, Example, Group
from universal_registry.cli.contexts import chosen
from universal_registry.cli.session import current_settings, note, reach, session, token_for
from universal_registry.client.http import Caller, Client, daemon_addresses
from universal_registry.kernel.errors import NotFound, Unreachable, UsageError
from universal_registry.kernel.settings import Places

if TYPE_CHECKING:
    import socket

    from universal_registry.client.watch import WatchClient

_SERVER = "universal-registry"
_LOOPBACK = ("127.0.0.1", "::1")
_SECONDS = 20.0


@click.group(
    "studio",
    cls=Group,
    examples=(
        Example("ureg studio install cursor --dry-run", "what would be written into its list of servers"),
        Example("ureg studio install cursor", "it starts the server by itself from then on"),
        Example("ureg studio serve --http 127.0.0.1:8090", "for clients that speak HTTP, with a token"),
    ),
)
def studio() -> None:
    """The registry for AI clients: tools and resources over MCP (docs/how-to/ai-clients.md)."""


@studio.command(
    "serve",
    cls=Command,
    examples=(
        Example("ureg studio serve", "on standard input and output: a client starts it like this"),
        Example("ureg studio serve --http 127.0.0.1:8090", "http://127.0.0.1:8090/mcp, each request with a token"),
        Example("ureg studio serve --context work", "a registry elsewhere, with the rights of its context"),
    ),
)
@click.option("--http", metavar="[HOST]:PORT", help="Serve over HTTP on this machine; port 0 takes a free one.")
@click.option("--read-only", is_flag=True, help="Without the tools that change something.")
def serve(http: str | None, read_only: bool) -> None:
    """Serve the registry over MCP, until standard input ends, or Ctrl-C. Needs the extra `studio`.

    On standard input and output the rights are those of the user; without a daemon the registry is opened here, and
    nobody is told of changes. Over HTTP each request has a token of the registry, and the rights of that token.
    """
    listening = None if http is None else _listening(http)
    _check_library()
    if listening is None:
        _serve_stdio(read_only=read_only)
    else:
        _serve_http(listening, read_only=read_only)


def _check_library() -> None:
    from importlib.util import find_spec

    if find_spec("mcp") is None:
        hint = "pip install 'universal-registry[studio]', into the environment of ureg"
        raise NotFound("the package mcp is not installed, and `ureg studio serve` needs it", hint=hint)


def _serve_stdio(*, read_only: bool) -> None:
    import asyncio
    import signal

    from universal_registry.studio.server import serve_stdio

    if sys.stdin.isatty():
        note("this speaks MCP on standard input and output; `ureg studio install CLIENT` has a client start it")
    # Nothing is kept here that could be lost, and the thread that reads standard input cannot be woken.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    asyncio.run(serve_stdio(Ways(), note, read_only=read_only))


def _serve_http(listening: socket.socket, *, read_only: bool) -> None:
    import asyncio

    from universal_registry.cli.watching import until_signal
    from universal_registry.studio.web import PATH, serve_http

    host, port = listening.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    note(f"studio on http://{shown}:{port}{PATH} (Ctrl-C ends it)")
    asyncio.run(until_signal(serve_http(Ways(), listening, note, read_only=read_only)))


def _listening(address: str) -> socket.socket:
    """A socket that listens on loopback: beyond this machine a token would go in clear."""
    import socket

    from universal_registry.client.listen import listen_address

    host, port = listen_address(address)
    host = "127.0.0.1" if host == "localhost" else host
    if host not in _LOOPBACK:
        raise UsageError(f"{address!r:.80} is not on loopback", hint="127.0.0.1:PORT; a TLS proxy reaches further")
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)
    except OSError as error:
        made.close()
        raise UsageError(f"cannot listen on {address}: {error.strerror}", hint="port 0 takes a free one") from None
    return made


class Ways:
    """The ways of this command to its registry (`studio.access.Access`), asked anew each time: daemons come and go."""

    @contextmanager
    def caller(self, token: str | None) -> Iterator[Caller]:
        if token is None:
            with session() as asked:
                yield asked.caller
        else:
            with _with_token(token) as client:
                yield client

    def watcher(self, token: str | None) -> WatchClient:
        from universal_registry.client.watch import WatchClient

        if token is not None:
            address, ca_file = _place_for_tokens()
            return WatchClient(lambda: [address], token=token, ca_file=ca_file)
        found = reach("waiting for changes")
        return WatchClient(found.addresses, token=found.token, ca_file=found.ca_file)

    def follower(self) -> WatchClient:
        from universal_registry.client.watch import WatchClient

        here = chosen()
        if here is not None and here.url is not None:
            return self.watcher(None)
        settings = current_settings()
        places = Places(settings.home)
        addresses = daemon_addresses(places)
        token = token_for(settings, addresses[0]) if addresses else None
        return WatchClient(lambda: daemon_addresses(places)[:1], token=token)


def _with_token(token: str) -> Client:
    """A client whose rights are the token's."""
    address, ca_file = _place_for_tokens()
    return Client(address, token, _SECONDS, ca_file=ca_file)


def _place_for_tokens() -> tuple[str, str | None]:
    """Where tokens count: on TCP. On the socket one has the rights of the user. Raises Unreachable."""
    here = chosen()
    if here is not None and here.url is not None:
        return here.address, here.ca_file
    addresses = daemon_addresses(Places(current_settings().home))
    if not addresses:
        raise Unreachable("no daemon runs here", hint="`ureg up` starts one")
    found = [each for each in addresses if not each.startswith("/")]
    if not found:
        hint = "ureg restart --listen 127.0.0.1:8080"
        raise Unreachable("the daemon listens on its socket only, and tokens count on TCP", hint=hint)
    return found[0], None


# --- install --------------------------------------------------------------------------------------------------------


@studio.command(
    "install",
    cls=Command,
    examples=(
        Example("ureg studio install cursor --dry-run", "only show what would change"),
        Example("ureg studio install vscode"),
        Example("ureg studio install cursor --file .cursor/mcp.json", "for one project"),
        Example("ureg studio install cursor --remove", "take it out again"),
    ),
)
@click.argument("client", metavar="CLIENT")
@click.option("--file", "file", metavar="FILE", help="Its configuration, where it is not in the usual place.")
@click.option("--name", default=_SERVER, show_default=True, metavar="NAME", help="What the server is called there.")
@click.option("--remove", is_flag=True, help="Take the server out of the list.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and write nothing.")
def install(client: str, file: str | None, name: str, remove: bool, dry_run: bool) -> None:
    """Write the server into the list of an AI client, which then starts it by itself. CLIENT is claude-code,
    claude-desktop, cursor, gemini, vscode or windsurf; others take `ureg studio serve` as a command.

    What changes is shown. Everything else in the file stays; one that is not plain JSON is refused and left alone.
    """
    from universal_registry.studio.clients import CLIENTS, entry_text

    known = CLIENTS.get(client)
    if known is None:
        raise UsageError(f"{client!r:.60} is no client that is known", hint="one of " + ", ".join(CLIENTS))
    if not name.strip() or not name.isprintable():
        raise UsageError(f"{name!r:.60} is no name of a server")
    path = Path(os.path.realpath(os.path.expanduser(file))) if file else _usual(client)
    before = _text(path)
    after = _after(before, path, client, name, remove=remove)
    if after is None:
        note(f"{path}: {'not there' if remove else 'so already'}, nothing to do")
        return
    _show(path, *(entry_text(text, known, name) for text in (before, after)))
    if dry_run:
        note("nothing is written")
        return
    _replace(path, after)
    note(f"{path} written; {known.title} reads it when it starts")


def _usual(client: str) -> Path:
    from universal_registry.environment import environment
    from universal_registry.studio.clients import CLIENTS

    home = Path(os.path.expanduser("~"))
    said = environment().get("XDG_CONFIG_HOME", "")
    config_home = Path(said) if said.startswith("/") else home / ".config"
    found = CLIENTS[client].path(home, config_home, darwin=sys.platform == "darwin")
    return Path(os.path.realpath(found))  # who keeps it elsewhere and links to it has the link afterwards, too


def _text(path: Path) -> str | None:
    from universal_registry.cli.reading import read_file, text_of

    try:
        return text_of(read_file(str(path)), str(path))
    except NotFound:
        return None


def _after(before: str | None, path: Path, client: str, name: str, *, remove: bool) -> str | None:
    from universal_registry.kernel.errors import RegistryError
    from universal_registry.studio.clients import CLIENTS, changed, located

    known = CLIENTS[client]
    entry = None if remove else known.entry(_command(), _environ())
    try:
        return changed(before, known, name, entry)
    except RegistryError as error:
        raise located(error, path) from None


def _command() -> tuple[str, ...]:
    from universal_registry.cli.service_install import serving_command

    _, ureg = serving_command(Path(__file__).resolve().parents[2])
    return (*ureg, "studio", "serve")


def _environ() -> dict[str, str]:
    """Which registry: a client starts the server in an environment of its own."""
    here = chosen()
    if here is not None and here.url is not None:
        return {"REGISTRY_CONTEXT": here.name}
    return {"REGISTRY_HOME": str(current_settings().home)}


def _show(path: Path, before: str, after: str) -> None:
    """What changes of the one entry; other servers' may hold secrets."""
    from difflib import unified_diff

    from universal_registry.cli.grid import escaped
    from universal_registry.cli.output import write

    for line in unified_diff(before.splitlines(), after.splitlines(), str(path), str(path), n=0, lineterm=""):
        write(escaped(line))


def _replace(path: Path, text: str) -> None:
    from universal_registry.kernel.world import SystemWorld
    from universal_registry.storage.durable import replaced_file, unwritable

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
        with replaced_file(path, SystemWorld().new_id(), mode=mode) as file:
            file.write(text.encode())
    except OSError as error:
        raise unwritable(error, path) from None
