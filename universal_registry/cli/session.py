"""Whom a command talks to: the daemon of its home, or the registry opened in its own process when none runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from universal_registry.cli.contexts import HOME, Context, chosen
from universal_registry.client.http import Caller, Client, Query, Reply, daemon_addresses, find_daemon
from universal_registry.environment import Given, Loaded, load
from universal_registry.kernel.errors import (
    NotFound,
    RegistryError,
    SettingError,
    Unauthenticated,
    Unreachable,
    UsageError,
)
from universal_registry.kernel.settings import Places, Settings

# A bulk write may take its time; whoever only asks is told sooner that nobody answers.
_READ_SECONDS, _WRITE_SECONDS = 20.0, 120.0
PAGE = 1000
_API_HINT, _HINT = "GET /v1/-/kinds ", "`ureg kinds` lists them"
_NOT_MINE = "run it as the user whose daemon this is, or as root; elsewhere, with the token of a context"


class Session:
    """A registry to ask. `daemon`: the address of the daemon that answers, None when this process does itself.
    `elsewhere`: the context by which it is known, when it is not a home of this machine."""

    def __init__(
        self, settings: Settings | None, caller: Caller, daemon: str | None, elsewhere: Context | None = None
    ) -> None:
        self._settings = settings
        self.caller = caller
        self.daemon = daemon
        self.elsewhere = elsewhere

    @property
    def settings(self) -> Settings:
        """Those of the home. Raises UsageError when it is elsewhere."""
        if self._settings is None:
            assert self.elsewhere is not None
            raise _not_here(self.elsewhere)
        return self._settings

    @property
    def places(self) -> Places:
        """The files of the home. Raises UsageError when it is elsewhere."""
        return Places(self.settings.home)

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
            raise spoken(error) from None

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
            raise spoken(error) from None


def spoken(error: RegistryError) -> RegistryError:
    """The error with a hint for people at a command line."""
    if isinstance(error, Unauthenticated):
        error.hint = _NOT_MINE
    elif error.data.get("unknown") == "kind" and "index" not in error.data:
        # Within a document it makes that invalid; as a word of the command line it is something that is not there.
        return NotFound(error.message, hint=error.hint, **error.data)
    elif error.hint is not None and error.hint.startswith(_API_HINT):
        error.hint = _HINT
    return error


def current_settings(**flags: object) -> Settings:
    """The settings of the running command."""
    return loaded_settings(**flags).settings


def loaded_settings(**flags: object) -> Loaded:
    """The settings of the running command, with what was odd about them. Raises UsageError when its context is a
    registry elsewhere."""
    return load({"home": _home(), **flags})


def _home() -> object:
    here = chosen()
    if here is not None and here.home is None:
        raise _not_here(here)
    return HOME.get() if here is None else Given(here.home, here.origin)


def forgiving_settings() -> tuple[Loaded, SettingError | None]:
    """As `loaded_settings`, for what must work while `config.py` is broken: then the settings without it, and why."""
    try:
        return loaded_settings(), None
    except SettingError as error:
        return load({"home": _home()}, config_file=False), error


def _not_here(here: Context) -> UsageError:
    return UsageError(
        f"context {here.name} is at {here.url}, and this works on a registry of this machine only",
        hint="--home FOLDER, or run it there",
    )


@contextmanager
def session(*, drive: bool = True, forgiving: bool = False) -> Iterator[Session]:
    """Connect, and close at the end. `drive`: without a daemon, deliveries that are due are tried in this process.
    `forgiving`: a daemon is asked even while `config.py` is broken."""
    opened = _opened(drive=drive, forgiving=forgiving)
    try:
        yield opened
    finally:
        opened.caller.close()


def _opened(*, drive: bool, forgiving: bool) -> Session:
    here = chosen()
    if here is not None and here.url is not None:
        client = Client(here.address, here.token(), _READ_SECONDS, _WRITE_SECONDS, ca_file=here.ca_file)
        return Session(None, client, here.url, here)
    loaded, trouble = forgiving_settings() if forgiving else (loaded_settings(), None)
    settings = loaded.settings
    address = find_daemon(Places(settings.home))
    if address is None:
        if trouble is not None:
            raise trouble
        return Session(settings, _embedded(settings, drive=drive), None)
    return Session(settings, Client(address, token_for(settings, address), _READ_SECONDS, _WRITE_SECONDS), address)


class Reach(NamedTuple):
    """Where a daemon is, asked anew for each connection; the token for it, and the file of its authority."""

    addresses: Callable[[], Sequence[str]]
    token: str | None
    ca_file: str | None = None


def reach(what: str) -> Reach:
    """The daemon, for `what`, which needs one. Raises Unreachable."""
    here = chosen()
    if here is not None and here.url is not None:
        address = here.address
        return Reach(lambda: (address,), here.token(), here.ca_file)
    settings = current_settings()
    places = Places(settings.home)
    found = find_daemon(places)
    if found is None:
        raise Unreachable(f"no daemon runs here, and {what} needs one", hint="`ureg up` starts one")
    return Reach(lambda: daemon_addresses(places)[:1] or (found,), token_for(settings, found))


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
