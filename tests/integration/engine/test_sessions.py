"""Sessions over the real engine and stores: chains, broadcasts, and what people say to sessions."""

from __future__ import annotations

from typing import Any

import pytest

from universal_registry.kernel.errors import Conflict, Invalid, Malformed, NotFound, UsageError
from universal_registry.log.change import Op
from universal_registry.propagation.control import PropagationControl
from universal_registry.propagation.lanes.lane import Verb
from universal_registry.propagation.lanes.lane_command import Action
from universal_registry.propagation.lanes.outcome import Rejected
from universal_registry.propagation.routing.counterparts import Counterpart
from universal_registry.propagation.verbs.sessions import ReplayAsk
from universal_registry.registry.selector import parse_selector
from universal_registry.registry.service import Actor

Stage = Any  # the class of the fixture, which pytest alone can import
OPERATOR = Actor("uid:1000", admin=True)


@pytest.fixture
def control(stage: Stage) -> PropagationControl:
    return control_of(stage)


def control_of(stage: Stage) -> PropagationControl:
    return PropagationControl(
        stage.service, stage.lanes, {"webhook": stage.targets}, stage.engine, stage.world, stage.settings
    )


async def ask(control: PropagationControl, mode: str, source: str, *targets: str, **more: Any) -> dict[str, Any]:
    data = more.pop("data", None)
    return await control.propagate(mode, source, list(targets), data, actor=OPERATOR, **more)


def states(found: dict[str, Any]) -> dict[str, str]:
    return {each["target"].removeprefix("system/"): each["state"] for each in found["targets"]}


# --- audiences ------------------------------------------------------------------------------------------------------


async def test_a_multicast_names_each_once_and_never_itself(stage: Stage, control: PropagationControl) -> None:
    await stage.target("one")
    begun = await ask(control, "multicast", "hub", "one", "two", "system/one", "hub")
    assert begun["targets"] == ["system/one", "system/two"]
    assert begun["notes"] == ["system/one is named twice: it is one target", "hub is the source itself: left out"]
    assert any("ureg target add two URL" in text for text in begun["warnings"])
    again = await ask(control, "multicast", "hub", "one", "two")
    assert (again["session"], again["changed"]) == (begun["session"], False)
    await stage.service.put({"kind": "service", "name": "hub", "spec": {"port": 1}}, actor=OPERATOR)
    await stage.settle()
    assert stage.targets.names("one") == ["hub"]
    assert states(await control.session(begun["session"])) == {"one": "in_sync", "two": "held"}
    await stage.target("two")
    await stage.settle()
    assert stage.targets.names("two") == ["hub"]


async def test_a_broadcast_goes_to_all_but_some_and_stays_so(stage: Stage, control: PropagationControl) -> None:
    for name in ("one", "two", "inner"):
        await stage.target(name)
    begun = await ask(control, "broadcast", "kind=alias", exclude=("in*", "nobody"))
    assert begun["targets"] == ["system/one", "system/two"]
    assert begun["excluded"] == [{"target": "system/inner", "by": "in*"}]
    assert begun["warnings"] == ["--exclude 'nobody' matches no target now"]
    await stage.target("late")
    await stage.alias("gs")
    await stage.settle()
    assert stage.targets.got.keys() == {"one", "two"}
    again = await ask(control, "broadcast", "kind=alias", exclude=("in*", "nobody"))
    assert (again["session"], again["targets"][0]) == (begun["session"], "system/late")
    await stage.settle()
    assert stage.targets.names("late") == ["gs"]
    assert stage.targets.names("one") == ["gs"], "what they have is not sent again"


