"""A studio beside a daemon that is killed: what was acknowledged on either side is on both, in the end."""

from __future__ import annotations

import json
import signal
import threading
from http.client import HTTPException
from pathlib import Path
from typing import Any

from reference_studio import ReferenceStudio

from universal_registry.client.http import Client
from universal_registry.kernel.errors import RegistryError

COUNT = 20


class Syncing:
    """A studio that syncs again and again, and edits a component between two exchanges, until it is ended."""

    def __init__(self, studio: ReferenceStudio) -> None:
        self.studio = studio
        self.pushed = 0
        self._ended = threading.Event()
        self._grown = threading.Condition()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        number = 0
        while not self._ended.is_set():
            number += 1
            edited = f"c{number % COUNT}"
            known = edited in self.studio.components
            if known:
                self.studio.edit(edited, note=str(number))
            try:
                answer = self.studio.sync(*([edited] if known else []))
            except (OSError, HTTPException, json.JSONDecodeError, KeyError):
                continue  # the daemon is gone, or not there yet: the copy is kept, and pushed again some time
            with self._grown:
                self.pushed += sum(each["status"] == "ok" for each in answer["pushed"])
                self._grown.notify_all()

    def until(self, count: int) -> None:
        with self._grown:
            assert self._grown.wait_for(lambda: self.pushed >= count, 60)

    def end(self) -> None:
        self._ended.set()
        self._thread.join(60)


def test_nothing_is_lost_between_a_studio_and_a_daemon_that_is_killed(start: Any, tmp_path: Path) -> None:
    daemon = start().ready()
    client = daemon.client()
    for number in range(COUNT):
        client.request("PUT", f"/v1/default/aliases/n{number}", json={"spec": {"command": "0"}})
        binding = {"entry": f"alias/n{number}", "component": f"c{number}"}
        client.request("POST", "/v1/-/nexus/bindings", json=binding)
    studio = ReferenceStudio(client.address)
    syncing = Syncing(studio)
    acknowledged: dict[str, str] = {}
    try:
        for life in range(3):
            syncing.until((life + 1) * 15)
            written = _write_until_it_dies(daemon, life, acknowledged)
            assert written > 0
            daemon = start().ready()
    finally:
        syncing.end()
    for (
        name,
        spec,
    ) in studio.components.items():  # an edit whose exchange broke is pushed at last, or told as a conflict
        studio.edit(name, **{"note": "last"} if spec else {})
    for _ in range(5):
        answer = studio.sync(*studio.components)
        for name in studio.components:
            studio.edit(name, note="last")
    assert {each["status"] for each in answer["pushed"]} == {"ok"}
    client = daemon.client()
    for number in range(COUNT):
        record = client.request("GET", f"/v1/default/aliases/n{number}").json()
        assert record["spec"] == studio.components[f"c{number}"]["spec"]
        assert record["spec"]["note"] == "last"
        assert int(record["spec"]["command"]) >= int(acknowledged.get(f"n{number}", "0"))
    client.close()


def _write_until_it_dies(daemon: Any, life: int, acknowledged: dict[str, str]) -> int:
    """Edit the other field of the records, and kill the daemon in the middle: how many edits were acknowledged."""
    client: Client = daemon.client()
    killer = threading.Timer(0.2, lambda: daemon.process.send_signal(signal.SIGKILL))
    killer.start()
    written = 0
    try:
        while True:
            name, value = f"n{written % COUNT}", str(life * 1_000_000 + written)
            client.request("PATCH", f"/v1/default/aliases/{name}", json={"spec": {"command": value}})
            acknowledged[name] = value
            written += 1
    except RegistryError:
        daemon.wait()
        return written
    finally:
        killer.join()
        client.close()
