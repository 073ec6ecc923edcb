"""What an agent does with one place after the other, on real files and with real commands."""

from __future__ import annotations

import json
import os
import re
import select
from pathlib import Path
from typing import Any

import pytest

from tests.agents import Machine, item, plan_of, said
from universal_registry.kernel.errors import Conflict, Invalid, Refused, RegistryError

EACH = {"select": "kind=config_file", "path": "{name}"}
GREP = ["grep", "-q", "^ok", "{file}"]


def each(folder: Path, **more: Any) -> dict[str, Any]:
    """An entry that puts every config file at its name below the root."""
    return {"files": {"select": "kind=config_file", "path": f"{folder}/root/{{name}}", **more}}


def test_a_file_comes_changes_and_goes(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, each(tmp_path))
    at = tmp_path / "root" / "a.conf"
    with Machine(tmp_path, plan) as machine:
        assert said(machine.settle(item("config_file", "a.conf", content="one"))) == [("running", "")]
        assert at.read_bytes() == b"one"
        assert at.stat().st_mode & 0o7777 == 0o644
        machine.settle(item("config_file", "a.conf", 2, content="two\n", mode="0600"))
        assert (at.read_text(), at.stat().st_mode & 0o7777) == ("two\n", 0o600)
    with Machine(tmp_path, plan) as machine:
        assert said(machine.settle()) == [("removed", "")]
        assert os.listdir(tmp_path / "root") == []
        assert machine.state.places == {}


def test_what_fails_its_check_is_never_seen(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, each(tmp_path, check=GREP, reload=["touch", str(tmp_path / "reloaded")]))
    with Machine(tmp_path, plan) as machine:
        machine.settle(item("config_file", "a", content="ok 1\n"))
        (tmp_path / "reloaded").unlink()
        bad = item("config_file", "a", 2, content="bad\n")
        done = machine.settle(bad)
        assert said(done) == [("received", "check failed: grep exited with 1")]
        assert done[0].running == {"config_file/default/a": 1}
        assert os.listdir(tmp_path / "root") == ["a"]
        assert (tmp_path / "root" / "a").read_text() == "ok 1\n"
        assert not (tmp_path / "reloaded").exists()
        assert said(machine.settle(bad)) == said(done), "it is not tried again and again"
        assert said(machine.settle(item("config_file", "a", 3, content="ok 3\n"))) == [("running", "")]
        assert (tmp_path / "root" / "a").read_text() == "ok 3\n"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"reload": [*GREP[:-1], "ROOT/a"]}, "reload failed: grep exited with 1; rolled back"),
        ({"health": [*GREP[:-1], "ROOT/a"], "health_within": 0}, "health failed: grep exited with 1; rolled back"),
        (
            {"health": ["no-such-command"], "health_within": 0},
            "health failed: no-such-command cannot be run: No such file",
        ),
    ],
)
def test_what_does_not_run_is_rolled_back(tmp_path: Path, more: dict[str, Any], why: str) -> None:
    more = {
        key: [w.replace("ROOT", str(tmp_path / "root")) for w in v] if isinstance(v, list) else v
        for key, v in more.items()
    }
    plan = plan_of(tmp_path, each(tmp_path, **more))
    at = tmp_path / "root" / "a"
    with Machine(tmp_path, plan) as machine:
        [(state, said_why)] = said(machine.settle(item("config_file", "a", content="bad")))
        assert (state, said_why[: len(why)]) == ("received", why)
        assert not at.exists(), "there was nothing before"
        if "no-such-command" in why:
            return
        machine.settle(item("config_file", "a", 2, content="ok 2"))
        done = machine.settle(item("config_file", "a", 3, content="bad"))
        assert said(done) == [("received", why)]
        assert done[0].running == {"config_file/default/a": 2}
        assert at.read_text() == "ok 2"
        [(state, said_why)] = said(machine.settle())
        assert (state, said_why.partition(" failed")[0]) == ("received", why.partition(" failed")[0])
        assert at.read_text() == "ok 2", "nor does it go, when what needs it does not run without it"