async def test_a_broadcast_that_follows_takes_in_those_that_come(stage: Stage, control: PropagationControl) -> None:
    await stage.target("one")
    await stage.alias("gs")
    begun = await ask(control, "broadcast", "kind=alias", exclude=("internal",), follow=True)
    await stage.settle()
    await stage.target("late")
    await _labelled(stage, "inner", zone="internal")
    await stage.alias("ll")
    await stage.settle()
    assert stage.targets.names("late") == ["gs", "ll"]
    assert "inner" not in stage.targets.got
    assert states(await control.session(begun["session"])) == {"one": "in_sync", "late": "in_sync"}
    await _labelled(stage, "inner", zone="public")
    await stage.settle()
    assert stage.targets.names("inner") == ["gs", "ll"], "its label no longer leaves it out"
    await _labelled(stage, "inner", zone="internal")
    await stage.alias("later")
    await stage.settle()
    assert stage.targets.names("inner") == ["gs", "ll"]
    assert stage.targets.names("one") == ["gs", "ll", "later"]


async def _labelled(stage: Stage, name: str, **labels: str) -> None:
    spec = {"url": f"http://127.0.0.1:9/{name}", "protocol": "webhook", "delivery": {"network": "loopback"}}
    document = {"kind": "endpoint", "namespace": "system", "name": name, "labels": labels, "spec": spec}
    await stage.service.put(document, actor=OPERATOR)


async def test_a_line_is_planned_for_the_targets_of_its_own_revision(stage: Stage, control: PropagationControl) -> None:
    """A daemon that comes late plans as one would have that was there."""
    await stage.target("one")
    await _labelled(stage, "two", zone="internal")
    await stage.settle()
    await ask(control, "broadcast", "kind=alias", exclude=("internal",), follow=True)
    await stage.alias("before")
    await _labelled(stage, "two", zone="public")
    await stage.alias("between")
    await _labelled(stage, "two", zone="internal")
    await stage.alias("after")
    await stage.start()
    await stage.settle()
    assert stage.targets.names("one") == ["before", "between", "after"]
    # The state that was there is sent on joining only to those that are still meant when it is sent.
    assert stage.targets.names("two") == ["between"]


async def test_what_can_not_write_back_is_no_other_side(stage: Stage, control: PropagationControl) -> None:
    await stage.target("hook")
    head = (await stage.service.log.head()).revision
    for other in ("hook", "http://127.0.0.1:9/x"):
        with pytest.raises(Invalid, match=r"cannot write back.*unidirectional"):
            await ask(control, "bidirectional", "a", other)
    assert (await stage.service.log.head()).revision == head
    begun = await ask(control, "bidirectional", "a", "b")
    mesh = await control.propagate("mesh", None, ["b", "c"], actor=OPERATOR)
    assert (mesh["source"], mesh["targets"]) == ("name=*", ["system/b", "system/c"])
    await stage.alias("a")
    await stage.settle()
    for session in (begun, mesh):
        found = await control.session(session["session"])
        assert found["state"] == "planned"
        assert set(states(found).values()) == {"planned"}
    assert stage.targets.got == {}


async def test_an_event_both_ways_goes_to_both_ends(stage: Stage, control: PropagationControl) -> None:
    await stage.target("one")
    await stage.target("two")
    begun = await ask(control, "bidirectional", "one", "two", data={"n": 1})
    assert (begun["standing"], begun["targets"]) == (False, ["system/two", "system/one"])
    await stage.settle()
    for name in ("one", "two"):
        assert [event["data"] for event in stage.targets.got[name]] == [{"n": 1}]
    found = await control.session(begun["session"])
    assert (found["mode"], found["state"]) == ("bidirectional", "succeeded")
    with pytest.raises(Conflict, match="has ended"):
        await control.tell_session(begun["session"], Verb.PAUSE, actor=OPERATOR)


async def test_an_end_that_is_no_target_is_waited_for_unless_it_is_a_record_here(
    stage: Stage, control: PropagationControl
) -> None:
    await stage.target("two")
    begun = await ask(control, "bidirectional", "one", "two", data="hello")
    assert "target one has no address yet" in begun["warnings"][0]
    await stage.settle()
    assert states(await control.session(begun["session"])) == {"two": "delivered", "one": "held"}
    assert (await control.tell_session(begun["session"], Verb.PAUSE, actor=OPERATOR))["changed"]
    assert (await control.tell_session(begun["session"], Verb.RESUME, actor=OPERATOR))["changed"]
    await stage.target("one")
    await stage.settle()
    assert [event["data"] for event in stage.targets.got["one"]] == ["hello"]
    await stage.alias("gs")
    begun = await ask(control, "bidirectional", "gs", "two", data=[1])
    assert begun["targets"] == ["system/two"]
    assert begun["notes"] == [
        "gs is a record here and no target: it has the event by the log (else: ureg target add gs URL)"
    ]
    await stage.settle()
    assert (await control.session(begun["session"]))["state"] == "succeeded"
    line = (await stage.service.log.changes(begun["revision"] - 1, 1))[0]
    assert (line.op, line.name) == (Op.EVENT, "gs")


