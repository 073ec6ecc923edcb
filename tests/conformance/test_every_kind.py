"""All kinds of the catalogue through all verbs of the API, over each engine."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest

from universal_registry.api.auth import Auth
from universal_registry.api.context import Observed
from universal_registry.api.dispatch import Api
from universal_registry.api.http import Peer, PeerKind, Response, request_from, whole_body
from universal_registry.client.http import prepare, record_path
from universal_registry.kernel.settings import Settings
from universal_registry.observe.audit import PROPAGATION, REGISTRY, Audit
from universal_registry.observe.denials import Denials
from universal_registry.observe.figures import FiguresReader
from universal_registry.observe.health import Health
from universal_registry.propagation.control import PropagationControl
from universal_registry.propagation.lanes.outcome_counts import Tally
from universal_registry.registry.catalogue import Kind
from universal_registry.registry.check import check_registry
from universal_registry.registry.consumers import Consumers
from universal_registry.registry.service import RegistryService
from universal_registry.registry.tokens import Tokens
from universal_registry.security.cipher import KEPT
from universal_registry.storage.audit_sqlite import SqliteTrail
from universal_registry.storage.consumers_sqlite import SqliteConsumers
from universal_registry.storage.database import Database
from universal_registry.storage.lanes_sqlite import SqliteLanes
from universal_registry.storage.tokens_sqlite import SqliteTokens

sys.path.insert(0, str(Path(__file__).parent))
from test_registry_store import CATALOGUE, ENGINES, WORLD, Opener

KINDS = list(CATALOGUE.kinds.values())
INPROC = Peer(kind=PeerKind.INPROC)


class _Front:
    """The API over a service, in process."""

    def __init__(self, service: RegistryService, folder: Path) -> None:
        self.service = service
        self._lanes = Database.open(folder / "lanes.db", "propagation")
        lanes, engine = SqliteLanes(self._lanes), _NoEngine()
        control = PropagationControl(service, lanes, {}, engine, WORLD, Settings(home=folder))
        health = Health(head=service.log.head, troubles=(), unready=str, world=WORLD)
        trail = SqliteTrail(self._lanes)
        denials = Denials(WORLD, trail.record)
        self._bugs: list[BaseException] = []
        self._api = Api(
            service=service,
            control=control,
            health=health,
            observed=Observed(
                keys=None,  # type: ignore[arg-type] # no route of it is asked for here
                compaction=None,  # type: ignore[arg-type] # nor of it
                tokens=Tokens(SqliteTokens(self._lanes), WORLD),
                audit=Audit(service.log, {REGISTRY: trail, PROPAGATION: trail}),
                denials=denials,
                consumers=Consumers(SqliteConsumers(self._lanes), service.log, WORLD),
                streams=None,  # type: ignore[arg-type] # nor of it
                studio=None,  # type: ignore[arg-type] # nor of it
                links=None,  # type: ignore[arg-type] # nor of it
                pairing=None,  # type: ignore[arg-type] # nor of it
                link_status=None,  # type: ignore[arg-type] # nor of it
                figures=FiguresReader(service, lanes, engine, health, Tally(), denials, store="sqlite"),
            ),
            auth=Auth(uid=os.getuid(), admin_token_hash=None),
            world=WORLD,
            unexpected=lambda error, _: self._bugs.append(error),
        )

    async def __call__(self, method: str, path: str, *, status: int = 200, **asked: Any) -> Any:
        target, sent, data = prepare(
            path, asked.get("query"), asked.get("json"), asked.get("body"), asked.get("headers")
        )
        answered = await self._api.dispatch(request_from(method, target, list(sent.items()), data, INPROC))
        answer = Response(status=answered.status, headers=answered.headers, body=await whole_body(answered))
        assert self._bugs == []
        assert isinstance(answer.body, bytes)
        assert answer.status == status, answer.body
        if answer.header("content-type").endswith("ndjson"):
            return answer.body
        return orjson.loads(answer.body)

    def close(self) -> None:
        self._lanes.close()


class _NoEngine:
    def wake(self) -> None:
        pass

    def positions(self) -> Mapping[str, Any]:
        return {}

    def look(self) -> None:
        """Nobody obeys here."""

    async def lag(self) -> int:
        return 0


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Opener:
    if request.param == "postgres":
        request.getfixturevalue("postgres")
    return ENGINES[request.param]


@pytest.fixture
async def ask(engine: Opener, tmp_path: Path) -> AsyncIterator[_Front]:
    async with engine(tmp_path) as service:
        front = _Front(service, tmp_path)
        yield front
        front.close()


def example(kind: Kind, **more: Any) -> dict[str, Any]:
    """The kind's own example, with secrets where it says that they are kept."""
    return {**_told(dict(kind.example)), "kind": kind.name, "namespace": "walk", **more}