def test_what_did_not_do_does_not_run_because_it_stands_there(tmp_path: Path) -> None:
    well = tmp_path / "well"
    plan = plan_of(tmp_path, each(tmp_path, health=["test", "-e", str(well)], health_within=0))
    with Machine(tmp_path, plan) as machine:
        wanted = item("config_file", "a", content="new")
        assert said(machine.settle(wanted)) == [("received", "health failed: test exited with 1; rolled back")]
        (tmp_path / "root" / "a").write_text("new")
        (tmp_path / "root" / "a").chmod(0o644)
        assert said(machine.settle(wanted)) == [("received", "health failed: test exited with 1; rolled back")]
        well.touch()
        assert said(machine.settle(wanted, again=True)) == [("running", "")]
        assert said(machine.settle(wanted)) == [("running", "")]


def test_a_command_that_does_not_end_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    endless = f"cd {tmp_path}; sleep 600 & echo $! >> children; wait"
    plan = plan_of(tmp_path, each(tmp_path, reload=["sh", "-c", endless]), timeout=1.5)
    with Machine(tmp_path, plan) as machine:
        [(state, why)] = said(machine.settle(item("config_file", "a", content="x")))
    assert state == "received"
    assert why.startswith("reload failed: sh did not end within 1.5 s; rolled back, but then reload failed: ")
    for child in (tmp_path / "children").read_text().split():
        assert is_over(int(child)), child