async def test_another_registry_takes_no_events(stage: Stage, control: PropagationControl) -> None:
    scope = parse_selector("", stage.service.catalogue)
    peer = Counterpart(name="north", state="in_sync", reason="", scope=scope)

    async def counterparts() -> dict[str, Counterpart]:
        return {"north": peer}

    control.counterparts = counterparts
    head = (await stage.service.log.head()).revision
    for source, target in (("a", "north"), ("a", "system/north"), ("north", "a")):
        with pytest.raises(Invalid, match=r"north.*takes records and no events"):
            await ask(control, "bidirectional", source, target, data={"n": 1})
    assert (await stage.service.log.head()).revision == head


@pytest.mark.parametrize(
    ("mode", "targets", "more", "says"),
    [
        ("bidirectional", ["a"], {"once": True}, "there is no --once"),
        ("mesh", ["a", "b"], {"data": 1}, "takes no data"),
        ("unidirectional", ["a", "b"], {}, "at most 1 target"),
        ("multicast", [], {}, "needs a target"),
        ("broadcast", ["a"], {}, "takes none"),
        ("mesh", ["a"], {}, "at least 2"),
        ("mesh", [f"n{i}" for i in range(17)], {}, "at most 16"),
        ("multicast", ["src"], {}, "no target is left"),
        ("multicast", ["a"], {"exclude": ("b",)}, "for broadcast"),
        ("multicast", ["a"], {"on_failure": "skip"}, "for chain"),
        ("multicast", ["a"], {"deadline": 5.0}, "no deadline"),
        ("broadcast", [], {"follow": True, "data": 1}, "standing"),
        ("chains", ["a"], {}, "did you mean 'chain'"),
    ],
)
async def test_mistakes_are_one_line_and_store_nothing(
    stage: Stage, control: PropagationControl, mode: str, targets: list[str], more: dict[str, Any], says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        await ask(control, mode, "src", *targets, **more)
    assert (await stage.service.log.head()).revision == 0


async def test_a_dry_run_says_it_all_and_stores_nothing(stage: Stage, control: PropagationControl) -> None:
    await stage.target("one")
    await stage.alias("gs")
    head = (await stage.service.log.head()).revision
    found = await control.foresee("chain", "gs", ["one", "two"], actor=OPERATOR)
    assert (found["would"], found["matches"]) == ("created", 1)
    assert [(each["target"], each["state"]) for each in found["states"]] == [
        ("system/one", "ready"),
        ("system/two", "new"),
    ]
    found = await control.foresee("broadcast", "kind=alias", [], actor=OPERATOR, exclude=("one",))
    assert found["excluded"] == [{"target": "system/one", "by": "one"}]
    assert (await stage.service.log.head()).revision == head


# --- chains ---------------------------------------------------------------------------------------------------------


async def chain(stage: Stage, control: PropagationControl, **more: Any) -> str:
    for name in ("a", "b", "c"):
        await stage.target(name)
    begun = await ask(control, "chain", "kind=alias", "a", "b", "c", **more)
    await stage.settle()
    return str(begun["session"])


async def test_a_hop_starts_when_the_one_before_it_has_it(stage: Stage, control: PropagationControl) -> None:
    session = await chain(stage, control)
    stage.targets.down = {"a"}
    await stage.alias("x", "1")
    await stage.settle()
    assert stage.targets.got == {}
    found = await control.session(session)
    assert states(found) == {"a": "waiting", "b": "held", "c": "held"}
    assert [each["reason"] for each in found["targets"][1:]] == ["after a", "after b"]
    stage.targets.down = {"b"}
    await stage.wait(2)
    assert stage.targets.names("a") == ["x"]
    assert stage.targets.got.keys() == {"a"}
    stage.targets.down = set()
    await stage.wait(2)
    assert stage.targets.names("b") == stage.targets.names("c") == ["x"]
    await stage.alias("x", "2")
    await stage.settle()
    assert [stage.targets.commands(name) for name in "abc"] == [["1", "2"]] * 3
    assert states(await control.session(session)) == {"a": "in_sync", "b": "in_sync", "c": "in_sync"}


async def test_a_session_is_not_in_sync_while_another_holds_what_it_wants(
    stage: Stage, control: PropagationControl
) -> None:
    """A line goes to a target once: the chain carries it to c, and its first hop is stuck."""
    carrier = await chain(stage, control)
    await stage.route("zz-direct", "c")
    await stage.route("zz-other", "c", selector={"kinds": ["alias"], "names": ["y"]})
    await stage.settle()
    ids = {each["route"]: each["session"] for each in await control.sessions()}
    direct, other = ids["zz-direct"], ids["zz-other"]
    stage.targets.down = {"a"}
    await stage.alias("x", "1")
    await stage.settle()
    found = await control.session(direct)
    assert (found["state"], states(found)) == ("degraded", {"c": "held"})
    carried = next(each["route"] for each in await control.sessions() if each["session"] == carrier)
    assert found["targets"][0]["reason"] == f"carried by {carried}: after b"
    assert [each["session"] for each in found["deliveries"]] == [carrier]
    assert states(await control.session(other)) == {"c": "in_sync"}, "what is stuck is nothing to this one"
    listed = {each["session"]: each["state"] for each in await control.sessions()}
    assert (listed[direct], listed[other], listed[carrier]) == ("degraded", "in_sync", "degraded")
    stage.targets.down = set()
    await stage.wait(2)
    assert stage.targets.names("c") == ["x"]
    assert (await control.session(direct))["state"] == "in_sync"


async def test_what_a_carrier_gave_up_has_not_arrived_for_others_either(
    stage: Stage, control: PropagationControl
) -> None:
    await stage.target("one")
    await stage.route("a-first", "one")
    await stage.route("b-second", "one")
    await stage.settle()
    stage.targets.answers["one"] = [Rejected(reason="bad", status=400, milliseconds=1.0)]
    await stage.alias("x")
    await stage.settle()
    second = next(each for each in await control.sessions() if each["route"] == "b-second")
    found = await control.session(second["session"])
    assert (found["state"], states(found)) == ("degraded", {"one": "dead"})
    assert found["targets"][0]["reason"].startswith("carried by a-first: rejected")


async def test_the_state_that_was_there_goes_hop_by_hop_too(stage: Stage, control: PropagationControl) -> None:
    stage.targets.down = {"a"}
    await stage.alias("old")
    await chain(stage, control)
    assert stage.targets.got == {}
    stage.targets.down = set()
    await stage.wait(2)
    assert [stage.targets.names(name) for name in "abc"] == [["old"]] * 3


async def test_a_chain_stops_where_a_hop_was_given_up_and_goes_on(stage: Stage, control: PropagationControl) -> None:
    session = await chain(stage, control)
    stage.targets.answers["a"] = [Rejected(reason="bad", status=400, milliseconds=1.0)]
    await stage.alias("x")
    await stage.wait(60)
    assert stage.targets.got == {}
    found = await control.session(session)
    assert states(found) == {"a": "dead", "b": "held", "c": "held"}
    dead = next(each for each in found["deliveries"] if each["state"] == "dead")
    assert (
        f"stopped: a was given up; to go on: ureg delivery redrive {dead['delivery']}" in found["targets"][1]["reason"]
    )
    await stage.alias("y")
    await stage.settle()
    assert [stage.targets.names(name) for name in "abc"] == [["y"]] * 3, "another change is another matter"
    await stage.start()
    await control.tell_delivery(dead["delivery"], Action.REDRIVE, actor=OPERATOR)
    await stage.until(lambda: "x" in stage.targets.names("c"))
    assert [stage.targets.names(name) for name in "abc"] == [["y", "x"]] * 3


async def test_a_chain_that_skips_goes_on_without_the_dead(stage: Stage, control: PropagationControl) -> None:
    await chain(stage, control, on_failure="skip")
    stage.targets.answers["b"] = [Rejected(reason="bad", status=400, milliseconds=1.0)]
    await stage.alias("x")
    await stage.settle()
    assert stage.targets.got.keys() == {"a", "c"}


async def test_a_hop_whose_target_is_gone_is_none(stage: Stage, control: PropagationControl) -> None:
    session = await chain(stage, control)
    stage.targets.down = {"a", "b"}
    await stage.alias("x")
    await stage.wait(1)
    await stage.service.delete(stage.service.key("endpoint", "system", "b"), actor=OPERATOR)
    await stage.wait(1)
    assert stage.targets.got == {}, "c still waits for a"
    stage.targets.down = set()
    await stage.until(lambda: "c" in stage.targets.got)
    assert states(await control.session(session))["c"] == "in_sync"


async def test_an_event_goes_along_a_chain_and_over_a_restart(stage: Stage, control: PropagationControl) -> None:
    await stage.target("a")
    await stage.target("b")
    stage.targets.down = {"a"}
    begun = await ask(control, "chain", "hub", "a", "b", data={"n": 1})
    await stage.settle()
    await stage.start()
    assert states(await control_of(stage).session(begun["session"])) == {"a": "waiting", "b": "held"}
    stage.targets.down = set()
    await stage.until(lambda: "b" in stage.targets.got)
    await stage.wait(2)
    found = await control_of(stage).session(begun["session"])
    assert found["state"] == "succeeded"
    assert [each["to"] for each in found["steps"]] == ["planned", "running", "succeeded"]
    assert all(each["reason"] for each in found["steps"])


# --- words on sessions ----------------------------------------------------------------------------------------------


async def test_what_is_paused_is_held_and_goes_on_in_order(stage: Stage, control: PropagationControl) -> None:
    await stage.target("one")
    begun = await ask(control, "unidirectional", "kind=alias", "one")
    session = begun["session"]
    await stage.settle()
    assert (await control.tell_session(session, Verb.PAUSE, actor=OPERATOR))["changed"]
    assert not (await control.tell_session(session, Verb.PAUSE, actor=OPERATOR))["changed"]
    for command in "123":
        await stage.alias("x", command)
    await stage.settle()
    await stage.start()
    await stage.settle()
    control = control_of(stage)
    assert stage.targets.got == {}
    found = await control.session(session)
    assert (found["state"], found["reason"]) == ("paused", f"paused by {OPERATOR.name}")
    assert {each["held"] for each in found["deliveries"]} == {"paused"}
    assert [each["state"] for each in await control.deliveries()] == ["held"] * 3
    await control.tell_session(session, Verb.RESUME, actor=OPERATOR)
    await stage.settle()
    assert stage.targets.commands("one") == ["1", "2", "3"]
    found = await control.session(session)
    assert found["state"] == "in_sync"
    paused, resumed, *_, synced = found["steps"][[each["to"] for each in found["steps"]].index("paused") :]
    assert (paused["reason"], synced["to"]) == (f"paused by {OPERATOR.name}", "in_sync")
    assert resumed["reason"].startswith(f"resumed by {OPERATOR.name}")


async def test_a_pause_reaches_what_waits_for_its_next_attempt(stage: Stage, control: PropagationControl) -> None:
    await stage.target("one")
    stage.targets.down = {"one"}
    begun = await ask(control, "unidirectional", "hub", "one", data=1)
    await stage.settle()
    await control.tell_session(begun["session"], Verb.PAUSE, actor=OPERATOR)
    stage.targets.down = set()
    await stage.wait(30)
    assert stage.targets.got == {}
    assert (await control.session(begun["session"]))["state"] == "paused"
    await control.tell_session(begun["session"], Verb.RESUME, actor=OPERATOR)
    await stage.wait(2)
    await stage.wait(2)
    assert (await control.session(begun["session"]))["state"] == "succeeded"


async def test_a_cancelled_session_names_what_it_had_delivered(stage: Stage, control: PropagationControl) -> None:
    await stage.target("one")
    await stage.target("two")
    stage.targets.down = {"two"}
    begun = await ask(control, "multicast", "hub", "one", "two", data=1)
    await stage.settle()
    told = await control.tell_session(begun["session"], Verb.CANCEL, actor=OPERATOR)
    assert (told["delivered"], told["undone"]) == (["system/one"], {"system/two": 1})
    stage.targets.down = set()
    await stage.wait(60)
    await stage.wait(60)
    assert "two" not in stage.targets.got
    found = await control.session(begun["session"])
    assert (found["state"], states(found)) == ("cancelled", {"one": "delivered", "two": "cancelled"})
    assert found["reason"] == f"cancelled by {OPERATOR.name}: 1 executed, 1 cancelled"
    assert stage.sessions()[begun["session"]] == "cancelled"
    assert not (await control.tell_session(begun["session"], Verb.CANCEL, actor=OPERATOR))["changed"]
    with pytest.raises(Conflict, match="has ended"):
        await control.tell_session(begun["session"], Verb.RESUME, actor=OPERATOR)
    with pytest.raises(NotFound):
        await control.tell_session("nosuch", Verb.PAUSE, actor=OPERATOR)


async def test_a_standing_session_that_is_cancelled_loses_its_route(stage: Stage, control: PropagationControl) -> None:
    await stage.target("one")
    stage.targets.down = {"one"}
    begun = await ask(control, "unidirectional", "kind=alias", "one")
    await stage.alias("x")
    await stage.settle()
    await control.tell_session(begun["session"], Verb.CANCEL, actor=OPERATOR)
    stage.targets.down = set()
    await stage.wait(60)
    await stage.alias("y")
    await stage.wait(60)
    assert stage.targets.got == {}
    assert await control.routes() == []
    assert (await control.session(begun["session"]))["state"] == "cancelled"
    await ask(control, "unidirectional", "kind=alias", "one")
    await stage.settle()
    assert stage.targets.names("one") == ["x", "y"], "begun again, it is another session"


@pytest.mark.parametrize("mode", ["unidirectional", "chain"])
async def test_what_a_cancelled_session_leaves_undone_is_sent_for_another_that_wants_it(
    stage: Stage, control: PropagationControl, mode: str
) -> None:
    """A line goes to a target once, for the session that comes first by name; when that ends, another takes over."""
    await stage.target("one")
    await stage.target("two")
    await stage.alias("x")
    ends = await ask(control, mode, "alias/x", *(["one", "two"] if mode == "chain" else ["one"]))
    stays = await ask(control, "unidirectional", "kind=alias", "one")
    await stage.settle()
    stage.targets.down = {"one"}
    await stage.alias("x", "changed")
    await stage.alias("y")
    await stage.settle()
    await control.tell_session(ends["session"], Verb.CANCEL, actor=OPERATOR)
    stage.targets.down = set()
    await stage.wait(120)
    assert "changed" in stage.targets.commands("one")
    assert "y" in stage.targets.names("one")
    found = (await control.where("alias/x"))[0]["targets"]
    assert {each["target"]: each["state"] for each in found}["system/one"] == "arrived"
    assert (await control.session(stays["session"]))["state"] == "in_sync"


async def test_a_deadline_ends_what_has_not_arrived(stage: Stage, control: PropagationControl) -> None:
    await stage.target("one")
    await stage.target("two")
    stage.targets.down = {"two"}
    begun = await ask(control, "multicast", "hub", "one", "two", data=1, deadline=20.0)
    await stage.wait(10)
    assert (await control.session(begun["session"]))["state"] == "running"
    await stage.wait(15)
    await stage.wait(2)
    await stage.wait(2)
    found = await control.session(begun["session"])
    assert (found["state"], states(found)) == ("expired", {"one": "delivered", "two": "cancelled"})
    stage.targets.down = set()
    await stage.wait(3600)
    assert "two" not in stage.targets.got
    assert [each["to"] for each in found["steps"]][-2:] == ["draining", "expired"]


# --- replays --------------------------------------------------------------------------------------------------------


async def test_state_is_sent_again_as_it_is_now(stage: Stage, control: PropagationControl) -> None:
    await stage.target("one")
    await stage.target("two")
    await stage.alias("kept", "old")
    begun = await ask(control, "multicast", "kind=alias", "one", "two")
    await stage.alias("kept", "new")
    await stage.alias("gone")
    await stage.service.delete(stage.service.key("alias", "default", "gone"), actor=OPERATOR)
    await stage.settle()
    first = set(stage.targets.ids["one"])
    stage.targets.got.clear()
    told = ReplayAsk(session=begun["session"], targets=("one",))
    foreseen = await control.foresee_replay(told)
    assert (foreseen["total"], foreseen["deliveries"]) == (2, {"system/one": 2})
    begun_again = await control.replay(told, actor=OPERATOR)
    await stage.settle()
    assert stage.targets.names("one") == ["kept", "gone"]
    assert stage.targets.commands("one")[0] == "new"
    assert "two" not in stage.targets.got
    assert not first & set(stage.targets.ids["one"][-2:]), "new ids"
    assert set(stage.targets.replays["one"]) <= first, "each says which one it repeats"
    found = await control.session(begun_again["session"])
    assert (found["mode"], found["state"], found["replay_of"]) == ("replay", "succeeded", begun["session"])
    assert states(found) == {"one": "delivered"}


@pytest.mark.parametrize("skip", [False, True])
async def test_where_knows_what_a_replay_has_brought(stage: Stage, control: PropagationControl, skip: bool) -> None:
    """A delivery that was given up (or skipped then) keeps its row; what a replay brings leaves none."""
    await stage.target("one")
    begun = await ask(control, "unidirectional", "kind=alias", "one")
    await stage.settle()
    stage.targets.answers["one"] = [Rejected(reason="bad", status=400, milliseconds=1.0)]
    await stage.alias("x")
    await stage.settle()

    async def where() -> tuple[str, bool]:
        ((entry,),) = [each["targets"] for each in await control.where("x")]
        return entry["state"], entry["arrived_revision"] == entry["wanted_revision"]

    (row,) = await control.deliveries()
    if skip:
        await control.tell_delivery(row["delivery"], Action.SKIP, actor=OPERATOR)
        await stage.wait(2)
    assert await where() == ("cancelled" if skip else "dead", False)
    await control.replay(ReplayAsk(session=begun["session"], select="name=other"), actor=OPERATOR)
    await stage.settle()
    assert await where() == ("cancelled" if skip else "dead", False), "that one was for other records"
    stage.targets.down = {"one"}
    await control.replay(ReplayAsk(session=begun["session"]), actor=OPERATOR)
    await stage.settle()
    assert await where() == ("waiting", False)
    stage.targets.down = set()
    await stage.wait(5)
    assert stage.targets.names("one") == ["x"]
    assert await where() == ("arrived", True)
    stage.targets.answers["one"] = [Rejected(reason="bad", status=400, milliseconds=1.0)]
    await stage.alias("x", "newer")
    await stage.settle()
    assert await where() == ("dead", False), "the replay is of an older one"


async def test_an_event_is_sent_again(stage: Stage, control: PropagationControl) -> None:
    await stage.target("one")
    begun = await ask(control, "unidirectional", "hub", "one", data={"n": 1})
    await ask(control, "unidirectional", "hub", "one", data={"n": 2})
    await stage.settle()
    await control.replay(ReplayAsk(session=begun["session"]), actor=OPERATOR)
    await stage.settle()
    assert [event["data"] for event in stage.targets.got["one"]] == [{"n": 1}, {"n": 2}, {"n": 1}]
    assert stage.targets.replays["one"] == [stage.targets.ids["one"][0]]


async def test_a_replay_goes_on_after_a_kill_and_has_no_bound(stage: Stage, control: PropagationControl) -> None:
    await stage.target("one")
    await stage.aliases(700)
    begun = await ask(control, "unidirectional", "kind=alias", "one")
    await stage.settle()
    assert len(stage.targets.got["one"]) == 700
    stage.targets.got.clear()
    again = await control.replay(ReplayAsk(session=begun["session"]), actor=OPERATOR)
    for _ in range(20):
        await stage.step()
    assert 0 < len(stage.targets.got["one"]) < 700
    await stage.start()
    await stage.settle()
    assert len(set(stage.targets.names("one"))) == 700
    assert (await control_of(stage).session(again["session"]))["state"] == "succeeded"


async def test_from_a_time_a_revision_and_a_cursor(stage: Stage, control: PropagationControl) -> None:
    await stage.target("one")
    begun = await ask(control, "unidirectional", "kind=alias", "one")
    await stage.alias("early")
    cursor = (await stage.service.log.head()).cursor
    await stage.wait(100)
    noon = stage.world.moment
    await stage.alias("late")
    await stage.settle()

    async def count(**more: Any) -> int:
        return int((await control.foresee_replay(ReplayAsk(session=begun["session"], **more)))["total"])

    assert await count() == 2
    for since in (noon.isoformat(), str(cursor.revision), str(cursor)):
        assert await count(since=since) == 1
    assert await count(until=str(cursor.revision)) == 1
    assert await count(select="name=la*") == 1
    for wrong in ("2026-01-01T00:00:00", "yesterday"):
        with pytest.raises((UsageError, Malformed), match=r"time zone|cursor"):
            await count(since=wrong)
    with pytest.raises(NotFound):
        await count(targets=("nosuch",))
    lines = [line for line in await stage.service.log.changes(0, 100) if line.op is Op.EVENT]
    assert lines == [], "counting stores nothing"


# --- explanations ---------------------------------------------------------------------------------------------------


async def test_why_a_delivery_is_where_it_is(stage: Stage, control: PropagationControl) -> None:
    await stage.target("one")
    stage.targets.down = {"one"}
    await ask(control, "unidirectional", "kind=alias", "one")
    await stage.alias("x", "1")
    await stage.settle()
    await stage.alias("x", "2")
    await stage.settle()
    first, second = sorted(await control.deliveries(), key=lambda each: each["revision"])
    why = await control.why(first["delivery"])
    assert "by route unidirectional:kind=alias:system/one (unidirectional of kind=alias)" in why["scheduled"]
    assert why["why"][0].startswith("attempt 2 is due at 2026-03-01T12:00:01")
    assert (why["breaker"]["state"], why["last"]["reason"]) == ("closed", "connection refused")
    why = await control.why(second["delivery"])
    assert why["why"] == [f"it waits behind revision {first['revision']} of the same record ({first['delivery']})"]
    for _ in range(20):
        await stage.wait(2)
    why = await control.why(first["delivery"])
    assert any(text.startswith("the target: breaker open until") for text in why["why"])
    with pytest.raises(NotFound, match="ureg delivery ls"):
        await control.why("dlv_nosuch")


async def test_who_would_get_a_record_and_why_not_the_others(stage: Stage, control: PropagationControl) -> None:
    for name in ("one", "two", "three", "four"):
        await stage.target(name)
    await stage.alias("gs")
    await stage.route("by-label", "one", selector="kind=alias,labels.tier=gold")
    await ask(control, "chain", "kind=alias", "two", "three")
    await ask(control, "broadcast", "kind=alias,name=g*", exclude=("fo*", "one"), follow=True)
    (found,) = await control.explain("alias/gs")
    says = {each["target"].removeprefix("system/"): each for each in found["targets"]}
    assert {name: each["gets"] for name, each in says.items()} == {
        "one": False,
        "two": True,
        "three": True,
        "four": False,
    }
    assert "its labels are none, the route asks for tier=gold" in says["one"]["why"]
    assert says["four"]["why"] == "broadcast:kind=alias,name=g*: excluded by fo*"
    assert says["three"]["also"] == ["chain:kind=alias:system/two,system/three"]
    with pytest.raises(NotFound):
        await control.explain("alias/nosuch")
