"""What a service manager is told: the protocol of systemd's sd_notify(3), a datagram of `NAME=value` lines."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping

from universal_registry.observe.logs import Log


class Notifier:
    """The socket that systemd named in NOTIFY_SOCKET. `address`: a path, or `@name` of Linux's abstract namespace.
    `watchdog`: seconds after which systemd ends a service that it has not heard of (WATCHDOG_USEC); 0: it does not.
    Never raises: a service manager that cannot be reached is logged once, and the service goes on."""

    def __init__(self, address: str, watchdog: float = 0.0) -> None:
        self.watchdog = watchdog
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._said_trouble = False
        self._log = Log("service")

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Notifier | None:
        """What the environment of a service names; None: nobody wants to hear."""
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return None
        microseconds, whose = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        watched = microseconds.isascii() and microseconds.isdigit() and whose in ("", str(os.getpid()))
        return cls(address, int(microseconds) / 1_000_000 if watched else 0.0)

    def tell(self, **fields: str) -> bool:
        """Send these, as `READY="1"`; whether they went out."""
        data = "\n".join(f"{name}={' '.join(value.split())}" for name, value in fields.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | getattr(socket, "SOCK_CLOEXEC", 0)) as sock:
                sock.setblocking(False)
                sock.sendto(data.encode(), self._address)
        except (OSError, ValueError) as error:
            if not self._said_trouble:
                self._log.warning("the service manager cannot be told how we do", reason=str(error))
            self._said_trouble = True
            return False
        self._said_trouble = False
        return True

    def reloading(self, monotonic: float, reload: Callable[[], None]) -> None:
        """Do it between RELOADING and READY. `monotonic`: seconds on the system's clock of that name."""
        self.tell(RELOADING="1", MONOTONIC_USEC=str(int(monotonic * 1_000_000)))
        reload()
        self.tell(READY="1")

    def stopping(self, seconds: float) -> None:
        """The end has begun, and may take so long."""
        self.tell(STOPPING="1", STATUS="stopping", EXTEND_TIMEOUT_USEC=str(int(seconds * 1_000_000)))
