"""Each hop of a chain gets the event as its own target writes it: that is the transform of a hop."""

from __future__ import annotations

from typing import Any

Stage = Any  # the class of the fixture, which pytest alone can import


async def test_each_hop_is_written_by_its_own_template(stage: Stage) -> None:
    await stage.target("first")
    shaped = '{"name": {{ name|tojson }}, "runs": {{ record.spec.command|tojson }}}'
    await stage.target("second", format="template", template=shaped)
    await stage.target("third", format="slack")
    stage.targets.down.add("first")
    await stage.route("all", "first", "second", "third", mode="multicast", pattern="chain")
    await stage.alias("gs", "git status")
    await stage.settle()
    assert stage.targets.got == {}, "the hops wait for the first"
    stage.targets.down.clear()
    await stage.until(lambda: "third" in stage.targets.got)
    [first], [second], [third] = (stage.targets.got[name] for name in ("first", "second", "third"))
    assert first["data"]["record"]["spec"]["command"] == "git status"
    assert second == {"name": "gs", "runs": "git status"}
    assert set(third) == {"text"}
