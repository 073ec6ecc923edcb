"""A studio as anybody may write one from docs/reference/studio.md: HTTP and a WebSocket, nothing of the product."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from websockets.sync.client import unix_connect


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self._path)


class ReferenceStudio:
    """`components`: its copy, by id: the spec and the revision that it was built on. What is stored is acknowledged by
    the cursor of the next exchange."""

    def __init__(self, socket_path: str, name: str = "nexus") -> None:
        self.name = name
        self.components: dict[str, dict[str, Any]] = {}
        self.cursor = ""
        self._socket = socket_path

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = _Connection(self._socket)
        try:
            connection.request(method, path, None if body is None else json.dumps(body),
                               {"content-type": "application/json"})  # fmt: skip
            answer = connection.getresponse()
            found = json.loads(answer.read())
        finally:
            connection.close()
        return found

    def sync(self, *edited: str) -> Any:
        """Push the components that were edited here, and take in what has changed there."""
        pushed = [{"component": name, **self.components[name]} for name in edited]
        answer = self.ask("POST", f"/v1/-/nexus/{self.name}/sync", {"cursor": self.cursor, "push": pushed})
        self.take(answer)
        return answer

    def take(self, answer: Any) -> None:
        for change in answer["changes"]:
            if change["op"] == "put":
                self.components[change["component"]] = {"spec": change["record"]["spec"], "base": change["revision"]}
            else:
                self.components.pop(change["component"], None)
        self.cursor = answer["cursor"]

    def edit(self, component: str, **spec: Any) -> None:
        self.components[component]["spec"] = self.components[component]["spec"] | spec

    def follow(self, count: int) -> None:
        """Over a WebSocket, until so many changes have come; then acknowledge them."""
        with unix_connect(self._socket, "ws://localhost/v1/stream") as connection:
            while True:
                wait = 20 if count > 0 else 0
                connection.send(json.dumps(
                    {"type": "sync", "id": 1, "studio": self.name, "cursor": self.cursor, "wait": wait}
                ))  # fmt: skip
                answer = json.loads(connection.recv(timeout=30))
                assert answer["type"] == "answer", answer
                self.take(answer["body"])
                count -= len(answer["body"]["changes"])
                if not wait:
                    return
