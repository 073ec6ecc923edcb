"""Kill -9 in the middle of bulk loads: of each batch all is there or nothing, and the next load goes on."""

from __future__ import annotations

import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson
import pytest
from pressure import Daemon

from universal_registry.client.http import Client
from universal_registry.kernel.errors import RegistryError

SIZE = 400
ROUNDS = 6


def operations(batch: str) -> list[dict[str, Any]]:
    """New records, and some that each batch changes."""
    new = [{"op": "put", "kind": "alias", "name": f"{batch}-{n}", "spec": {"command": batch}} for n in range(SIZE // 2)]
    same = [{"op": "put", "kind": "alias", "name": f"same-{n}", "spec": {"command": batch}} for n in range(SIZE // 2)]
    return new + same


class Loader:
    """Sends one batch after the other until the daemon is gone."""

    def __init__(self, client: Client, turn: int) -> None:
        self.acknowledged: dict[str, int] = {}
        self.sent: list[str] = []
        self._client, self._turn = client, turn
        self._grown = threading.Condition()
        self._thread = threading.Thread(target=self._load)
        self._thread.start()

    def _load(self) -> None:
        for number in range(10_000):
            batch = f"b{self._turn}x{number}"
            with self._grown:
                self.sent.append(batch)
                self._grown.notify_all()
            try:
                reply = self._client.request("POST", "/v1/batch", json={"operations": operations(batch)}).json()
            except RegistryError:
                return
            self.acknowledged[batch] = reply["revision"]

    def until_sent(self, count: int) -> None:
        with self._grown:
            assert self._grown.wait_for(lambda: len(self.sent) >= count, 60)

    def end(self) -> None:
        self._thread.join(60)


@pytest.mark.slow
def test_of_each_batch_all_is_there_or_nothing(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "home")
    acknowledged: dict[str, int] = {}
    sent: list[str] = []
    try:
        for turn in range(ROUNDS):
            daemon.start()
            loader = Loader(daemon.client(), turn)
            loader.until_sent(2 + turn % 3)
            threading.Event().wait(0.004 * turn)  # into reading, deciding, writing, committing
            daemon.kill()
            loader.end()
            acknowledged |= loader.acknowledged
            sent += loader.sent
        daemon.start()
        with daemon.client() as client:
            found, commands = batches_in_log(client)
            records = records_in(client)
        assert daemon.stop() == 0
    finally:
        daemon.process.kill()
        daemon.process.wait()
    assert len(sent) > len(acknowledged) >= ROUNDS
    assert {batch: revision for batch, revision in found.items() if batch in acknowledged} == acknowledged
    assert found.keys() <= set(sent)
    newest = max(found, key=lambda batch: found[batch])
    assert commands == {f"same-{n}": newest for n in range(SIZE // 2)}
    names = {operation["name"] for batch in found for operation in operations(batch)}
    assert set(records) == names


def batches_in_log(client: Client) -> tuple[dict[str, int], dict[str, str]]:
    """Batch -> the one revision that all of it has; and what the common records say in the end."""
    lines: list[dict[str, Any]] = []
    cursor = None
    while True:
        *more, last = map(orjson.loads, client.request("GET", "/v1/changes", query={"after": cursor}).lines())
        if not more:
            break
        lines, cursor = lines + more, last["cursor"]
    ours = [line for line in lines if line["kind"] == "alias"]
    by_revision: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in ours:
        by_revision[line["revision"]].append(line)
    found: dict[str, int] = {}
    for revision, group in by_revision.items():
        (batch,) = {line["record"]["spec"]["command"] for line in group}
        assert [line["name"] for line in group] == [operation["name"] for operation in operations(batch)]
        assert batch not in found
        found[batch] = revision
    commands = {line["name"]: line["record"]["spec"]["command"] for line in ours if line["name"].startswith("same-")}
    return found, commands


def records_in(client: Client) -> list[str]:
    names: list[str] = []
    page = None
    while True:
        reply = client.request("GET", "/v1/default/aliases", query={"limit": 1000, "page": page}).json()
        names += [item["name"] for item in reply["items"]]
        page = reply.get("next")
        if not page:
            return names
