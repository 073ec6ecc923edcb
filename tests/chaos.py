"""A TCP proxy that tests mistreat: connections through it are cut, refused, slowed, or lose what goes one way."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

_PIECE = 64 << 10


class Chaos:
    """Listens on a free port of loopback, and passes on to `HOST:PORT`. `seen`: all bytes that came from the client."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self.target = (host, int(port))
        self.is_open = True
        self.loses_requests = self.loses_answers = False
        self.delay = 0.0
        self.seen = bytearray()
        self.passed = 0
        self._never = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        """Break all connections, and refuse others until `mend`."""
        self.is_open = False
        self.break_all()

    def mend(self) -> None:
        self.is_open = True
        self.loses_requests = self.loses_answers = False

    def break_all(self) -> None:
        with self._lock:
            broken, self._sockets = self._sockets, set()
        for each in broken:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def close(self) -> None:
        self.is_open = False
        self._listener.close()
        self.break_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self.is_open:
                client.close()
                continue
            try:
                server = socket.create_connection(self.target, 5)
            except OSError:
                client.close()
                continue
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {client, server}
            threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, is_request: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_PIECE):
                if is_request:
                    self.seen += data
                if self.loses_requests if is_request else self.loses_answers:
                    continue
                if self.delay:
                    self._never.wait(self.delay)
                self.passed += len(data)
                sink.sendall(data)
        with self._lock:
            self._sockets -= {source, sink}
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
