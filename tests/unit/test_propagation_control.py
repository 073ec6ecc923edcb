"""The propagation verbs over the real stores, and with the real engine where something is sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from universal_registry.kernel.errors import (
    AddressRefused,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Refused,
    RegistryError,
    UsageError,
)
from universal_registry.kernel.ids import Key
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import uuid7_hex
from universal_registry.log.change import Change, Op
from universal_registry.propagation.control import PropagationControl
from universal_registry.propagation.engine.engine import Engine
from universal_registry.propagation.lanes.lane import (
    WHOLE,
    Backfill,
    Breaker,
    Delivery,
    DeliveryState,
    Lane,
    Position,
    Settlements,
)
from universal_registry.propagation.lanes.outcome import Accepted, Failed, Outcome
from universal_registry.propagation.ports import Envelope
from universal_registry.propagation.verbs.targets import TargetOptions
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.service import Actor, RegistryService
from universal_registry.security.cipher import Sealer
from universal_registry.security.keyring import Keyring, new_key
from universal_registry.security.signing import parse_secret, verify
from universal_registry.security.wire import parse_wire_key
from universal_registry.storage.database import Database
from universal_registry.storage.lanes_sqlite import SqliteLanes
from universal_registry.storage.registry_sqlite import SqliteRegistry
from universal_registry.storage.writer import GroupWriter

ADMIN, GUEST = Actor("uid:0", admin=True), Actor("token:ci")
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
URL = "http://127.0.0.1:9000/hook"


class HeldWorld:
    """A world whose clock moves only when told to, and whose chance is always the same."""

    def __init__(self) -> None:
        self.moment = NOW
        self._count = 0

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return (self.moment - NOW).total_seconds()

    def chance(self) -> float:
        return 0.0

    def new_id(self) -> str:
        return uuid7_hex(1_700_000_000_000, self.secret_bytes(10))

    def secret_bytes(self, count: int) -> bytes:
        self._count += 1
        return self._count.to_bytes(count, "big")


class Far:
    """The far side: keeps what it gets, answers what it is told to."""

    name = "webhook"

    def __init__(self) -> None:
        self.got: list[Envelope] = []
        self.answer: Outcome = Accepted(status=204, milliseconds=1.5)

    async def send(self, envelope: Envelope) -> Outcome:
        self.got.append(envelope)
        return self.answer

    async def close(self) -> None:
        return None

    def subjects(self) -> list[str]:
        return [orjson.loads(each.body)["subject"] for each in self.got]


class View:
    """What an engine would say; at first that it knows no more than the store."""

    def __init__(self) -> None:
        self.places: dict[str, Position] = {}
        self.behind = 0

    def positions(self) -> Mapping[str, Position]:
        return self.places

    def look(self) -> None:
        """Nobody obeys here."""

    async def lag(self) -> int:
        return self.behind


class Place:
    """A registry in a temporary folder, its control, and an engine that runs when asked."""

    def __init__(self, folder: Path) -> None:
        self.world = HeldWorld()
        self.settings = Settings(home=folder)
        catalogue = load_catalogue()
        self.registry = SqliteRegistry.open(folder / "r.db", catalogue, self.world)
        self.database = Database.open(folder / "p.db", "propagation")
        self.lanes = SqliteLanes(self.database)
        self.writer = GroupWriter(self.registry, catalogue)
        self.service = RegistryService(
            catalogue=catalogue,
            sealer=Sealer(Keyring.of(new_key(self.world)), bytes(32)),
            writer=self.writer,
            records=self.registry,
            log=self.registry,
            world=self.world,
        )
        self.far = Far()
        transports = {"webhook": self.far}
        self.view = View()
        self.control = PropagationControl(self.service, self.lanes, transports, self.view, self.world, self.settings)
        self.engine = Engine(self.service, self.lanes, transports, self.settings)

    async def close(self) -> None:
        await self.writer.close()
        self.registry.database.close()
        self.database.close()

    async def put(self, kind: str, name: str, spec: dict[str, Any] | None = None, **more: Any) -> int:
        document = {"kind": kind, "name": name, "spec": spec or {}, **more}
        return (await self.service.put(document, actor=ADMIN)).revision

    async def head(self) -> int:
        return (await self.registry.head()).revision

    async def lines(self, op: Op) -> list[Change]:
        return [line for line in await self.registry.changes(0, 1000) if line.op is op]

    async def lane(self, name: str, position: Position, *rows: Delivery, **changes: Any) -> None:
        """Store a lane as an engine would leave it."""
        record = await self.service.get(Key("endpoint", "system", name))
        lane = Lane(
            lane_id=record.uid,
            target_uid=record.uid,
            target_namespace="system",
            target_name=name,
            transport="webhook",
            owner="boot",
            generation=1,
            incarnation=(await self.registry.head()).incarnation,
            position=position,
        )
        rows = tuple(replace(row, lane_id=record.uid) for row in rows)
        await self.lanes.apply(Settlements(lanes=(replace(lane, **changes),), upserts=rows))

    async def deliver(self) -> None:
        """Let the engine run until nothing is left to do now, then let it store how far it has come."""
        for _ in range(50):
            more = await self.engine.plan()
            if self.engine.idle and not more:
                break
            for job in self.engine.take():
                await self.engine.run(job)
            await self.engine.settle()
        else:
            raise AssertionError("the engine never came to rest")
        self.world.moment += timedelta(seconds=6)
        await self.engine.settle()

    async def arrival(self, name: str, target: str = "system/mine") -> dict[str, Any]:
        (found,) = await self.control.where(name)
        (entry,) = [each for each in found["targets"] if each["target"] == target]
        return entry


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    opened = Place(tmp_path)
    yield opened
    await opened.close()


def row(key: Key, revision: int, **changes: Any) -> Delivery:
    plain = Delivery(
        delivery_id=f"dlv_{key.name}_{revision}",
        lane_id="",
        session_id="s",
        route_uid="r",
        op="put",
        kind=key.kind,
        namespace=key.namespace,
        name=key.name,
        revision=revision,
        seq=0,
        created_at=NOW,
        updated_at=NOW,
    )
    return replace(plain, **changes)


# --- targets --------------------------------------------------------------------------------------------------------


async def test_adding_a_target_shows_its_secret_once(place: Place) -> None:
    added = await place.control.add_target("mine", URL, actor=ADMIN)
    assert (added["target"], added["result"], added["network"]) == ("system/mine", "created", "loopback")
    assert added["notes"] == ["network: loopback, as you are the local administrator"]
    parse_secret(added["secret"])
    again = await place.control.add_target("mine", URL, actor=ADMIN)
    assert (again["result"], again["revision"], again["network"]) == ("unchanged", added["revision"], "loopback")
    assert "secret" not in again
    assert await place.head() == added["revision"]
    record = await place.service.get(Key("endpoint", "system", "mine"))
    assert place.service.reveal(record)["delivery"]["secret"] == added["secret"]
    assert added["secret"] not in orjson.dumps(await place.control.targets()).decode()


async def test_adding_with_a_selector_makes_a_route_in_the_same_revision(place: Place) -> None:
    added = await place.control.add_target("mine", URL, select="kind=alias", actor=ADMIN)
    assert added["route"] == {"route": "mine", "selector": "kind=alias", "result": "created"}
    assert await place.head() == added["revision"] == 1
    (route,) = await place.control.routes()
    assert (route["route"], route["targets"], route["selector"]) == ("mine", ["system/mine"], {"kinds": ["alias"]})
    again = await place.control.add_target("mine", URL, select="kind=alias", actor=ADMIN)
    assert (again["route"]["result"], await place.head()) == ("unchanged", 1)
    await place.control.add_target("mine", URL, select="kind=service", actor=ADMIN)
    assert [route["selector"] for route in await place.control.routes()] == [{"kinds": ["service"]}]


async def test_of_two_who_add_the_same_target_one_is_shown_the_secret_that_counts(place: Place) -> None:
    by_name = [place.control.add_target("mine", URL, actor=ADMIN) for _ in range(4)]
    by_url = [place.control.propagate("unidirectional", f"s{n}", URL, actor=ADMIN) for n in range(4)]
    for name, calls in (("mine", by_name), ("127.0.0.1:9000/hook", by_url)):
        answers = await asyncio.gather(*calls)
        secrets = [answer["secret"] for answer in answers if "secret" in answer]
        record = await place.service.get(Key("endpoint", "system", name))
        assert secrets == [place.service.reveal(record)["delivery"]["secret"]]


async def test_an_endpoint_that_was_there_becomes_a_target_and_stays_what_it_is(place: Place) -> None:
    await place.put(
        "endpoint", "mine", {"health_url": "https://x.example"}, namespace="system", classification="ApiEndpoint"
    )
    added = await place.control.add_target("mine", URL, actor=ADMIN)
    assert (added["result"], "secret" in added) == ("updated", True)
    record = await place.service.get(Key("endpoint", "system", "mine"))
    assert (record.classification, record.spec["health_url"]) == ("ApiEndpoint", "https://x.example")


async def test_moving_a_target_keeps_its_secret_and_judges_the_new_address(place: Place) -> None:
    first = await place.control.add_target("mine", URL, actor=ADMIN)
    moved = await place.control.add_target("mine", "https://hooks.example/x", actor=ADMIN)
    assert (moved["result"], moved["network"]) == ("updated", "public")
    assert "secret" not in moved
    assert moved["warnings"]
    record = await place.service.get(Key("endpoint", "system", "mine"))
    assert place.service.reveal(record)["delivery"]["secret"] == first["secret"]
    other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    changed = await place.control.add_target(
        "mine", "https://hooks.example/x", options=TargetOptions(secret=other), actor=ADMIN
    )
    assert (changed["result"], "secret" in changed) == ("updated", False)


async def test_what_is_refused_stores_nothing(place: Place) -> None:
    refused: list[tuple[type[RegistryError], dict[str, Any]]] = [
        (AddressRefused, {"url": "http://hooks.example/x"}),
        (AddressRefused, {"url": "http://169.254.169.254/"}),
        (AddressRefused, {"url": URL, "actor": GUEST}),
        (Forbidden, {"url": URL, "options": TargetOptions(network="loopback"), "actor": GUEST}),
        (Invalid, {"url": "mailto:x"}),
        (Invalid, {"url": URL, "namespace": "default"}),
        (Invalid, {"url": URL, "options": TargetOptions(network="lan")}),
        (Invalid, {"url": URL, "options": TargetOptions(secret="whsec_short")}),
        (Invalid, {"url": URL, "options": TargetOptions(format="smoke")}),
        (Invalid, {"url": URL, "options": TargetOptions(format="template", template="{{ x( }}")}),
        (Invalid, {"url": URL, "options": TargetOptions(template="{{ text }}")}),
        (Invalid, {"url": URL, "select": "kind=alais"}),
        (Invalid, {"name": "bad\nname", "url": URL}),
    ]
    for error, arguments in refused:
        with pytest.raises(error):
            await place.control.add_target(**{"name": "mine", "actor": ADMIN, **arguments})
    assert await place.head() == 0


async def test_insecure_http_is_asked_for_and_ends_with_a_move(place: Place) -> None:
    await place.control.add_target(
        "mine", "http://hooks.example/x", options=TargetOptions(insecure_http=True), actor=ADMIN
    )
    again = await place.control.add_target("mine", "http://hooks.example/x", actor=ADMIN)
    assert again["result"] == "unchanged"
    with pytest.raises(AddressRefused):
        await place.control.add_target("mine", "http://other.example/x", actor=ADMIN)
    await place.control.add_target("mine", "https://hooks.example/x", actor=ADMIN)
    record = await place.service.get(Key("endpoint", "system", "mine"))
    assert "insecure_http" not in record.spec["delivery"]


async def test_a_name_taken_by_another_policy_is_a_conflict(place: Place) -> None:
    await place.put("policy", "mine", {}, namespace="system", classification="AccessPolicy")
    with pytest.raises(Conflict, match="AccessPolicy"):
        await place.control.add_target("mine", URL, select="kind=alias", actor=ADMIN)
    await place.control.add_target("other", URL, actor=ADMIN)
    with pytest.raises(Conflict):
        await place.control.add_route("mine", "kind=alias", ["other"], actor=ADMIN)


async def test_an_unknown_target_is_met_with_a_guess(place: Place) -> None:
    await place.control.add_target("laptop", URL, actor=ADMIN)
    with pytest.raises(NotFound) as caught:
        await place.control.target("system", "lapto")
    assert "laptop" in str(caught.value)
    with pytest.raises(NotFound):
        await place.control.add_route("r", "kind=alias", ["laptop", "desktop"], actor=ADMIN)
    assert (await place.control.target("system", "laptop"))["state"] == "ready"


async def test_a_route_with_secrets_needs_a_target_that_seals(place: Place) -> None:
    await place.control.add_target("mine", URL, actor=ADMIN)
    with pytest.raises(Refused, match="ureg target key rotate mine"):
        await place.control.add_route("r", "kind=secret", ["mine"], secrets="include", actor=ADMIN)
    made = await place.control.set_target("system", "mine", TargetOptions(seal="always"), actor=ADMIN)
    parse_wire_key(made["seal_key"])
    route = await place.control.add_route("r", "kind=secret", ["mine", "system/mine"], secrets="include", actor=ADMIN)
    assert (route["targets"], route["result"], route["warnings"]) == (["system/mine"], "created", [])
    never = await place.control.set_target("system", "mine", TargetOptions(seal="never"), actor=ADMIN)
    assert never["warnings"] == ["secrets leave only sealed: r sends none to mine now"]
    with pytest.raises(Invalid):
        await place.control.add_route("r", "kind=secret", ["mine"], secrets="all", actor=ADMIN)


async def test_a_test_event_is_signed_sent_and_not_recorded(place: Place) -> None:
    added = await place.control.add_target("mine", URL, actor=ADMIN)
    found = await place.control.test_target("system", "mine")
    assert (found["delivered"], found["outcome"], found["status"], found["milliseconds"]) == (
        True,
        "accepted",
        204,
        1.5,
    )
    (envelope,) = place.far.got
    assert verify(dict(envelope.headers), envelope.body, [parse_secret(added["secret"])], NOW).id.startswith("test_")
    assert orjson.loads(envelope.body)["type"] == "registry.target.test.v1"
    assert (await place.head(), await place.lanes.lanes()) == (added["revision"], [])
    place.far.answer = Failed(reason="connection refused", status=None, milliseconds=0.4)
    failed = await place.control.test_target("system", "mine")
    assert (failed["delivered"], failed["reason"], "request" in failed) == (False, "connection refused", False)


async def test_show_gives_the_exact_request_and_sends_nothing(place: Place) -> None:
    added = await place.control.add_target("mine", URL, actor=ADMIN)
    shown = await place.control.test_target("system", "mine", show=True)
    assert (sorted(shown), place.far.got) == (["request", "target"], [])
    headers, body = dict(shown["request"]["headers"]), shown["request"]["body"].encode()
    assert verify(headers, body, [parse_secret(added["secret"])], NOW).id.startswith("test_")


async def test_a_target_without_an_address_or_transport_cannot_be_tested(place: Place) -> None:
    await place.control.propagate("unidirectional", "a", "nowhere", actor=ADMIN)
    with pytest.raises(Refused, match="ureg target add nowhere URL"):
        await place.control.test_target("system", "nowhere")
    delivery = {"transport": "nats", "network": "public"}
    await place.put("endpoint", "bus", {"url": "https://x.example", "delivery": delivery}, namespace="system")
    with pytest.raises(Refused, match="webhook"):
        await place.control.test_target("system", "bus")


# --- propagate ------------------------------------------------------------------------------------------------------


async def test_a_standing_propagation_is_found_again(place: Place) -> None:
    await place.put("service", "myservice", {"port": 80})
    begun = await place.control.propagate("unidirectional", "myservice", "remote.service", actor=ADMIN)
    assert (begun["standing"], begun["changed"], begun["targets"]) == (True, True, ["system/remote.service"])
    assert begun["route"] == "unidirectional:myservice:system/remote.service"
    assert any("ureg target add remote.service URL" in each for each in begun["warnings"])
    head = await place.head()
    again = await place.control.propagate("unidirectional", "myservice", "system/remote.service", actor=ADMIN)
    assert (again["session"], again["changed"], await place.head()) == (begun["session"], False, head)
    (route,) = await place.control.routes()
    assert route["selector"] == {"kinds": ["service"], "namespaces": ["default"], "names": ["myservice"]}
    assert route["session"] == begun["session"]


async def test_a_source_that_is_not_there_is_announced_and_a_repeat_stays_quiet(place: Place) -> None:
    begun = await place.control.propagate("unidirectional", "myservice", "mine", actor=ADMIN)
    assert "does not exist yet" in begun["warnings"][0]
    await place.put("service", "myservice")
    head = await place.head()
    again = await place.control.propagate("unidirectional", "myservice", "mine", actor=ADMIN)
    assert (again["session"], await place.head()) == (begun["session"], head)
    assert not any("does not exist" in each for each in again["warnings"])


async def test_strict_refuses_before_anything_is_stored(place: Place) -> None:
    await place.put("service", "myservice")
    await place.control.add_target("laptop", URL, actor=ADMIN)
    head = await place.head()
    with pytest.raises(NotFound, match="laptop"):
        await place.control.propagate("unidirectional", "myservice", "lapto", strict=True, actor=ADMIN)
    with pytest.raises(NotFound):
        await place.control.propagate("unidirectional", "nothing", "laptop", strict=True, actor=ADMIN)
    assert await place.head() == head
    assert (await place.control.propagate("unidirectional", "myservice", "laptop", strict=True, actor=ADMIN))["changed"]
    declared = await place.control.propagate("unidirectional", "myservice", "declared", actor=ADMIN)
    assert declared["warnings"]
    with pytest.raises(NotFound, match="no address"):
        await place.control.propagate("unidirectional", "myservice", "declared", strict=True, actor=ADMIN)


async def test_a_near_name_is_asked_about(place: Place) -> None:
    await place.control.add_target("laptop", URL, actor=ADMIN)
    begun = await place.control.propagate("unidirectional", "x", "lapto", actor=ADMIN)
    assert any("did you mean 'laptop'" in each for each in begun["warnings"])


async def test_an_ambiguous_source_lists_its_candidates(place: Place) -> None:
    await place.put("service", "pay")
    await place.put("alias", "pay", {"command": "x"})
    with pytest.raises(UsageError) as caught:
        await place.control.propagate("unidirectional", "pay", "mine", actor=ADMIN)
    assert caught.value.data["candidates"] == ["alias/default/pay", "service/default/pay"]
    begun = await place.control.propagate("unidirectional", "alias/pay", "mine", actor=ADMIN)
    assert begun["changed"]
    await place.put("alias", "pay", {"command": "x"}, namespace="prod")
    with pytest.raises(UsageError, match="namespace=default"):
        await place.control.propagate("unidirectional", "alias/pay", "other", actor=ADMIN)


@pytest.mark.parametrize("name", ["g++", "@scope/pkg", "..", "[", "x; touch pwned", "a,b\\", "*", "🦄" * 63])
async def test_hostile_names_propagate_as_themselves(place: Place, name: str) -> None:
    await place.put("alias", name, {"command": "x"})
    await place.put("alias", "bystander", {"command": "x"})
    begun = await place.control.propagate("unidirectional", name, name, actor=ADMIN)
    assert begun["changed"]
    (found,) = await place.control.where(name)
    assert [each["state"] for each in found["targets"]] == ["held"]
    (other,) = await place.control.where("bystander")
    assert [each["state"] for each in other["targets"]] == ["not-routed"]


async def test_a_selector_is_a_source(place: Place) -> None:
    begun = await place.control.propagate("unidirectional", "kind=alias,name=g*", "mine", actor=ADMIN)
    (route,) = await place.control.routes()
    assert (route["route"], route["selector"]) == (begun["route"], {"kinds": ["alias"], "names": ["g*"]})
    with pytest.raises(Invalid):
        await place.control.propagate("unidirectional", "kindd=alias", "mine", actor=ADMIN)


async def test_a_url_is_a_target_of_its_own(place: Place) -> None:
    begun = await place.control.propagate("unidirectional", "kind=alias", URL, actor=ADMIN)
    assert begun["targets"] == ["system/127.0.0.1:9000/hook"]
    parse_secret(begun["secret"])
    again = await place.control.propagate("unidirectional", "kind=service", URL, actor=ADMIN)
    assert (again["targets"], "secret" in again) == (begun["targets"], False)
    (target,) = await place.control.targets()
    assert (target["url"], target["network"], target["state"]) == (URL, "loopback", "ready")
    with pytest.raises(AddressRefused):
        await place.control.propagate("unidirectional", "kind=alias", "http://10.0.0.1/", actor=GUEST)


async def test_data_is_a_one_shot_event(place: Place) -> None:
    await place.put("service", "myservice")
    begun = await place.control.propagate("unidirectional", "myservice", "mine", {"n": 1}, actor=ADMIN)
    assert (begun["standing"], begun["route"]) == (False, None)
    (line,) = await place.lines(Op.EVENT)
    assert line.key == Key("service", "default", "myservice")
    event = place.service.open_event(line)
    assert (event.session, list(event.audience), event.payload) == (begun["session"], ["system/mine"], {"n": 1})
    assert await place.control.routes() == []
    for falsy in (0, False, "", [], {}):
        assert not (await place.control.propagate("unidirectional", "myservice", "mine", falsy, actor=ADMIN))[
            "standing"
        ]


async def test_data_from_a_source_without_a_record_stands_under_component(place: Place) -> None:
    await place.control.propagate("unidirectional", "hub", "mine", "hello", actor=ADMIN)
    await place.control.propagate("unidirectional", "alias/hub", "mine", "hello", actor=ADMIN)
    assert [line.key for line in await place.lines(Op.EVENT)] == [
        Key("component", "default", "hub"),
        Key("alias", "default", "hub"),
    ]
    assert await place.service.find("hub") == []
    with pytest.raises(UsageError, match="one source"):
        await place.control.propagate("unidirectional", "kind=alias", "mine", "hello", actor=ADMIN)


async def test_once_sends_the_state_without_secrets(place: Place) -> None:
    await place.put("secret", "db", {"value": "swordfish"}, classification="PasswordSecret")
    await place.control.propagate("unidirectional", "db", "mine", once=True, actor=ADMIN)
    await place.control.propagate("unidirectional", "kind=secret", "mine", once=True, actor=ADMIN)
    one, many = [place.service.open_event(line).payload for line in await place.lines(Op.EVENT)]
    assert (one["name"], one["spec"]["value"]) == ("db", {"$secret": "kept"})
    assert many == [one]
    for source, data in (("nothing", None), ("kind=theme", None)):
        with pytest.raises(NotFound):
            await place.control.propagate("unidirectional", source, "mine", data, once=True, actor=ADMIN)
    with pytest.raises(UsageError):
        await place.control.propagate("unidirectional", "db", "mine", 1, once=True, actor=ADMIN)


async def test_nonsense_is_a_usage_error(place: Place) -> None:
    for mode, source, target in (
        ("unidirectinal", "a", "b"),
        ("unidirectional", " ", "b"),
        ("unidirectional", "a", ""),
    ):
        with pytest.raises(UsageError):
            await place.control.propagate(mode, source, target, actor=ADMIN)
    assert await place.head() == 0


# --- where, with lanes as an engine leaves them ---------------------------------------------------------------------

GS = Key("alias", "default", "gs")


async def routed(place: Place) -> tuple[int, int]:
    """An alias with two revisions, and a route to `mine` put between them: the revisions of route and second put."""
    await place.put("alias", "gs", {"command": "one"})
    added = await place.control.add_target("mine", URL, select="kind=alias", actor=ADMIN)
    return added["revision"], await place.put("alias", "gs", {"command": "two"})


async def test_where_follows_the_lane(place: Place) -> None:
    route, newest = await routed(place)
    first = await place.arrival("gs")
    assert (first["state"], first["wanted_revision"], first["arrived_revision"]) == ("waiting", newest, None)
    assert first["route"] == "mine"
    for position, state, arrived in (
        (Position(route - 1, WHOLE), "waiting", None),
        (Position(route, 0), "waiting", None),
        (Position(route, 1), "waiting", 1),
        (Position(route, WHOLE), "waiting", 1),
        (Position(newest, 0), "arrived", newest),
        (Position(newest + 5, WHOLE), "arrived", newest),
    ):
        await place.lane("mine", position)
        entry = await place.arrival("gs")
        assert (entry["state"], entry["arrived_revision"]) == (state, arrived), position


async def test_where_says_why_a_row_is_not_there_yet(place: Place) -> None:
    _, newest = await routed(place)
    position = Position(newest, WHOLE)
    later = NOW + timedelta(seconds=4)
    waiting = row(GS, newest, state=DeliveryState.WAITING, next_at=later, reason="answered 503", attempts=1)
    await place.lane("mine", position, waiting)
    entry = await place.arrival("gs")
    assert (entry["state"], entry["reason"], entry["arrived_revision"]) == ("waiting", "answered 503", 1)
    assert entry["next_at"] == "2026-03-01T12:00:04.000Z"
    opened = {"breaker": Breaker.OPEN, "open_until": NOW + timedelta(seconds=60)}
    await place.lane("mine", position, waiting, **opened)
    held = await place.arrival("gs")
    assert (held["state"], held["reason"]) == ("held", "breaker open until 2026-03-01T12:01:00Z")
    await place.lane("mine", position, replace(waiting, state=DeliveryState.DEAD, next_at=None, reason="rejected: no"))
    dead = await place.arrival("gs")
    assert (dead["state"], dead["reason"], dead["arrived_revision"]) == ("dead", "rejected: no", 1)


async def test_a_dead_older_revision_does_not_hide_that_the_newest_arrived(place: Place) -> None:
    _, older = await routed(place)
    newest = await place.put("alias", "gs", {"command": "three"})
    await place.lane("mine", Position(newest, WHOLE), row(GS, older, state=DeliveryState.DEAD, reason="rejected"))
    entry = await place.arrival("gs")
    assert (entry["state"], entry["arrived_revision"]) == ("arrived", newest)


async def test_a_revision_that_the_route_did_not_select_never_arrived(place: Place) -> None:
    await place.put("alias", "gs", {"command": "one"})
    await place.control.add_target("mine", URL, select="labels.share=yes", actor=ADMIN)
    newest = await place.put("alias", "gs", {"command": "two"}, labels={"share": "yes"})
    await place.lane("mine", Position(newest, WHOLE), row(GS, newest))
    entry = await place.arrival("gs")
    assert (entry["state"], entry["arrived_revision"]) == ("waiting", None)


async def test_events_of_a_record_do_not_blur_where_it_is(place: Place) -> None:
    await routed(place)
    both = [{"op": "put", "kind": "alias", "name": name, "spec": {"command": "three"}} for name in ("ll", "gs")]
    newest = (await place.service.batch(both, actor=ADMIN)).revision
    for number in range(60):
        await place.service.emit(GS, number, audience=["system/x"], session="s", actor=ADMIN)
    for seq, state in ((0, "waiting"), (1, "arrived")):
        await place.lane("mine", Position(newest, seq))
        assert (await place.arrival("gs"))["state"] == state


async def test_where_over_several_records_targets_and_none(place: Place) -> None:
    await routed(place)
    await place.put("service", "gs")
    await place.control.add_target("other", "https://hooks.example", actor=ADMIN)
    found = await place.control.where("gs")
    states = {each["kind"]: {entry["target"]: entry["state"] for entry in each["targets"]} for each in found}
    assert states == {
        "alias": {"system/mine": "waiting", "system/other": "not-routed"},
        "service": {"system/mine": "not-routed", "system/other": "not-routed"},
    }
    assert len(await place.control.where("alias/gs")) == 1
    with pytest.raises(NotFound):
        await place.control.where("nothing")


async def test_a_route_to_a_target_that_was_deleted_is_held_with_the_command(place: Place) -> None:
    await routed(place)
    await place.service.delete(Key("endpoint", "system", "mine"), actor=ADMIN)
    entry = await place.arrival("gs")
    assert (entry["state"], "ureg target add mine URL" in entry["reason"]) == ("held", True)
    status = await place.control.status()
    assert any("no such target" in each for each in status["warnings"])


async def test_what_the_engine_knows_beyond_the_store_counts(place: Place) -> None:
    route, newest = await routed(place)
    await place.lane("mine", Position(route - 1, WHOLE))
    assert (await place.arrival("gs"))["state"] == "waiting"
    place.view.places = {(await place.lanes.lanes())[0].lane_id: Position(newest, WHOLE)}
    assert (await place.arrival("gs"))["state"] == "arrived"
    place.view.behind = 3
    assert (await place.control.status())["health"] == {"queue_depth": 3, "webhooks_pending": 3}


async def test_nothing_counts_as_arrived_while_its_route_still_sends_the_old_state(place: Place) -> None:
    route, _ = await routed(place)
    uid = (await place.service.get(Key("policy", "system", "mine"))).uid
    backfill = Backfill(route_uid=uid, upto=route, at=0)
    await place.lane("mine", Position(route, 1), backfill=backfill)
    entry = await place.arrival("gs")
    assert (entry["state"], entry["arrived_revision"]) == ("waiting", None)


# --- status, deliveries, sessions -----------------------------------------------------------------------------------


async def test_status_of_an_empty_and_of_a_used_registry(place: Place) -> None:
    empty = await place.control.status()
    assert (empty["revision"], empty["records"], empty["targets"], empty["warnings"]) == (0, 0, [], [])
    _, newest = await routed(place)
    await place.control.propagate("unidirectional", "gs", "remote.service", actor=ADMIN)
    await place.lane("mine", Position(newest, WHOLE), row(GS, newest), row(GS, 1, state=DeliveryState.DEAD))
    await place.put("policy", "odd", {"propagation": {"targets": ["mine"], "follow": True}}, **SYSTEM_POLICY)
    status = await place.control.status()
    assert [each["lane"]["position"] for each in status["targets"] if each["lane"]] == [str(newest)]
    assert (status["store"], status["revision"]) == ("sqlite", await place.head())
    assert status["kinds"] == {"alias": 1, "endpoint": 2, "policy": 3}
    assert (status["records"], status["routes"]) == (6, 2)
    assert (status["health"], status["dead"]) == ({"queue_depth": 1, "webhooks_pending": 1}, 1)
    text = "\n".join(status["warnings"])
    assert "ureg target add remote.service URL" in text
    assert "1 given up" in text
    assert "broadcast" in text
    assert [target["state"] for target in status["targets"]] == ["ready", "held"]
    assert [each["route"] for each in await place.control.routes() if "fault" in each] == ["odd"]


SYSTEM_POLICY = {"namespace": "system", "classification": "PropagationPolicy"}


async def test_deliveries_are_filtered(place: Place) -> None:
    _, newest = await routed(place)
    await place.lane("mine", Position(newest, WHOLE), row(GS, newest), row(GS, 1, state=DeliveryState.DEAD))
    await place.control.add_target("other", "https://hooks.example", actor=ADMIN)
    assert [each["revision"] for each in await place.control.deliveries()] == [1, newest]
    dead = await place.control.deliveries(target="mine", key=GS, states=(DeliveryState.DEAD,))
    assert [(each["target"], each["state"], each["key"]) for each in dead] == [("system/mine", "dead", str(GS))]
    assert await place.control.deliveries(target="other") == []
    assert await place.control.deliveries(session=(await place.control.sessions())[0]["session"], target="other") == []
    with pytest.raises(NotFound, match="no session 'none'"):
        await place.control.deliveries(session="none")
    with pytest.raises(NotFound):
        await place.control.deliveries(target="nobody")


async def test_the_engine_delivers_what_control_declared(place: Place) -> None:
    await place.put("alias", "gs", {"command": "one"})
    await place.put("alias", "ll", {"command": "ls"})
    await place.put("service", "pay")
    added = await place.control.add_target("mine", URL, select="kind=alias", actor=ADMIN)
    await place.engine.start()
    await place.deliver()
    assert sorted(place.far.subjects()) == ["alias/default/gs", "alias/default/ll"]
    envelope = place.far.got[0]
    assert verify(dict(envelope.headers), envelope.body, [parse_secret(added["secret"])], NOW).id.startswith("dlv_")
    assert (await place.arrival("gs"))["state"] == "arrived"
    (session,) = await place.control.sessions()
    assert (session["state"], session["route"]) == ("in_sync", "mine")
    newest = await place.put("alias", "gs", {"command": "two"})
    assert (await place.control.session(session["session"]))["state"] == "syncing"
    await place.deliver()
    assert place.far.subjects()[2:] == ["alias/default/gs"]
    assert (await place.arrival("gs"))["arrived_revision"] == newest


async def test_a_failing_target_degrades_its_session_and_says_why(place: Place) -> None:
    await place.control.add_target("mine", URL, select="kind=alias", actor=ADMIN)
    await place.engine.start()
    place.far.answer = Failed(reason="answered 503", status=503, milliseconds=1.0)
    await place.put("alias", "gs", {"command": "one"})
    await place.deliver()
    (session,) = await place.control.sessions()
    assert session["state"] == "degraded"
    entry = await place.arrival("gs")
    assert (entry["state"], entry["reason"]) == ("waiting", "answered 503")
    (delivery,) = (await place.control.session(session["session"]))["deliveries"]
    assert [each["number"] for each in await place.control.attempts(delivery["delivery"])] == [0]
    place.far.answer = Accepted(status=200, milliseconds=1.0)
    place.world.moment += timedelta(seconds=60)
    await place.deliver()
    assert (await place.arrival("gs"))["state"] == "arrived"
    assert (await place.control.sessions())[0]["state"] == "in_sync"


async def test_a_one_shot_session_from_its_line_to_its_end(place: Place) -> None:
    begun = await place.control.propagate("unidirectional", "hub", "mine", {"n": 1}, actor=ADMIN)
    unplanned = await place.control.session(begun["session"])
    assert (unplanned["state"], unplanned["revision"]) == ("running", begun["revision"])
    assert [each["state"] for each in unplanned["targets"]] == ["held"]
    await place.engine.start()
    await place.deliver()
    held = await place.control.session(begun["session"])
    assert (held["state"], held["counts"], len(held["deliveries"])) == ("running", {"held": 1}, 1)
    assert place.far.got == []
    await place.control.add_target("mine", URL, actor=ADMIN)
    await place.deliver()
    done = await place.control.session(begun["session"])
    assert (done["state"], done["counts"], done["deliveries"]) == ("succeeded", {"delivered": 1}, [])
    assert orjson.loads(place.far.got[0].body)["data"] == {"n": 1}
    with pytest.raises(NotFound):
        await place.control.session("none")


async def test_a_one_shot_session_runs_until_the_lane_is_past_its_line(place: Place) -> None:
    await place.control.add_target("mine", URL, actor=ADMIN)
    begun = await place.control.propagate("unidirectional", "hub", "mine", {"n": 1}, actor=ADMIN)
    for position, state in ((begun["revision"] - 1, "running"), (begun["revision"], "succeeded")):
        await place.lane("mine", Position(position, WHOLE))
        assert (await place.control.session(begun["session"]))["state"] == state


async def test_what_was_delivered_stays_so_while_its_target_is_held(place: Place) -> None:
    await place.control.add_target("mine", URL, select="kind=alias", actor=ADMIN)
    begun = await place.control.propagate("unidirectional", "hub", "mine", {"n": 1}, actor=ADMIN)
    await place.lane("mine", Position(begun["revision"], WHOLE), held="gone (410): moved")
    assert (await place.control.session(begun["session"]))["counts"] == {"delivered": 1}
    (standing,) = await place.control.sessions()  # which owes whatever comes next
    assert (standing["state"], standing["counts"]) == ("degraded", {"held": 1})
    assert (await place.control.target("system", "mine"))["reason"] == "gone (410): moved"


async def test_nothing_is_lost_between_declaring_and_adding_an_address(place: Place) -> None:
    await place.put("service", "myservice", {"port": 80})
    await place.control.propagate("unidirectional", "myservice", "remote.service", actor=ADMIN)
    await place.engine.start()
    await place.deliver()
    newest = await place.put("service", "myservice", {"port": 81})
    await place.deliver()
    assert place.far.got == []
    entry = await place.arrival("myservice", "system/remote.service")
    assert (entry["state"], "ureg target add remote.service URL" in entry["reason"]) == ("held", True)
    await place.control.add_target("remote.service", URL, actor=ADMIN)
    await place.deliver()
    assert [orjson.loads(each.body)["data"]["revision"] for each in place.far.got] == [1, newest]
    assert (await place.arrival("myservice", "system/remote.service"))["state"] == "arrived"
