"""`ureg studio` as AI clients use it: the library's own client over real pipes, and the files that clients read."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.subscriptions import ResourcesListChanged, ResourceUpdated
from mcp.shared.exceptions import MCPError

from universal_registry.studio.tools import TOOLS

UREG = ["-P", "-m", "universal_registry"]
GS = {"kind": "alias", "name": "gs", "spec": {"command": "git status -sb"}}
BOTH_ERAS = pytest.mark.parametrize("mode", ["auto", "legacy"])


@asynccontextmanager
async def studio(ureg: Any, *words: str, mode: str = "auto") -> AsyncIterator[Client]:
    """A client with a server of its own, as clients start it."""
    started = StdioServerParameters(command=sys.executable, args=[*UREG, "studio", "serve", *words], env=ureg.environ)
    async with asyncio.timeout(60), Client(stdio_client(started), mode=mode) as client:
        yield client


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    found: dict[str, Any] = result.structured_content
    assert not result.is_error, found
    assert json.loads(result.content[0].text) == found  # for clients that read text alone
    return found


async def problem(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    found: dict[str, Any] = result.structured_content
    assert found["message"], found
    assert "Traceback" not in result.content[0].text
    return found


@BOTH_ERAS
async def test_every_tool_with_a_daemon_and_without(ureg: Any, mode: str) -> None:
    async with studio(ureg, mode=mode) as client:
        told = await client.list_tools()
        assert [each.name for each in told.tools] == [each.name for each in TOOLS]
        assert {each.name for each in told.tools if not each.annotations.read_only_hint} == {"apply", "propagate"}
        assert {each.name for each in told.tools if each.annotations.destructive_hint} == {"apply"}

        assert (await ask(client, "apply", documents=[GS]))["results"][0]["effect"] == "created"
        assert (await problem(client, "get", kind="alias", name="gs"))["code"] == "not-found"  # it was only foretold
        done = await ask(client, "apply", documents=[GS], dry_run=False, message="from a studio")
        assert done["results"][0]["effect"] == "created"

        assert (await ask(client, "get", kind="alias", name="gs"))["spec"] == GS["spec"]
        assert [each["name"] for each in (await ask(client, "get", kind="aliases"))["items"]] == ["gs"]
        assert [each["kind"] for each in (await ask(client, "get", name="gs"))["items"]] == ["alias"]
        found = (await ask(client, "search", words=["STATUS", "git"]))["items"]
        assert [(each["record"]["name"], each["found_in"]) for each in found] == [("gs", ["spec.command"])]
        foretold = await ask(client, "diff", documents=[{**GS, "spec": {"command": "ls"}}])
        assert foretold["results"][0]["changed"] == ["spec.command"]
        assert (await ask(client, "history", kind="alias", name="gs"))["items"][0]["message"] == "from a studio"

        would = await ask(client, "propagate", source="alias/gs", targets=["http://127.0.0.1:9/x"])
        assert (would["would"], would["session"]) == ("created", None)
        assert (await ask(client, "where", name="alias/gs"))["items"][0]["targets"] == []
        sent = await ask(client, "propagate", source="alias/gs", targets=["http://127.0.0.1:9/x"], dry_run=False)
        assert "secret" not in sent
        assert any("ureg target secret show" in each for each in sent["notes"])
        assert (await ask(client, "explain_route", name="gs"))["items"][0]["targets"][0]["gets"] is True

        gone = await ask(client, "apply", delete=[{"kind": "alias", "name": "gs"}], dry_run=False)
        assert gone["results"][0]["effect"] == "deleted"
    ureg("get", "alias", "gs", code=3)


async def test_read_only_leaves_nothing_that_writes(offline: Any) -> None:
    async with studio(offline, "--read-only") as client:
        assert {each.name for each in (await client.list_tools()).tools}.isdisjoint({"apply", "propagate"})
        with pytest.raises(MCPError, match="there is no tool 'apply'"):
            await client.call_tool("apply", {"documents": [GS], "dry_run": False})
    offline("get", "alias", "gs", code=3)


async def test_records_are_resources(ureg: Any) -> None:
    ureg("set", "alias", "a/b ?", "command=ls")
    ureg("set", "service", "shop", "-n", "ops")
    async with studio(ureg) as client:
        listed = {each.name: each.uri for each in (await client.list_resources()).resources}
        assert listed == {
            "alias/a/b ?": "registry://alias/a%2Fb%20%3F",
            "service/shop": "registry://service/shop?namespace=ops",
        }
        for uri in listed.values():
            read = (await client.read_resource(uri)).contents[0]
            assert uri == read.uri
            assert json.loads(read.text)["kind"] in uri
        assert len((await client.list_resource_templates()).resource_templates) == 2
        with pytest.raises(MCPError, match="there is no alias 'gz'"):
            await client.read_resource("registry://alias/gz")
        with pytest.raises(MCPError, match="no record's URI"):
            await client.read_resource("file:///etc/passwd")


async def test_the_list_of_resources_comes_in_pages(offline: Any) -> None:
    lines = [json.dumps({**GS, "name": f"a{number:03}"}) for number in range(130)]
    offline("apply", "-f", offline.write("many.ndjson", "\n".join(lines)))
    async with studio(offline) as client:
        first = await client.list_resources()
        second = await client.list_resources(cursor=first.next_cursor)
        assert (len(first.resources), len(second.resources), second.next_cursor) == (100, 30, None)
        assert len({each.uri for each in (*first.resources, *second.resources)}) == 130
        with pytest.raises(MCPError):
            await client.list_resources(cursor="surely not a page")


@BOTH_ERAS
async def test_nothing_is_left_out_between_two_waits(online: Any, mode: str) -> None:
    async with studio(online, mode=mode) as client:
        begun = await ask(client, "wait_for_changes")
        assert begun["changes"] == []
        for number in range(5):
            online("set", "alias", f"n{number}", "command=ls")
        online("set", "service", "shop")
        names, cursor, rounds = [], begun["cursor"], 0
        while len(names) < 5:
            told = await ask(client, "wait_for_changes", cursor=cursor, select=["kind=alias"], limit=2)
            names += [each["name"] for each in told["changes"]]
            cursor, rounds = told["cursor"], rounds + 1
        assert names == [f"n{number}" for number in range(5)]
        assert rounds == 3
        nothing = await ask(client, "wait_for_changes", cursor=cursor, select=["kind=alias"], timeout=0)
        assert (nothing["changes"], nothing["more"]) == ([], False)

        waiting = asyncio.create_task(ask(client, "wait_for_changes", cursor=nothing["cursor"], timeout=30))
        await ask(client, "apply", documents=[GS], dry_run=False)  # other calls go on meanwhile
        assert [each["name"] for each in (await waiting)["changes"]] == ["gs"]


async def test_a_cursor_of_another_history_says_where_to_begin(online: Any) -> None:
    async with studio(online) as client:
        refused = await problem(client, "wait_for_changes", cursor="0123456789ab.1.00000000")
        assert refused["code"] == "cursor-mismatch"
        again = await ask(client, "wait_for_changes", cursor=refused["data"]["cursor"], timeout=0)
        assert again["changes"] == []
        assert (await problem(client, "wait_for_changes", cursor="surely not"))["code"] == "malformed"


async def test_who_subscribes_is_told(online: Any) -> None:
    async with studio(online) as client:
        await ask(client, "apply", documents=[GS, {**GS, "name": "other"}], dry_run=False)
        subscribed = client.listen(resource_subscriptions=["registry://alias/gs"], resources_list_changed=True)
        async with subscribed as events:
            online("set", "alias", "gs", "command=ls")  # by anybody
            assert await anext(events) == ResourceUpdated("registry://alias/gs")
            online("set", "alias", "other", "command=other")  # not subscribed to, and not new
            online("set", "alias", "new", "command=new")
            assert await anext(events) == ResourcesListChanged()


async def test_a_secret_is_in_no_answer(online: Any) -> None:
    hush = "hush-4711"
    async with studio(online) as client:
        begun = await ask(client, "wait_for_changes")
        document = {"kind": "env_var", "name": "KEY", "spec": {"secret_value": hush}}
        answers = [
            await ask(client, "apply", documents=[document]),
            await ask(client, "apply", documents=[document], dry_run=False),
            await ask(client, "get", kind="env_var", name="KEY"),
            await ask(client, "get", kind="env_var"),
            await ask(client, "search", words=[hush]),
            await ask(client, "history", kind="env_var", name="KEY"),
            await ask(client, "diff", documents=[{**document, "spec": {"secret_value": hush + "!"}}]),
            await ask(client, "wait_for_changes", cursor=begun["cursor"]),
            json.loads((await client.read_resource("registry://env_var/KEY")).contents[0].text),
        ]
        assert hush not in json.dumps(answers)
        sent = await ask(client, "propagate", source="kind=env_var", targets=["http://127.0.0.1:9/x"], dry_run=False)
        assert "whsec_" not in json.dumps(sent)
        kept = {**document, "spec": {"secret_value": {"$secret": "kept"}}}
        assert (await ask(client, "apply", documents=[kept]))["results"][0]["effect"] == "unchanged"


HOSTILE: list[tuple[str, dict[str, Any]]] = [
    ("get", {}),
    ("get", {"kind": "", "name": "x"}),
    ("get", {"kind": "-", "name": "keys"}),
    ("get", {"kind": "alias", "name": "../../../-/keys"}),
    ("get", {"kind": "tokens", "name": "x", "namespace": "-"}),
    ("get", {"kind": "alias", "name": "x", "namespace": "../-"}),
    ("get", {"kind": "alias", "name": "a\0b"}),
    ("get", {"kind": "alias", "name": "x" * 1_000_000}),
    ("get", {"kind": "alias", "name": "x", "revision": 10**30}),
    ("get", {"kind": "alias", "page": "'; DROP TABLE aliases; --"}),
    ("search", {"words": [""]}),
    ("search", {"words": ["x"] * 21}),
    ("apply", {}),
    ("apply", {"documents": [{}]}),
    ("apply", {"documents": [{"kind": "alias", "name": "x", "op": "delete"}], "dry_run": False}),
    ("apply", {"documents": [{"kind": "alias", "name": "x", "spec": {"command": 5}}], "dry_run": False}),
    ("apply", {"documents": [{"kind": "nope", "name": "x", "spec": {}}], "dry_run": False}),
    ("apply", {"documents": [{**GS, "spec": {"command": "x" * 300_000}}], "dry_run": False}),
    ("apply", {"documents": [GS], "dry_run": "no"}),
    ("apply", {"documents": [GS, GS], "dry_run": False}),
    ("apply", {"delete": [{"kind": "alias", "name": "gs", "namespace": "-"}], "dry_run": False}),
    ("diff", {"documents": [GS], "dry_run": False}),
    ("history", {"kind": "alias"}),
    ("propagate", {"source": "", "targets": ["mine"], "dry_run": False}),
    ("propagate", {"source": "alias/gs", "targets": ["file:///etc/passwd"], "dry_run": False}),
    ("propagate", {"source": "alias/gs", "mode": "everywhere"}),
    ("where", {"name": ""}),
    ("explain_route", {"name": "no-such-record"}),
    ("wait_for_changes", {"timeout": 1e9}),
    ("wait_for_changes", {"select": ["kind=="]}),
]


async def test_hostile_arguments_are_refused_in_one_line_and_change_nothing(online: Any) -> None:
    before = online.json("status")["revision"]
    deep: Any = "x"
    for _ in range(100):
        deep = [deep]
    async with studio(online) as client:
        for tool, arguments in (
            *HOSTILE,
            ("apply", {"documents": [{**GS, "spec": {"command": deep}}], "dry_run": False}),
        ):
            found = await problem(client, tool, **arguments)
            assert found["code"] not in ("internal", "unreachable"), (tool, str(arguments)[:100], found)
            assert "\n" not in found["message"]
            assert len(found["message"]) < 1000
        assert (await ask(client, "get", kind="alias"))["items"] == []
    assert online.json("status")["revision"] == before


def test_lines_that_are_no_messages_do_not_end_it(offline: Any) -> None:
    get = {"name": "get", "arguments": {"kind": "alias"}}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    lines = [
        b"surely not JSON",
        b"\xff\xfe",
        b'{"jsonrpc": "2.0", "id": 1',
        b"[]",
        b'{"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": 5}}',
        b'{"jsonrpc": "2.0", "id": 3, "method": "no/such"}',
        json.dumps({"jsonrpc": "2.0", "id": 4, "method": "initialize", "params": hello}).encode(),
        b'{"jsonrpc": "2.0", "method": "notifications/initialized"}',
        json.dumps({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": get}).encode(),
    ]
    started = subprocess.Popen(
        [sys.executable, *UREG, "studio", "serve"],
        env=offline.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with started:
        assert started.stdin is not None
        assert started.stdout is not None
        started.stdin.write(b"\n".join(lines) + b"\n")
        started.stdin.flush()
        answers = {}
        while 5 not in answers:
            line = started.stdout.readline()
            assert line, "it ended"
            assert b"Traceback" not in line
            answer = json.loads(line)
            answers[answer.get("id")] = answer
        assert answers[5]["result"]["structuredContent"]["items"] == []
        started.stdin.close()
        assert started.wait(30) == 0


# --- install --------------------------------------------------------------------------------------------------------


def cursor_file(ureg: Any) -> Path:
    return Path(ureg.environ["HOME"]) / ".cursor" / "mcp.json"


async def test_what_is_installed_starts(offline: Any) -> None:
    dry = offline("studio", "install", "cursor", "--dry-run")
    assert '+    "universal-registry": {' in dry.stdout
    assert not cursor_file(offline).exists()
    offline("studio", "install", "cursor")
    assert stat.S_IMODE(cursor_file(offline).stat().st_mode) == 0o600
    entry = json.loads(cursor_file(offline).read_text())["mcpServers"]["universal-registry"]
    bare = {name: offline.environ[name] for name in ("PATH", "HOME")}  # what a client passes on
    started = StdioServerParameters(command=entry["command"], args=entry["args"], env={**bare, **entry["env"]})
    offline("set", "alias", "gs", "command=ls")
    async with asyncio.timeout(60), Client(stdio_client(started)) as client:
        assert (await ask(client, "get", kind="alias", name="gs"))["spec"] == {"command": "ls"}
    assert "so already" in offline("studio", "install", "cursor").stderr
    offline("studio", "install", "cursor", "--remove")
    assert json.loads(cursor_file(offline).read_text()) == {"mcpServers": {}}
    assert "not there" in offline("studio", "install", "cursor", "--remove").stderr


def test_foreign_entries_a_link_and_the_mode_stay_and_no_secret_is_shown(offline: Any) -> None:
    path = cursor_file(offline)
    path.parent.mkdir(parents=True)
    kept = offline.folder / "dotfiles.json"
    before = {"mcpServers": {"other": {"command": "x", "env": {"API_KEY": "hush-4711"}}}, "theme": "dark"}
    kept.write_text(json.dumps(before, indent=2))
    kept.chmod(0o640)
    path.symlink_to(kept)
    shown = offline("studio", "install", "cursor")
    assert "hush-4711" not in shown.stdout + shown.stderr
    assert path.is_symlink()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o640
    after = json.loads(kept.read_text())
    assert set(after["mcpServers"]) == {"other", "universal-registry"}
    offline("studio", "install", "cursor", "--remove")
    assert json.loads(kept.read_text()) == before
    assert sorted(each.name for each in path.parent.iterdir()) == ["mcp.json"]  # no draft is left


@pytest.mark.parametrize("text", ['{"mcpServers": ', '{"mcpServers": []}', '{ // mine\n "a": 1}', "\xff"])
def test_a_broken_file_is_refused_and_stays_as_it_is(offline: Any, text: str) -> None:
    path = cursor_file(offline)
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("latin-1"))
    refused = offline("studio", "install", "cursor", code=6)
    assert str(path) in refused.stderr
    assert path.read_bytes() == text.encode("latin-1")


def test_wrong_words_are_said_in_one_line(offline: Any) -> None:
    assert "did you mean" in offline("studio", "instal", code=2).stderr
    assert "cursor" in offline("studio", "install", "curser", code=2).stderr
    offline("studio", "install", "cursor", "--name", "a\nb", code=2)
    offline("studio", "serve", "--http", "0.0.0.0:0", code=2)
    offline("studio", "serve", "--http", "nonsense", code=2)
    folder = offline.folder / "folder"
    folder.mkdir()
    offline("studio", "install", "cursor", "--file", str(folder), code=2)


def test_without_the_library_it_says_what_to_install(offline: Any) -> None:
    script = "import sys; sys.modules['mcp'] = None; from universal_registry.__main__ import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, "studio", "serve"],
        env=offline.environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3
    assert "universal-registry[studio]" in done.stderr
    assert len(done.stderr.splitlines()) == 1
