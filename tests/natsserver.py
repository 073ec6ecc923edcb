"""A real nats-server with JetStream, for tests: started, killed with -9, started again on the same port and store."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nats
from nats.js.api import StreamConfig

SERVER = Path(sys.executable).parent / "nats-server"
PATIENCE = 20.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class NatsServer:
    """`config`: lines of its configuration besides the store's, such as users. `sync`: when the store is synced."""

    def __init__(self, folder: Path, config: str = "", sync: str = "sync_interval: always") -> None:
        self.port, self.monitor = free_port(), free_port()
        self._file = folder / "nats.conf"
        self._file.write_text(
            f'listen: "127.0.0.1:{self.port}"\nhttp: "127.0.0.1:{self.monitor}"\n'
            f'jetstream {{ store_dir: "{folder}/js"\n{sync} }}\n{config}\n'
        )
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [str(SERVER), "-c", str(self._file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + PATIENCE
        while True:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 1) as sock:
                    if sock.recv(4).startswith(b"INFO"):
                        return
            except OSError:
                assert time.monotonic() < end, "nats-server does not listen"
                assert self.process.poll() is None, "nats-server has ended"
                os.sched_yield()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def url(self, subject: str = "ureg", login: str = "") -> str:
        return f"nats://{login}127.0.0.1:{self.port}/{subject}"

    async def client(self, **more: object) -> nats.NATS:
        return await nats.connect(f"nats://127.0.0.1:{self.port}", **more)  # type: ignore[arg-type]

    async def make_stream(
        self,
        name: str = "UREG",
        subjects: str = "ureg.>",
        *,
        user: str | None = None,
        password: str | None = None,
        **more: object,
    ) -> None:
        client = await self.client(user=user, password=password)
        await client.jetstream().add_stream(StreamConfig(name=name, subjects=[subjects], **more))  # type: ignore[arg-type]
        await client.close()

    async def messages(self, name: str = "UREG") -> list[tuple[int, str, dict[str, str], bytes]]:
        """All of a stream: sequence, subject, headers, data."""
        client = await self.client()
        context = client.jetstream()
        last = (await context.stream_info(name)).state.last_seq
        got = [await context.get_msg(name, number) for number in range(1, last + 1)]
        await client.close()
        return [(each.seq or 0, each.subject or "", dict(each.headers or {}), each.data or b"") for each in got]
