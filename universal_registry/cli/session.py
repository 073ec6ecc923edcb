"""Whom a command talks to: the daemon of its home, or the registry opened in its own process when none runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from universal_registry.client.http import Caller, Client, Query, Reply, find_daemon
from universal_registry.environment import Loaded, load
from universal_registry.kernel.errors import RegistryError, Unauthenticated, UsageError
from universal_registry.kernel.settings import Places, Settings

# A bulk write may take its time; whoever only asks is told sooner that nobody answers.
_READ_SECONDS, _WRITE_SECONDS = 20.0, 120.0
HOME: ContextVar[str | None] = ContextVar("home", default=None)
"""What `--home` said, before the command or after it."""
PAGE = 1000
_API_HINT, _HINT = "GET /v1/-/kinds ", "`ureg kinds` lists them"
_NOT_MINE = "run it as the user whose daemon this is, or as root"


class Session:
    """A registry to ask. `daemon`: the address of the daemon that answers, None when this process does itself."""

    def __init__(self, settings: Settings, caller: Caller, daemon: str | None) -> None:
        self.settings = settings
        self.places = Places(settings.home)
        self.caller = caller
        self.daemon = daemon

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """See Caller.request. Hints that speak of the HTTP API are made to speak of commands. Raises UsageError for an
        empty name, of which the path has no trace."""
        if "//" in path or path.endswith("/"):
            raise UsageError("a name is empty", hint="give the name, or the id")
        try:
            return self.caller.request(method, path, query=query, json=json, headers=headers)
        except RegistryError as error:
            raise _spoken(error) from None

    def read(self, path: str, **query: Any) -> Any:
        """The JSON value at a path."""
        return self.request("GET", path, query=query).json()

    def write(self, path: str, body: Any, **query: Any) -> Any:
        """The JSON answer to a POST."""
        return self.request("POST", path, query=query, json=body).json()

    def items(self, path: str, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """All items of a list, page after page."""
        page: str | None = None
        while True:
            answer = self.read(path, **{**query, "limit": PAGE, "page": page})
            yield from answer["items"]
            page = answer.get("next")
            if page is None:
                return

    def lines(self, path: str, query: Mapping[str, Any]) -> Iterator[bytes]:
        """The lines of an NDJSON answer; from a daemon as they come."""
        try:
            if isinstance(self.caller, Client):
                yield from self.caller.stream("GET", path, query=query)
            else:
                yield from self.caller.request("GET", path, query=query).lines()
        except RegistryError as error:
            raise _spoken(error) from None


def _spoken(error: RegistryError) -> RegistryError:
    """The error with a hint for people at a command line."""
    if isinstance(error, Unauthenticated):
        error.hint = _NOT_MINE
    elif error.hint is not None and error.hint.startswith(_API_HINT):
        error.hint = _HINT
    return error


def current_settings(**flags: object) -> Settings:
    """The settings of the running command."""
    return loaded_settings(**flags).settings


def loaded_settings(**flags: object) -> Loaded:
    """The settings of the running command, with what was odd about them."""
    return load({"home": HOME.get(), **flags})


@contextmanager
def session(*, drive: bool = True) -> Iterator[Session]:
    """Connect, and close at the end. `drive`: without a daemon, deliveries that are due are tried in this process."""
    settings = current_settings()
    address = find_daemon(Places(settings.home))
    caller: Caller
    if address is None:
        caller = _embedded(settings, drive=drive)
    else:
        caller = Client(address, token_for(settings, address), _READ_SECONDS, _WRITE_SECONDS)
    try:
        yield Session(settings, caller, address)
    finally:
        caller.close()


def _embedded(settings: Settings, *, drive: bool) -> Caller:
    from universal_registry.app import embedded

    return embedded(settings, drive=drive)


def token_for(settings: Settings, address: str) -> str | None:
    """The socket knows who calls; on TCP the admin token says it, if it may be read."""
    if address.startswith("/"):
        return None
    try:
        return Places(settings.home).admin_token.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def note(text: str) -> None:
    """A message for people, on standard error, in one line whatever it quotes."""
    from universal_registry.cli.grid import escaped

    sys.stderr.write(escaped(text) + "\n")
    sys.stderr.flush()


def warn(warnings: list[str]) -> None:
    """What the registry wants people to know."""
    for warning in warnings:
        note(f"warning: {warning}")
