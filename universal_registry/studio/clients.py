"""Programs that start studios' servers: where each keeps its list of servers, and what that list is with ours in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from universal_registry.kernel.errors import Invalid, Malformed, RegistryError
from universal_registry.kernel.limits import Limits
from universal_registry.kernel.loader import load_json

_LIMITS = Limits(body=16 << 20, depth=200, keys=1_000_000, string=4 << 20)
_INDENT = re.compile(r"^([ \t]+)\S", re.MULTILINE)


class ClientFile(NamedTuple):
    """`member`: of the file's object, that holds the servers by name. `linux`, `darwin`: the file, below the home
    folder. `typed`: an entry says of what type it is."""

    name: str
    title: str
    member: str
    linux: str
    darwin: str
    typed: bool = False

    def path(self, home: Path, config_home: Path, *, darwin: bool) -> Path:
        """Where the file is. `config_home`: what XDG_CONFIG_HOME says, or `.config` below the home folder."""
        if darwin:
            return home / self.darwin
        folder, _, rest = self.linux.partition("/")
        return config_home / rest if folder == ".config" else home / self.linux

    def entry(self, command: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, Any]:
        """What the file says of a server that is started by a command."""
        kind = {"type": "stdio"} if self.typed else {}
        return {**kind, "command": command[0], "args": list(command[1:]), "env": dict(environ)}


def _same(name: str, title: str, path: str, *, typed: bool = False) -> ClientFile:
    return ClientFile(name, title, "mcpServers", path, path, typed)


_SUPPORT = "Library/Application Support"
CLIENTS = {
    each.name: each
    for each in (
        ClientFile("claude-desktop", "Claude Desktop", "mcpServers", ".config/Claude/claude_desktop_config.json",
                   f"{_SUPPORT}/Claude/claude_desktop_config.json"),
        _same("claude-code", "Claude Code", ".claude.json", typed=True),
        _same("cursor", "Cursor", ".cursor/mcp.json"),
        _same("gemini", "Gemini CLI", ".gemini/settings.json"),
        ClientFile("vscode", "Visual Studio Code", "servers", ".config/Code/User/mcp.json",
                   f"{_SUPPORT}/Code/User/mcp.json", typed=True),
        _same("windsurf", "Windsurf", ".codeium/windsurf/mcp_config.json"),
    )
}  # fmt: skip


def changed(text: str | None, client: ClientFile, server: str, entry: dict[str, Any] | None) -> str | None:
    """The file's text with that entry for the server, or without one; everything else in it stays. `text`: None where
    there is no file. None: it is so already. Raises Malformed, TooLarge and Invalid for a file that is not understood:
    it is not ours to mend."""
    document = _document(text, client)
    servers = document.get(client.member, {})
    if not isinstance(servers, dict):
        raise Invalid(f"{client.member} is no object")
    if servers.get(server) == entry:
        return None
    others = {name: kept for name, kept in servers.items() if name != server or entry is not None}
    document[client.member] = others if entry is None else {**others, server: entry}
    return json.dumps(document, ensure_ascii=False, indent=_indent(text)) + "\n"


def entry_text(text: str | None, client: ClientFile, server: str) -> str:
    """That server's entry alone, as it stands in a file that is understood; empty when there is none."""
    servers = _document(text, client).get(client.member, {})
    if server not in servers:
        return ""
    return json.dumps({client.member: {server: servers[server]}}, ensure_ascii=False, indent=2)


def _document(text: str | None, client: ClientFile) -> dict[str, Any]:
    if text is None or not text.strip():
        return {}
    try:
        found = load_json(text, limits=_LIMITS)
    except Malformed as error:
        raise Malformed(error.message, hint=error.hint or f"mend it, and let {client.title} read it") from None
    if not isinstance(found, dict):
        raise Invalid("it is no JSON object")
    return found


def _indent(text: str | None) -> int | str:
    """As the file is indented already."""
    found = _INDENT.search(text or "")
    if found is None:
        return 2
    return "\t" if found[1].startswith("\t") else len(found[1])


def located(error: RegistryError, path: Path) -> RegistryError:
    """The error with the file that it is about."""
    return type(error)(f"{path}: {error.message}; it was left as it is", hint=error.hint)
