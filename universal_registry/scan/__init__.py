"""Readers of this machine: `read_all` yields what they find, ready to be put as records.

Nothing that is read is executed, sourced or changed, no other program is started, and no connection is made.

**Names.** A record keeps the name that its thing has on the system; where a kind has several sources, or a name can
occur twice, the rule below makes it unique. It looks only at the thing itself, never at what else is installed, so a
second scan changes nothing.

| kind | source | name |
|---|---|---|
| host | the machine | host name |
| principal | users / groups | `root` / `group:root` |
| package | dpkg | `g++`; of another architecture than dpkg's own `libc6:i386` |
| package | pip, npm | `pip:requests@/usr/lib/python3/dist-packages`, `npm:@scope/pkg@/usr/lib/node_modules` |
| path, command, symlink | PATH, /etc/alternatives, dot files | the full path |
| host_alias | ssh / hosts | `web1` / `web1@192.0.2.7` |
| service | services / systemd | `ssh/tcp` / `ssh.service` |
| endpoint | listening sockets | `tcp/127.0.0.1:8080`, `udp/[::]:53` |
| env_var, alias, function | environment, shell files | as it is (a zsh suffix alias: `.md`) |
| repository | git | path of the work tree |
| certificate | CA files | `Common Name 1a2b3c4d` (first 8 digits of the fingerprint) |
| theme, palette | terminals and editors | name of the program |

Should two things still come to one (kind, name), the first in the order of `READERS` is kept and the other reported.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from universal_registry.kernel.errors import UsageError
from universal_registry.scan import (
    accounts,
    ca,
    commands,
    dpkg,
    environment,
    etc_hosts,
    etc_services,
    git,
    host,
    links,
    npm,
    pip,
    shell,
    sockets,
    ssh,
    systemd,
    themes,
)
from universal_registry.scan.base import HOME_LABEL, LABEL, Found, Machine, Reader, Skipped, home_of

__all__ = [
    "GROUPS",
    "HOME_LABEL",
    "LABEL",
    "READERS",
    "Found",
    "Machine",
    "Reader",
    "Skipped",
    "home_of",
    "read_all",
    "select",
]

READERS: tuple[Reader, ...] = (
    host.READER,
    accounts.USERS,
    accounts.GROUPS,
    dpkg.READER,
    pip.READER,
    npm.READER,
    commands.PATH,
    commands.COMMANDS,
    links.ALTERNATIVES,
    links.DOTFILES,
    ssh.READER,
    etc_hosts.READER,
    etc_services.READER,
    systemd.READER,
    sockets.READER,
    environment.READER,
    shell.ALIASES,
    shell.FUNCTIONS,
    git.READER,
    ca.READER,
    themes.READER,
)

# Words for several readers at once; a reader's own name always means that reader.
GROUPS: dict[str, tuple[str, ...]] = {
    "packages": ("dpkg", "pip", "npm"),
    "principals": ("users", "groups"),
    "symlinks": ("alternatives", "dotfiles"),
    "host_aliases": ("ssh", "hosts"),
    "endpoints": ("sockets",),
    "env": ("environment",),
    "repositories": ("git",),
    "shell": ("aliases", "functions"),
}


def select(names: Iterable[str] | None = None) -> tuple[Reader, ...]:
    """The readers of these words (a reader's name, or one of GROUPS), in the order of READERS; all for None.

    Raises UsageError for a word that is neither.
    """
    if names is None:
        return READERS
    known = {reader.name: reader for reader in READERS}
    wanted: set[str] = set()
    for name in names:
        if name not in known and name not in GROUPS:
            near = difflib.get_close_matches(name, [*known, *GROUPS], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join([*known, *GROUPS])}"
            raise UsageError(f"unknown source {name[:80]!r}", hint=hint, did_you_mean=near)
        wanted.update((name,) if name in known else GROUPS[name])
    return tuple(reader for reader in READERS if reader.name in wanted)


def read_all(machine: Machine, names: Iterable[str] | None = None) -> Iterator[tuple[str, Found | Skipped]]:
    """(reader name, what it found or skipped) of all readers, or of those that `names` select.

    (kind, name) occurs once. Raises UsageError for an unknown word before anything is read.
    """
    return _read(machine, select(names))


def _read(machine: Machine, readers: tuple[Reader, ...]) -> Iterator[tuple[str, Found | Skipped]]:
    seen: set[tuple[str, str]] = set()
    for reader in readers:
        for item in reader.read(machine):
            if isinstance(item, Found):
                if (item.kind, item.name) in seen:
                    yield reader.name, Skipped(f"a {item.kind} of this name was found already", item.name)
                    continue
                seen.add((item.kind, item.name))
            yield reader.name, item
