"""Homes, and the API in a command's own process: what works when no daemon runs."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from universal_registry.api.inprocess import InProcess
from universal_registry.app import embedded, init
from universal_registry.kernel.errors import Conflict, KeyMismatch, NotFound, ReadOnlyStore, RegistryError, StoreLocked
from universal_registry.kernel.settings import Places, RetrySettings, Settings
from universal_registry.observe.logs import Log
from universal_registry.storage.lock import StoreLock, read_holder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    quick = RetrySettings(base_delay_seconds=0.01, jitter_enabled=False, timeout_seconds=5)
    return Settings(home=tmp_path / "home", lock_wait=0.0, retry=quick)


@pytest.fixture
def places(settings: Settings) -> Places:
    return Places(settings.home)


@pytest.fixture
def opened(settings: Settings) -> Iterator[Callable[..., InProcess]]:
    made: list[InProcess] = []

    def open_one(**more: Any) -> InProcess:
        made.append(embedded(settings, **more))
        return made[-1]

    yield open_one
    for each in made:
        each.close()


def put(caller: InProcess, name: str) -> dict[str, Any]:
    path = f"/v1/default/aliases/{name}"
    reply: dict[str, Any] = caller.request("PUT", path, json={"spec": {"command": name}}).json()
    return reply


# --- homes ----------------------------------------------------------------------------------------------------------


def test_init_makes_a_home_once(settings: Settings, places: Places) -> None:
    made = init(settings)
    assert set(made.created) == {places.key, places.admin_token, places.registry_db, places.propagation_db}
    before = {path: path.read_bytes() for path in (places.key, places.admin_token)}
    again = init(settings)
    assert (again.created, again.incarnation) == ((), made.incarnation)
    assert {path: path.read_bytes() for path in before} == before
    assert {oct(path.stat().st_mode & 0o777) for path in before} == {"0o600"}
    assert oct(places.key.parent.stat().st_mode & 0o777) == "0o700"
    assert places.admin_token.read_text().startswith("ur_")


def _init_in_a_process(settings: Settings, results: Any) -> None:
    results.put(init(replace(settings, lock_wait=30.0)).incarnation)


def test_many_inits_at_once_make_one_home(settings: Settings, places: Places) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_init_in_a_process, args=(settings, results)) for _ in range(4)]
    for process in processes:
        process.start()
    found = {results.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(found) == 1
    assert not list(places.home.rglob("*.tmp"))


def test_an_existing_fernet_key_is_taken_over(settings: Settings, places: Places) -> None:
    places.key.parent.mkdir(parents=True, mode=0o700)
    places.key.write_bytes(b"A" * 43 + b"=")
    places.key.chmod(0o600)
    assert places.key not in init(settings).created
    assert places.key.read_bytes() == b"A" * 43 + b"="


def test_another_key_is_refused(settings: Settings, places: Places, opened: Callable[..., InProcess]) -> None:
    init(settings)
    places.key.write_bytes(b"A" * 43 + b"=")
    with pytest.raises(KeyMismatch, match="was sealed with key"):
        opened().request("GET", "/v1/-/status")
    with pytest.raises(KeyMismatch, match="was sealed with key"):
        init(settings)


def test_without_a_home_there_is_one_clear_error_and_nothing_is_made(
    settings: Settings, opened: Callable[..., InProcess]
) -> None:
    for method in ("GET", "POST"):
        with pytest.raises(NotFound, match=r"there is no registry in .* yet \(make one with: ureg init\)") as caught:
            opened().request(method, "/v1/-/status")
        assert caught.value.exit_code == 3
    assert not settings.home.exists()


def test_a_propagation_store_that_is_gone_is_named_and_what_follows_is_said(
    settings: Settings, places: Places, opened: Callable[..., InProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    init(settings)
    caller = opened()
    put(caller, "gs")
    assert caller.request("GET", "/v1/-/status").json()["warnings"] == []
    caller.close()
    places.propagation_db.unlink()
    with pytest.raises(NotFound, match=r"propagation store .*\.registry_propagation\.db is missing") as caught:
        opened().request("GET", "/v1/-/status")
    assert (caught.value.exit_code, "ureg up" in str(caught.value.hint)) == (3, True)
    said: list[str] = []
    monkeypatch.setattr(Log, "warning", lambda _, event, **__: said.append(event))
    for _ in range(2):
        init(settings)
    assert said == ["the propagation store was missing"]
    caller = opened()
    (warning,) = caller.request("GET", "/v1/-/status").json()["warnings"]
    assert "what was delivered before may be sent again" in warning
    assert caller.request("GET", "/v1/default/aliases/gs").status == 200


def test_a_home_that_cannot_be_made(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ReadOnlyStore, match="cannot be made: not a directory"):
        init(replace(settings, home=tmp_path / "file" / "home"))


# --- reads and writes -----------------------------------------------------------------------------------------------


def test_reads_take_no_lock_and_see_what_another_process_commits(
    settings: Settings, places: Places, opened: Callable[..., InProcess]
) -> None:
    init(settings)
    reader, writer = opened(), opened()
    with pytest.raises(NotFound):
        reader.request("GET", "/v1/default/aliases/gs")
    assert read_holder(places.lock) is None
    put(writer, "gs")
    holder = read_holder(places.lock)
    assert holder is not None
    assert holder.pid == os.getpid()
    assert reader.request("GET", "/v1/default/aliases/gs").json()["spec"] == {"command": "gs"}
    assert reader.request("GET", "/v1/-/status").json()["records"] == 1


def test_a_write_waits_for_the_lock_and_then_names_its_holder(
    settings: Settings, places: Places, opened: Callable[..., InProcess]
) -> None:
    init(settings)
    lock = StoreLock.acquire(places.lock, role="daemon")
    with pytest.raises(StoreLocked, match=f"in use by process {os.getpid()} .daemon.") as caught:
        put(opened(), "gs")
    assert caught.value.exit_code == 5
    patient = embedded(replace(settings, lock_wait=30.0))
    waiting = threading.Timer(0.1, lock.release)
    waiting.start()
    try:
        assert put(patient, "gs")["effect"] == "created"
    finally:
        patient.close()
        waiting.join()


def test_a_removed_lock_file_lets_nobody_else_in(
    settings: Settings, places: Places, opened: Callable[..., InProcess]
) -> None:
    init(settings)
    lock = StoreLock.acquire(places.lock, role="daemon")
    try:
        shutil.rmtree(places.lock.parent)
        with pytest.raises(StoreLocked, match="in use by another process"):
            put(opened(), "gs")
    finally:
        lock.release()
    assert put(opened(), "gs")["effect"] == "created"


def test_init_beside_a_daemon_is_content_with_what_is_there(settings: Settings, places: Places) -> None:
    made = init(settings)
    lock = StoreLock.acquire(places.lock, role="daemon")
    try:
        assert init(settings).incarnation == made.incarnation
    finally:
        lock.release()


def test_a_reader_becomes_the_owner_at_its_first_write(settings: Settings, opened: Callable[..., InProcess]) -> None:
    init(settings)
    caller = opened()
    assert caller.request("GET", "/v1/-/status").json()["revision"] == 0
    assert put(caller, "gs")["revision"] == 1
    assert caller.request("GET", "/v1/default/aliases/gs").status == 200


def test_errors_come_as_what_they_are(settings: Settings, opened: Callable[..., InProcess]) -> None:
    init(settings)
    caller = opened()
    for method, path, body in (
        ("GET", "/v1/default/aliases/none", None),
        ("PUT", "/v1/default/aliases/gs", b'{"spec": {"a": 1, "a": 2}}'),
        ("GET", "/nowhere", None),
        ("GET", "/v1/default/aliases/%zz", None),
    ):
        with pytest.raises(RegistryError):
            caller.request(method, path, body=body)


# --- propagation ----------------------------------------------------------------------------------------------------


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.server.target.next_status())  # type: ignore[attr-defined]
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


class Target:
    """Answers each request with the next of its statuses, the last for good."""

    def __init__(self, *statuses: int) -> None:
        self._left = list(statuses)
        self.count = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.target = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def next_status(self) -> int:
        self.count += 1
        return self._left.pop(0) if len(self._left) > 1 else self._left[0]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def target() -> Iterator[Callable[..., Target]]:
    made: list[Target] = []

    def make(*statuses: int) -> Target:
        made.append(Target(*statuses))
        return made[-1]

    yield make
    for each in made:
        each.close()


def propagate(caller: InProcess, target: str) -> dict[str, Any]:
    body = {"mode": "unidirectional", "source": "gs", "target": target}
    reply: dict[str, Any] = caller.request("POST", "/v1/-/propagate", json=body).json()
    return reply


def state(caller: InProcess) -> list[str]:
    (found,) = caller.request("GET", "/v1/-/where", query={"name": "gs"}).json()["items"]
    return [item["state"] for item in found["targets"]]


def test_a_command_that_propagates_returns_when_it_has_arrived(
    settings: Settings, opened: Callable[..., InProcess], target: Callable[..., Target]
) -> None:
    init(settings)
    receiver, caller = target(200), opened()
    put(caller, "gs")
    propagate(caller, receiver.url)
    assert receiver.count == 1
    assert state(caller) == ["arrived"]
    caller.close()
    assert state(opened()) == ["arrived"], "and that is stored"
    propagate(opened(), receiver.url)
    assert receiver.count == 1, "a repeat changes nothing"


def test_a_target_that_fails_is_tried_once_and_polling_sees_the_retries(
    settings: Settings, opened: Callable[..., InProcess], target: Callable[..., Target]
) -> None:
    init(settings)
    receiver, caller = target(500, 500, 200), opened()
    put(caller, "gs")
    propagate(caller, receiver.url)
    states = [state(caller)]
    never = threading.Event()
    while states[-1] != ["arrived"] and len(states) < 500:
        never.wait(0.01)
        states.append(state(caller))
    assert states[-1] == ["arrived"]
    assert receiver.count == 3


def test_a_target_without_an_address_ends_the_command_at_once(
    settings: Settings, opened: Callable[..., InProcess]
) -> None:
    init(settings)
    caller = opened()
    put(caller, "gs")
    propagate(caller, "remote.service")
    assert state(caller) == ["held"]


def test_what_is_not_driven_waits_for_the_daemon(
    settings: Settings, opened: Callable[..., InProcess], target: Callable[..., Target]
) -> None:
    init(settings)
    receiver, caller = target(200), opened(drive=False)
    put(caller, "gs")
    propagate(caller, receiver.url)
    assert receiver.count == 0
    assert state(caller) == ["waiting"]
    caller.close()
    driven = opened()
    propagate(driven, receiver.url)
    assert receiver.count == 1


def test_a_dead_target_does_not_keep_the_command_for_long(settings: Settings, opened: Callable[..., InProcess]) -> None:
    init(settings)
    caller = opened()
    put(caller, "gs")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    propagate(caller, f"http://127.0.0.1:{port}/")
    assert state(caller) == ["waiting"]


@pytest.mark.parametrize("empty", [True, False])
def test_a_registry_that_lost_its_records_is_not_begun_anew(
    settings: Settings, places: Places, opened: Callable[..., InProcess], target: Callable[..., Target], empty: bool
) -> None:
    init(settings)
    caller = opened()
    put(caller, "gs")
    propagate(caller, target(200).url)
    caller.close()
    kept = places.registry_db.read_bytes()
    places.registry_db.unlink()
    if empty:
        places.registry_db.touch()
    with pytest.raises(Conflict, match="is missing or empty"):
        init(settings)
    places.registry_db.write_bytes(kept)
    assert opened().request("GET", "/v1/default/aliases/gs").status == 200


def test_without_a_daemon_status_says_what_nobody_has_looked_at(
    settings: Settings, opened: Callable[..., InProcess], target: Callable[..., Target]
) -> None:
    init(settings)
    receiver, caller = target(200), opened()
    put(caller, "gs")
    propagate(caller, receiver.url)
    caller.close()
    unseen = opened(drive=False)
    put(unseen, "gs2")
    unseen.request("PATCH", "/v1/default/aliases/gs", json={"spec": {"command": "other"}})
    unseen.close()
    warnings = opened().request("GET", "/v1/-/status").json()["warnings"]
    assert any("not been read to the end" in warning and warning.endswith(": ureg up") for warning in warnings)