def is_over(process: int) -> bool:
    """Whether it ends, now that it was told to."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 30)[0])
    finally:
        os.close(descriptor)


def test_what_people_have_changed_is_held_until_they_say(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, each(tmp_path))
    at = tmp_path / "root" / "a"
    first, second = item("config_file", "a", content="one"), item("config_file", "a", 2, content="two")
    at.write_text("theirs")
    with Machine(tmp_path, plan) as machine:
        assert said(machine.settle(first)) == [("held", "there is something already that the agent has not put there")]
        assert at.read_text() == "theirs"
    with Machine(tmp_path, plan, reverts=[at]) as machine:
        assert said(machine.settle(first)) == [("running", "")]
        [aside] = (tmp_path / "state" / "replaced").iterdir()
        assert (aside.read_text(), aside.stat().st_mode & 0o777) == ("theirs", 0o600)
        at.write_text("mine")
        assert said(machine.settle(first)) == [("held", "it was changed on this machine")], "said once, done once"
        assert said(machine.settle(second)) == [("held", "it was changed on this machine")]
        assert said(machine.settle()) == [("held", "its records are gone, but it was changed on this machine")]
        assert at.read_text() == "mine"
        at.unlink()
        assert said(machine.settle(second)) == [("held", "it was removed on this machine")]
        at.write_text("two")
        at.chmod(0o644)
        assert said(machine.settle(second)) == [("running", "")]
        at.chmod(0o666)
        assert said(machine.settle(second)) == [("held", "it was changed on this machine")]


def test_a_block_leaves_the_lines_of_others_alone(tmp_path: Path) -> None:
    entry = {"select": "kind=env_var", "path": f"{tmp_path}/root/rc", "as": "block", "check": ["sh", "-n", "{file}"]}
    plan = plan_of(tmp_path, {"env": entry, "more": {**entry, "select": "kind=path"}})
    rc = tmp_path / "root" / "rc"
    rc.write_text("# mine\nset -u")
    rc.chmod(0o640)
    one, path = item("env_var", "A", value="1"), item("path", "p", path="/p")
    with Machine(tmp_path, plan) as machine:
        assert said(machine.settle(one, path)) == [("running", ""), ("running", "")]
        assert rc.read_text().startswith(
            "# mine\nset -u\n# >>> universal-registry env >>>\nexport A='1'\n# <<< universal"
        )
        assert rc.stat().st_mode & 0o7777 == 0o640
        rc.write_text("# first\n" + rc.read_text() + "# last\n")
        assert said(machine.settle(item("env_var", "A", 2, value="2"), path)) == [("running", ""), ("running", "")]
        assert "export A='2'" in rc.read_text()
        rc.write_text(rc.read_text().replace("A='2'", "A='3'"))
        assert said(machine.settle(one, path))[0] == ("held", "it was changed on this machine")
        rc.write_text(rc.read_text().replace("A='3'", "A='2'"))
        assert {state for state, _ in said(machine.settle())} == {"removed"}
        assert rc.read_text() == "# first\n# mine\nset -u\n# last\n"
        rc.write_text("# >>> universal-registry env >>>\n")
        [(state, why)] = said(machine.settle(one))
        assert (state, why) == ("held", "the marks of block env are not one pair")
        rc.unlink()
        rc.symlink_to("elsewhere")
        assert said(machine.settle(one)) == [("held", f"{rc} is a symbolic link")]


def test_a_block_that_does_not_run_goes_and_the_file_is_as_it_was(tmp_path: Path) -> None:
    rc = tmp_path / "root" / "rc"
    health = ["grep", "-q", "A='1'", str(rc)]
    entry = {"select": "kind=env_var", "path": str(rc), "as": "block", "health": health, "health_within": 0}
    plan = plan_of(tmp_path, {"env": entry})
    rc.write_bytes(b"no end of line")
    with Machine(tmp_path, plan) as machine:
        assert said(machine.settle(item("env_var", "A", value="0")))[0][0] == "received"
        assert rc.read_bytes() == b"no end of line"
        assert said(machine.settle(item("env_var", "A", 2, value="1"))) == [("running", "")]
        assert said(machine.settle(item("env_var", "A", 3, value="0")))[0][0] == "received"
        assert b"A='1'" in rc.read_bytes()


def test_servers_of_ai_clients_stand_beside_those_of_others(tmp_path: Path) -> None:
    at = tmp_path / "root" / "mcp.json"
    plan = plan_of(tmp_path, {"ai": {"select": "kind=tool", "path": str(at), "as": "members"}})
    theirs = {"theme": "dark", "mcpServers": {"mine": {"command": "x"}}, "more": [1, None, 1.5, "\u00fc"]}
    at.write_text(json.dumps(theirs, indent=4))
    at.chmod(0o600)
    git = item("tool", "git", command="git-mcp --repo '/my repo'")
    far = item("tool", "far", url="https://mcp.example/x")

    def servers() -> dict[str, Any]:
        found: dict[str, Any] = json.loads(at.read_text())
        assert {**found, "mcpServers": 0} == {**theirs, "mcpServers": 0}
        assert found["mcpServers"].pop("mine") == {"command": "x"}
        return dict(found["mcpServers"])

    with Machine(tmp_path, plan) as machine:
        assert said(machine.settle(git, far)) == [("running", "")]
        entry = {"command": "git-mcp", "args": ["--repo", "/my repo"]}
        assert servers() == {"git": entry, "far": {"type": "http", "url": "https://mcp.example/x"}}
        assert (at.read_text()[:6], at.stat().st_mode & 0o777) == ("{\n    ", 0o600)
        assert said(machine.settle(far)) == [("running", "")]
        assert list(servers()) == ["far"]
        mine = item("tool", "mine", command="y")
        assert said(machine.settle(far, mine)) == [("held", "it was changed on this machine")]
        skill = item("tool", "s", classification="Skill")
        assert [state for state, _ in said(machine.settle(far, skill, item("tool", "t", command="'")))] == [
            "running",
            "unfit",
            "unfit",
        ]
        at.write_text(at.read_text().replace("mcp.example", "evil.example"))
        assert said(machine.settle(far)) == [("held", "it was changed on this machine")]
        at.write_text(at.read_text().replace("evil.example", "mcp.example"))
        assert said(machine.settle()) == [("removed", "")]
        assert servers() == {}
        for text in ("// no JSON\n{}", "[]", '{"mcpServers": []}'):
            at.write_text(text)
            assert said(machine.settle(git))[0][0] == "held"
            assert at.read_text() == text


def test_links_are_made_changed_and_removed_within_what_is_allowed(tmp_path: Path) -> None:
    entry = {"select": "kind=symlink", "path": "record", "as": "link"}
    (tmp_path / "data").mkdir()
    plan = plan_of(tmp_path, {"links": entry}, link_roots=[str(tmp_path / "data")])
    at = tmp_path / "root" / "sub" / "vi"
    with Machine(tmp_path, plan) as machine:
        for revision, target in ((1, str(tmp_path / "data" / "vim")), (2, "../nano")):
            link = item("symlink", "vi", revision, source=str(at), target=target)
            assert said(machine.settle(link)) == [("running", "")]
            assert os.readlink(at) == target
        behind_a_link = ("sub/../nano", f"{tmp_path}/data/../data/x", "../a/../nano")
        for target in ("/etc/passwd", "../../etc", str(tmp_path / "database"), "", "x\ny", *behind_a_link):
            [(state, _)] = said(
                machine.settle(item("symlink", "other", 3, source=str(at.parent / "o"), target=target), link)
            )[1:]
            assert state == "unfit", target
        assert os.listdir(at.parent) == ["vi"]
        assert said(machine.settle()) == [("removed", "")]
        assert os.listdir(at.parent) == []


OUTSIDE = [
    "/etc/passwd",
    "ROOT",
    "ROOT/",
    "ROOT/../x",
    "ROOT/./x",
    "ROOT/a/../../x",
    "ROOT/x\n",
    "ROOT/x\x00y",
    "ROOT/\x1b[31m",
    "relative",
    "",
    "ROOT/" + "x/" * 2500 + "x",
    "STATE/state.json",
    "STATE",
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_a_record_cannot_name_a_place_outside(tmp_path: Path, path: str) -> None:
    plan = plan_of(tmp_path, {"files": {"select": "kind=config_file", "path": "record"}}, roots=[str(tmp_path)])
    (tmp_path / "root").mkdir(exist_ok=True)
    named = path.replace("ROOT", str(tmp_path)).replace("STATE", str(tmp_path / "state"))
    with Machine(tmp_path, plan) as machine:
        before = sorted(tmp_path.rglob("*"))
        [(state, why)] = said(machine.settle(item("config_file", "a", path=named, content="pwned")))
        assert state == "unfit"
        assert "\n" not in why
        assert sorted({*tmp_path.rglob("*")} - {tmp_path / "state" / "state.json"}) == before


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../x", "/etc/passwd", ".bashrc", "x\x1b"])
def test_a_record_cannot_leave_by_its_name(tmp_path: Path, name: str) -> None:
    with Machine(tmp_path, plan_of(tmp_path, each(tmp_path))) as machine:
        [(state, _)] = said(machine.settle(item("config_file", name, content="pwned")))
        assert state == "unfit"
    assert os.listdir(tmp_path / "root") == []


@pytest.mark.parametrize("trick", ["link", "loop", "file", "open"])
def test_a_folder_on_the_way_that_is_not_what_it_seems_is_refused(tmp_path: Path, trick: str) -> None:
    plan = plan_of(tmp_path, {"files": {"select": "kind=config_file", "path": "record"}})
    sub = tmp_path / "root" / "sub"
    (tmp_path / "elsewhere").mkdir()
    match trick:
        case "link":
            sub.symlink_to(tmp_path / "elsewhere")
        case "loop":
            sub.symlink_to(sub)
        case "file":
            sub.write_text("x")
        case "open":
            sub.mkdir()
            sub.chmod(0o777)
    with Machine(tmp_path, plan) as machine:
        record = item("config_file", "a", path=str(sub / "deep" / "a"), content="pwned")
        [(state, why)] = said(machine.settle(record))
        assert state == "held"
        assert str(sub) in why
        assert not list((tmp_path / "elsewhere").iterdir())


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    victim, at = tmp_path / "victim", tmp_path / "root" / "a"
    plan = plan_of(tmp_path, each(tmp_path))
    victim.write_text("theirs")
    at.symlink_to(victim)
    with Machine(tmp_path, plan) as machine:
        assert said(machine.settle(item("config_file", "a", content="x")))[0][0] == "held"
    with Machine(tmp_path, plan, reverts=[at]) as machine:
        assert said(machine.settle(item("config_file", "a", content="x"))) == [("running", "")]
    assert (victim.read_text(), at.read_text(), at.is_symlink()) == ("theirs", "x", False)


def test_a_record_does_not_make_its_file_one_that_runs_or_that_all_may_write(tmp_path: Path) -> None:
    for mode in ("0755", "0666", "4644", "0660", "777"):
        with Machine(tmp_path, plan_of(tmp_path, each(tmp_path))) as machine:
            assert said(machine.settle(item("config_file", "a", content="x", mode=mode)))[0][0] == "unfit", mode
    with Machine(tmp_path, plan_of(tmp_path, each(tmp_path, mode="0755"))) as machine:
        machine.settle(item("config_file", "a", content="x", mode="0600"))
    assert (tmp_path / "root" / "a").stat().st_mode & 0o7777 == 0o755


def test_a_path_that_two_entries_want_is_given_to_the_first(tmp_path: Path) -> None:
    entry = {"select": "kind=config_file,name=a*", "path": "record"}
    plan = plan_of(tmp_path, {"one": entry, "two": {**entry, "select": "kind=config_file,name=b*"}})
    at = str(tmp_path / "root" / "x")
    records = [item("config_file", name, path=at, content=name) for name in ("a1", "a2", "b")]
    with Machine(tmp_path, plan) as machine:
        results = said(machine.settle(*records))
        assert results[0] == ("running", "")
        assert [state for state, _ in results[1:]] == ["unfit", "unfit"]
    assert Path(at).read_text() == "a1"


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    name = "n" * 250  # there is no room for the name of its draft
    at = tmp_path / "root" / name
    with Machine(tmp_path, plan_of(tmp_path, each(tmp_path))) as machine:
        at.write_text("x")
        at.chmod(0o644)
        assert said(machine.settle(item("config_file", name, content="x"))) == [("running", "")]
        done = machine.settle(item("config_file", name, 2, content="y"))
        assert said(done) == [("received", "it cannot be written: file name too long")]
    assert os.listdir(tmp_path / "root") == [name]
    assert at.read_text() == "x"


def test_what_is_on_another_host_is_left_to_that(tmp_path: Path) -> None:
    with Machine(tmp_path, plan_of(tmp_path, each(tmp_path))) as machine:
        here, there = (item("config_file", name, content=name, host=name) for name in ("m", "other"))
        assert said(machine.settle(here, there)) == [("running", "")]
    assert os.listdir(tmp_path / "root") == ["m"]


def test_one_agent_at_a_time_and_one_registry(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, each(tmp_path))
    with Machine(tmp_path, plan) as machine:
        machine.settle(item("config_file", "a", content="x"))
        with pytest.raises(Conflict, match="another agent is at work"):
            Machine(tmp_path, plan)
        with pytest.raises(Conflict, match="is of the registry here"):
            machine.file.load("there", plan.terms())
    (tmp_path / "state" / "state.json").write_text("{")
    with pytest.raises(Invalid, match="no state of an agent"):
        Machine(tmp_path, plan)


GOOD = {"select": "kind=config_file", "path": "record"}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ([], "cannot be read"),
        ({"roots": ["ROOT"]}, "cannot be read"),
        ({"roots": [], "entries": {"a": GOOD}}, "no roots"),
        ({"roots": ["/"], "entries": {"a": GOOD}}, "cannot be a root"),
        ({"roots": ["relative"], "entries": {"a": GOOD}}, "cannot be a root"),
        ({"roots": ["ROOT/none"], "entries": {"a": GOOD}}, "is no folder"),
        ({"roots": ["ROOT"], "entries": {"a": GOOD}, "name": "../x"}, "name"),
        ({"roots": ["ROOT"], "entries": {"a": GOOD}, "timeout": 0}, "timeout"),
        ({"roots": ["ROOT"], "entries": {"a b": GOOD}}, "its name"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "shell": True}}}, "unknown field"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "select": "kind=nokind"}}}, "nokind"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "select": "name=x"}}}, "selects no kind"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "select": "kind=service"}}}, "service is no kind"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "select": "kind=alias"}}}, "only files and links"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "select": "kind=config_file,namespace=system"}}}, "own"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "as": "block"}}}, "only files and links"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "as": "link"}}}, "no kind"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "path": "relative"}}}, "neither whole"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "path": "/x\x1b"}}}, "control character"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "path": "/etc/passwd"}}}, "below no allowed folder"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "path": "ROOT/../x"}}}, "no plain path"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "mode": "0666"}}}, "mode"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "mode": "4755"}}}, "mode"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "comment": "x\n"}}}, "comment"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "reload": "rm -rf"}}}, "array"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "reload": ["x", "{file}"]}}}, "for check"),
        ({"roots": ["ROOT"], "entries": {"a": {**GOOD, "health_within": -1}}}, "health_within"),
        (
            {
                "roots": ["ROOT"],
                "entries": {n: {"select": "kind=alias", "path": p} for n, p in (("a", "ROOT/x/y"), ("b", "ROOT/x//y"))},
            },
            "for one path",
        ),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(tmp_path: Path, document: Any, why: str) -> None:
    from universal_registry.agent.plan import read_plan
    from universal_registry.registry.catalogue import load_catalogue

    if isinstance(document, dict):
        document = json.loads(json.dumps(document).replace("ROOT", str(tmp_path)))
    with pytest.raises(RegistryError) as refused:
        read_plan(document, home="/home/me", host="m", catalogue=load_catalogue())
    assert isinstance(refused.value, Invalid | Refused)
    assert re.search(why, f"{refused.value.message} {refused.value.hint}"), refused.value.message
