"""The environment that the scan was given (`env_var`).

A value that looks like a secret, by its name or by itself, goes to `secret_value`, which is sealed at rest. Variables
that differ from one shell or terminal to the next are left out, so that a second scan changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from universal_registry.scan.base import Found, Source, SourceReader, always
from universal_registry.scan.secrets import secret_name, secret_value

VOLATILE = frozenset(
    [
        "_",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "RANDOM",
        "SECONDS",
        "LINENO",
        "PPID",
        "COLUMNS",
        "LINES",
        "SHELLOPTS",
        "BASHOPTS",
        "WINDOWID",
        "WINDOWPATH",
        "SSH_CLIENT",
        "SSH_CONNECTION",
        "SSH_TTY",
        "SSH_AUTH_SOCK",
        "SSH_AGENT_PID",
        "SSH_AGENT_LAUNCHER",
        "GPG_AGENT_INFO",
        "GPG_TTY",
        "TTY",
        "TERM_SESSION_ID",
        "ITERM_SESSION_ID",
        "SECURITYSESSIONID",
        "XDG_SESSION_ID",
        "XDG_VTNR",
        "XDG_SEAT",
        "XDG_ACTIVATION_TOKEN",
        "DBUS_SESSION_BUS_ADDRESS",
        "DBUS_SESSION_BUS_PID",
        "DBUS_SESSION_BUS_WINDOWID",
        "SESSION_MANAGER",
        "DESKTOP_STARTUP_ID",
        "INVOCATION_ID",
        "JOURNAL_STREAM",
        "MANAGERPID",
        "SYSTEMD_EXEC_PID",
        "NOTIFY_SOCKET",
        "WATCHDOG_PID",
        "WATCHDOG_USEC",
        "LISTEN_PID",
        "LISTEN_FDS",
        "LISTEN_FDNAMES",
        "MEMORY_PRESSURE_WATCH",
        "MEMORY_PRESSURE_WRITE",
        "CREDENTIALS_DIRECTORY",
        "TMUX",
        "TMUX_PANE",
        "STY",
        "WINDOW",
        "KITTY_PID",
        "KITTY_WINDOW_ID",
        "KITTY_LISTEN_ON",
        "ALACRITTY_SOCKET",
        "ALACRITTY_WINDOW_ID",
        "ALACRITTY_LOG",
        "WEZTERM_PANE",
        "WEZTERM_UNIX_SOCKET",
        "VTE_VERSION",
        "GNOME_TERMINAL_SCREEN",
        "KONSOLE_DBUS_SERVICE",
        "KONSOLE_DBUS_SESSION",
        "KONSOLE_DBUS_WINDOW",
        "SHELL_SESSION_ID",
        "VSCODE_IPC_HOOK",
        "VSCODE_IPC_HOOK_CLI",
        "VSCODE_GIT_IPC_HANDLE",
        "SUDO_COMMAND",
        "PYTEST_CURRENT_TEST",
        "MAKEFLAGS",
        "MFLAGS",
        "MAKELEVEL",
        "MAKE_TERMERR",
        "MAKE_TERMOUT",
    ]
)


_where = always("environment of this process")


def _find(source: Source) -> Iterator[Found]:
    for name in sorted(source.machine.environ):
        if name in VOLATILE:
            continue
        value = source.machine.environ[name]
        field = "secret_value" if secret_name(name) or secret_value(value) else "value"
        yield from source.found("env_var", name, "ShellEnvVar", {field: value, "exported": True, "scope": "session"})


READER = SourceReader(
    "environment", "environment variables; what looks like a secret is sealed", ("env_var",), _where, _find
)
