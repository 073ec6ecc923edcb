"""Contexts: names for the registries of one person, in a file of his own; and which of them a command is for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from universal_registry.environment import PREFIX, environment
from universal_registry.kernel.errors import NotFound, UsageError

HOME: ContextVar[str | None] = ContextVar("home", default=None)
"""What `--home` said, before the command or after it."""
CONTEXT: ContextVar[str | None] = ContextVar("context", default=None)
"""What `--context` said."""
_VARIABLE = PREFIX + "CONTEXT"
# compiled when it is needed: `get` starts without it
_URL = r"(https?)://(\[[0-9A-Fa-f:.]+\]|[^\s/:\[\]@?#]+)(?::([0-9]{1,5}))?/?"


class Context(NamedTuple):
    """A registry: a `home` on this machine, or the `url` of one elsewhere. `origin`: what chose it."""

    name: str
    home: str | None = None
    url: str | None = None
    token_file: str | None = None
    ca_file: str | None = None
    origin: str = ""

    @property
    def address(self) -> str:
        """What the client connects to: `HOST:PORT`, or `https://HOST:PORT`. Of a context with a url."""
        assert self.url is not None
        return self.url.removeprefix("http://")

    def token(self) -> str | None:
        """What the token's file holds. Raises NotFound when it cannot be read."""
        if self.token_file is None:
            return None
        try:
            token = Path(self.token_file).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise self._no_token(getattr(error, "strerror", None) or "it is no token") from None
        if not token.isprintable():
            raise self._no_token("it is no token")
        return token

    def _no_token(self, why: str) -> NotFound:
        return NotFound(
            f"the token for {self.name} cannot be read from {self.token_file}: {why}",
            hint="--token-file, or `ureg context add`, names another file",
        )


def contexts_file(environ: Mapping[str, str] | None = None) -> Path:
    """Where contexts are kept."""
    environ = environment() if environ is None else environ
    folder = environ.get("XDG_CONFIG_HOME", "")
    base = Path(folder) if folder.startswith("/") else Path(environ.get("HOME") or os.path.expanduser("~")) / ".config"
    return base / "universal-registry" / "contexts.json"


def chosen() -> Context | None:
    """The context that the running command is for; None: `--home`, REGISTRY_HOME or no context says where.

    Flags come before the environment, and that before `ureg context use`. Raises UsageError, NotFound.
    """
    known = environment()
    home, name, origin = HOME.get(), CONTEXT.get(), "--context"
    if home is not None and name is not None:
        raise UsageError("--home and --context are both given", hint="give one of the two")
    if home is not None:
        return None
    if name is None:
        name, origin = known.get(_VARIABLE) or None, _VARIABLE
    if name is None and known.get(PREFIX + "HOME"):
        return None
    current, contexts = read()
    if name is None:
        name, origin = current, f"context {current}"
    return None if name is None else one(contexts, name)._replace(origin=origin)


def one(contexts: Mapping[str, Context], name: str) -> Context:
    """The context of that name. Raises NotFound."""
    if (found := contexts.get(name)) is None:
        from universal_registry.registry.words import near

        guesses = near(name, tuple(contexts))
        hint = f"did you mean {guesses[0]!r}?" if guesses else "`ureg context ls` lists them"
        raise NotFound(f"no context is called {name!r:.80}", hint=hint)
    return found


def read() -> tuple[str | None, dict[str, Context]]:
    """The current context's name, if there is one, and all contexts by name. Raises UsageError for a broken file."""
    path = contexts_file()
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None, {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no UTF-8'}") from None
    import json

    try:
        kept: Any = json.loads(text)
        contexts = {name: Context(name, **given) for name, given in kept["contexts"].items()}
        return kept["current"], contexts
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{path} is no file of contexts", hint="mend it, or remove it and add them anew") from None


def write(current: str | None, contexts: Mapping[str, Context]) -> None:
    """Keep these; the file appears whole or not at all. Raises OSError."""
    import json

    from universal_registry.kernel.world import SystemWorld
    from universal_registry.storage.durable import replaced_file

    path = contexts_file()
    kept = {
        name: {field: value for field, value in each._asdict().items() if value and field not in ("name", "origin")}
        for name, each in contexts.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"current": current, "contexts": kept}, indent=2) + "\n"
    with replaced_file(path, SystemWorld().new_id()) as file:
        file.write(text.encode())


def registry_url(text: str) -> str:
    """The URL of a registry, with its port. Raises UsageError for what is none, and where a token would go in clear."""
    match = re.fullmatch(_URL, text, re.ASCII)
    port = int(match[3] or (443 if match[1] == "https" else 80)) if match else 0
    if match is None or not 0 < port < 65536:
        raise UsageError(f"{text!r:.80} is no URL of a registry", hint="such as https://registry.example:8443")
    if match[1] == "http" and match[2].lower() not in ("localhost", "127.0.0.1", "[::1]"):
        raise UsageError(f"{text!r:.80} would send the token in clear", hint="https://, or http:// on this machine")
    return f"{match[1]}://{match[2]}:{port}"