def _told(value: Any) -> Any:
    if value == KEPT:
        return "a secret of the walk"
    return {name: _told(item) for name, item in value.items()} if isinstance(value, dict) else value


def content(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in ("kind", "namespace", "name", "meta")}


def without_meta(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != "meta"}


def test_there_are_forty_two() -> None:
    assert len(KINDS) == 42


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_a_kind_through_every_verb(ask: _Front, kind: Kind) -> None:
    document = example(kind)
    path = record_path("walk", kind.plural, document["name"])
    # create, read, list
    made = await ask("PUT", path, status=201, json=content(document))
    assert made["warnings"] == []
    shown = await ask("GET", path)
    assert without_meta(shown) == without_meta(made["record"])
    assert without_meta(shown)["spec"].keys() == document["spec"].keys()
    assert [each["name"] for each in (await ask("GET", f"/v1/walk/{kind.plural}"))["items"]] == [document["name"]]
    assert [each["kind"] for each in (await ask("GET", "/v1/-/find", query={"name": document["name"]}))["items"]] == [
        kind.name
    ]
    # what is shown may be written back, and changes nothing
    assert (await ask("PUT", path, json=content(shown)))["effect"] == "unchanged"
    # patch, in both forms
    steps = [
        {"op": "test", "path": "/spec", "value": shown["spec"]},
        {"op": "add", "path": "/labels/a~1b", "value": "c"},
    ]
    patched = await ask("PATCH", path, json=steps, headers={"content-type": "application/json-patch+json"})
    assert patched["record"]["labels"]["a/b"] == "c"
    merged = await ask("PATCH", path, json={"title": "A walk"})
    assert (merged["revision"], merged["record"]["meta"]["generation"]) == (3, 3)
    # export, delete, import: the same to the byte
    exported = await ask("GET", "/v1/-/export")
    removed = await ask("DELETE", path)
    assert removed["effect"] == "deleted"
    assert (await ask("GET", "/v1/-/export")) == b""
    await ask("POST", "/v1/-/apply", body=exported, headers={"content-type": "application/x-ndjson"})
    assert (await ask("GET", "/v1/-/export")) == exported
    again = await ask("POST", "/v1/-/apply", body=exported, headers={"content-type": "application/x-ndjson"})
    assert [each["effect"] for each in again["results"]] == ["unchanged"]
    # the past
    found = await ask("GET", "/v1/-/history", query={"kind": kind.name, "namespace": "walk", "name": document["name"]})
    assert [(each["revision"], each["op"]) for each in found["items"]] == [
        (5, "put"),
        (4, "delete"),
        (3, "put"),
        (2, "put"),
        (1, "put"),
    ]
    assert [each["changed"] for each in found["items"][2:4]] == [["title"], ["labels.a/b"]]
    assert without_meta(await ask("GET", path, query={"rev": 1})) == without_meta(shown)
    assert without_meta(await ask("GET", path, query={"rev": 3})) == without_meta(merged["record"])
    await ask("GET", path, status=404, query={"rev": 4})
    checked = await check_registry(ask.service.records, ask.service.log, ask.service.event_commitment)
    assert (checked.revision, checked.lines, checked.records) == (5, 5, 1)


async def test_all_kinds_together(ask: _Front) -> None:
    """One batch, one export, one import, as one revision each."""
    await ask("POST", "/v1/-/apply", json=[example(kind) for kind in KINDS])
    exported = await ask("GET", "/v1/-/export")
    lines = [orjson.loads(line) for line in exported.splitlines()]
    assert [each["kind"] for each in lines] == sorted(kind.name for kind in KINDS)
    operations = [{"op": "delete", **{name: each[name] for name in ("kind", "namespace", "name")}} for each in lines]
    assert (await ask("POST", "/v1/batch", json={"operations": operations}))["revision"] == 2
    assert (await ask("GET", "/v1/-/records", query={"limit": 1000}))["items"] == []
    imported = await ask("POST", "/v1/-/apply", body=exported, headers={"content-type": "application/x-ndjson"})
    assert (imported["revision"], len(imported["results"])) == (3, len(KINDS))
    assert await ask("GET", "/v1/-/export") == exported
    checked = await check_registry(ask.service.records, ask.service.log, ask.service.event_commitment)
    assert (checked.revision, checked.lines, checked.records) == (3, 3 * len(KINDS), len(KINDS))
