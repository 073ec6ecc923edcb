"""Connections that break at the worst moment, and servers that are killed under load."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pgserver
import pytest

from universal_registry.kernel.errors import NotFound, StorageFull, StorageUnavailable
from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import PostgresSettings
from universal_registry.log.chain import GENESIS, verify
from universal_registry.registry.service import Actor

OPERATOR = Actor("uid:1000", admin=True)


def alias(name: str, command: str = "git status") -> dict[str, Any]:
    return {"kind": "alias", "name": name, "spec": {"command": command}}


class Wire:
    """Between client and server. Breaks the connection at the next COMMIT: before it is passed on, or once done."""

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.at_commit = ""
        self.broken = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_unix_connection(self.upstream)
        back = asyncio.ensure_future(self._pass(theirs, writer))
        try:
            while chunk := await reader.read(65536):
                if b"COMMIT" in chunk and (how := self.at_commit):
                    self.at_commit, self.broken = "", self.broken + 1
                    back.cancel()
                    if how == "after":
                        ours.write(chunk)
                        await theirs.read(65536)
                    return
                ours.write(chunk)
        except ConnectionError:
            pass
        finally:
            back.cancel()
            for each in (ours, writer):
                each.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(65536):
            writer.write(chunk)
        writer.close()


@pytest.fixture
async def wire(database: PostgresSettings) -> AsyncIterator[tuple[Wire, PostgresSettings]]:
    with tempfile.TemporaryDirectory(prefix="wire-", dir="/tmp") as folder:
        wire = Wire(f"{database.host}/.s.PGSQL.5432")
        server = await asyncio.start_unix_server(wire.serve, f"{folder}/.s.PGSQL.5432")
        async with server:
            yield wire, PostgresSettings(host=folder, name=database.name, user=database.user)


async def test_a_commit_whose_answer_was_lost_is_found_in_the_log(wire: Any, opened: Any) -> None:
    between, settings = wire
    async with opened(settings) as daemon:
        await daemon.service.put(alias("first"), actor=OPERATOR)
        between.at_commit = "after"
        written = await daemon.service.put(alias("gs"), actor=OPERATOR)
        assert (between.broken, written.revision) == (1, 2)
        assert (await daemon.service.get(Key("alias", "default", "gs"))).revision == 2
        assert (await daemon.service.put(alias("gs", "more"), actor=OPERATOR)).revision == 3


async def test_a_commit_that_never_arrived_is_refused_and_not_done(wire: Any, opened: Any) -> None:
    between, settings = wire
    async with opened(settings) as daemon:
        await daemon.service.put(alias("first"), actor=OPERATOR)
        between.at_commit = "before"
        with pytest.raises(StorageUnavailable, match="nothing of it was done") as caught:
            await daemon.service.put(alias("gs"), actor=OPERATOR)
        assert caught.value.retryable
        assert between.broken == 1
        with pytest.raises(NotFound):
            await daemon.service.get(Key("alias", "default", "gs"))
        assert (await daemon.service.put(alias("gs"), actor=OPERATOR)).revision == 2


# --- the server itself ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def own_server(opened: Any) -> AsyncIterator[tuple[pgserver.Server, Any]]:
    """A server that keeps what it acknowledged, for this test alone."""
    try:
        server = await asyncio.to_thread(pgserver.Server, options={"fsync": "on", "full_page_writes": "on"})
    except pgserver.NoServerHere as error:
        pytest.skip(str(error))
    try:
        async with opened(server.database("killed")) as daemon:
            yield server, daemon
    finally:
        await asyncio.to_thread(server.close)


@pytest.mark.slow
async def test_a_server_killed_under_load_is_back_in_five_seconds_and_nothing_acknowledged_is_lost(opened: Any) -> None:
    acknowledged: dict[str, int] = {}
    refusals: list[BaseException] = []
    stop = asyncio.Event()

    async def write(daemon: Any, writer: int) -> None:
        turn = 0
        while not stop.is_set():
            turn += 1
            name = f"w{writer}-{turn}"
            try:
                acknowledged[name] = (await daemon.service.put(alias(name), actor=OPERATOR)).revision
            except StorageUnavailable as error:
                refusals.append(error)

    async with own_server(opened) as (server, daemon), asyncio.TaskGroup() as group:
        writers = [group.create_task(write(daemon, writer)) for writer in range(8)]
        for _ in range(2):
            await grows(acknowledged, 100)
            await asyncio.to_thread(server.stop, signal.SIGQUIT)
            await asyncio.to_thread(server.start)
            began = time.monotonic()
            await grows(acknowledged, 8)
            assert time.monotonic() - began < 5
        stop.set()
        await asyncio.gather(*writers)
        lines: list[Any] = []
        while more := await daemon.store.changes(lines[-1].revision if lines else 0, 500):
            lines += more
        stored = {line.name: line.revision for line in lines}
        assert {name: stored.get(name) for name in acknowledged} == acknowledged
        assert verify(GENESIS, lines, 1) == (await daemon.store.head()).hash
        assert all(not error.data.get("in_doubt") for error in refusals if isinstance(error, StorageUnavailable))


async def grows(found: dict[str, int], by: int) -> None:
    wanted = len(found) + by
    async with asyncio.timeout(60):
        while len(found) < wanted:
            await asyncio.to_thread(pgserver.select_nothing, 0.005)


@pytest.fixture
def small_disk(postgres: pgserver.Server) -> Iterator[Path]:
    """A file system of 96 MB that the server may write; made larger by `mount -o remount`."""
    folder = postgres.folder / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", folder], check=False).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
        postgres.sql(f"CREATE TABLESPACE small LOCATION '{folder}'")
        postgres.sql("CREATE DATABASE on_small TABLESPACE small")
        yield folder
    finally:
        postgres.sql("DROP DATABASE IF EXISTS on_small WITH (FORCE)")
        postgres.sql("DROP TABLESPACE IF EXISTS small")
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.slow
async def test_a_full_disk_refuses_writes_serves_reads_and_recovers_by_itself(
    postgres: pgserver.Server, small_disk: Path, opened: Any
) -> None:
    noise = b"".join(hashlib.sha256(bytes([each % 251, each // 251])).digest() for each in range(4000)).hex()
    async with opened(postgres.settings("on_small")) as daemon:
        stored = 0
        with pytest.raises(StorageFull, match="no space left"):  # noqa: PT012
            while stored < 1000:
                await daemon.service.put(alias(f"a{stored}", noise[stored:]), actor=OPERATOR)
                stored += 1
        assert stored > 1
        assert (await daemon.service.get(Key("alias", "default", "a0"))).revision == 1
        assert (await daemon.store.head()).revision == stored
        larger = ["mount", "-o", "remount,size=192m", small_disk]
        await asyncio.to_thread(subprocess.run, larger, check=True)
        written = await daemon.service.put(alias("after", noise), actor=OPERATOR)
        assert written.revision == stored + 1
        assert verify(GENESIS, await daemon.store.changes(0, 10_000), 1) == (await daemon.store.head()).hash


def test_the_programs_of_postgresql_are_found(postgres_server: pgserver.Server) -> None:
    assert (pgserver.programs() / "postgres").is_file()
    assert Path(postgres_server.folder, ".s.PGSQL.5432").is_socket()
