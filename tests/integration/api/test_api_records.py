"""Records through the API, in process, on a real store."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from universal_registry.client.http import quote, record_path

HOSTILE_NAMES = [
    "g++", "@scope/pkg", "..", ".", "-", "[", "x; touch pwned", "HTTP_PROXY", "http_proxy", "\U0001f980" * 63,
    "a%2Fb", "a b", "/usr/bin", "10.0.0.0/8", "?x=1&y=2", "#frag", "a+b", "naïve", "\u202eabc", "-rf", "$(id)", "a\\b",
]  # fmt: skip


def loads(response: Any) -> Any:
    return orjson.loads(response.body)


async def put(stack: Any, name: str, **content: Any) -> Any:
    return await stack.call("PUT", record_path("default", "aliases", name), json=content)


async def test_hostile_names_go_in_and_come_back(stack):
    for name in HOSTILE_NAMES:
        path = record_path("default", "aliases", name)
        made = await stack.call("PUT", path, json={"spec": {"command": "true"}})
        assert (made.status, loads(made)["record"]["name"]) == (201, name)
        assert loads(await stack.call("GET", path))["name"] == name
        listed = loads(await stack.call("GET", "/v1/default/aliases"))
        assert [each["name"] for each in listed["items"]] == [name]
        assert loads(await stack.call("GET", "/v1/-/find", query={"name": name}))["items"][0]["name"] == name
        gone = await stack.call("DELETE", path)
        assert (gone.status, loads(gone)["effect"]) == (200, "deleted")
        assert (await stack.call("GET", path)).status == 404


@pytest.mark.parametrize("segment", ["..", "%2E%2E", ".", "%2e"])
async def test_dots_are_names_and_never_steps(stack, segment):
    made = await stack.call("PUT", f"/v1/default/aliases/{segment}", json={"spec": {"command": "true"}})
    assert loads(made)["record"]["name"] == segment.replace("%2E", ".").replace("%2e", ".")


async def test_segments_are_decoded_exactly_once(stack):
    made = await stack.call("PUT", "/v1/default/aliases/%2540scope%252Fpkg", json={"spec": {"command": "true"}})
    assert loads(made)["record"]["name"] == "%40scope%2Fpkg"


async def test_names_that_differ_in_case_are_two(stack):
    await put(stack, "HTTP_PROXY", spec={"command": "one"})
    await put(stack, "http_proxy", spec={"command": "two"})
    assert loads(await stack.call("GET", "/v1/default/aliases/HTTP_PROXY"))["spec"]["command"] == "one"
    assert len(loads(await stack.call("GET", "/v1/default/aliases"))["items"]) == 2


BAD_PATHS = [
    ("/v1/default/aliases/%00", 400),
    ("/v1/default/aliases/a%0ab", 422),
    ("/v1/default/aliases/%ff", 400),
    ("/v1/default/aliases/%zz", 400),
    ("/v1/default/aliases/%", 400),
    ("/v1/default/aliases/%20a", 422),
    ("/v1/default/aliases/" + "a" * 254, 422),
    ("/v1/Default/aliases/a", 422),
    ("/v1/default/alises/a", 404),
    ("/v1/default/aliases/", 404),
    ("/v1/default/aliases/a/b", 404),
    ("/v1/-/aliases/a", 404),
    ("/v2/x", 404),
    ("/", 404),
    ("//etc/passwd", 404),
    ("/v1/default/aliases/-", 400),
    ("/v1/default/aliases/-?name=%00", 400),
    ("/v1/default/aliases?limit=0", 400),
    ("/v1/default/aliases?limit=1001", 400),
    ("/v1/default/aliases?limit=x", 400),
    ("/v1/default/aliases?limit=1&limit=2", 400),
    ("/v1/default/aliases?page=garbage", 400),
    ("/v1/default/aliases?select=nonsense=1", 422),
    ("/v1/default/aliases?select=kind=service", 400),
    ("/v1/default/aliases?name=%ff", 400),
    ("/v1/-/kinds/alise", 404),
]


async def test_bad_paths_have_their_status_and_a_problem(stack):
    found = []
    for path, _ in BAD_PATHS:
        answer = await stack.call("GET", path)
        problem = loads(answer)
        found.append((path, answer.status))
        assert (problem["status"], answer.header("content-type")) == (answer.status, "application/problem+json")
        assert problem["detail"]
        assert len(problem["trace_id"]) == 32
    assert found == BAD_PATHS


async def test_an_unknown_kind_says_which_plural_was_meant(stack):
    problem = loads(await stack.call("GET", "/v1/default/alises/a"))
    assert problem["hint"] == "did you mean 'aliases'?"
    assert problem["data"]["did_you_mean"][0] == "aliases"


async def test_a_wrong_method_says_which_are_right(stack):
    answer = await stack.call("POST", "/v1/default/aliases/a", json={})
    assert (answer.status, answer.header("allow")) == (405, "DELETE, GET, HEAD, PATCH, PUT")


async def test_put_create_update_unchanged(stack):
    first = await put(stack, "gs", spec={"command": "git status"})
    again = await put(stack, "gs", spec={"command": "git status"})
    other = await put(stack, "gs", spec={"command": "git status -sb"})
    assert [loads(each)["effect"] for each in (first, again, other)] == ["created", "unchanged", "updated"]
    assert [each.status for each in (first, again, other)] == [201, 200, 200]
    assert first.header("etag") == again.header("etag") != other.header("etag")
    assert loads(other)["record"]["meta"]["generation"] == 2
    assert loads(other)["record"]["meta"]["updated_by"].startswith("uid:")


async def test_the_etag_guards_reads_and_writes(stack):
    tag = (await put(stack, "gs", spec={"command": "one"})).header("etag")
    assert (await stack.call("GET", "/v1/default/aliases/gs", headers={"If-None-Match": tag})).status == 304
    assert (await stack.call("GET", "/v1/default/aliases/gs", headers={"If-None-Match": '"99"'})).status == 200

    async def write(command: str, **headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await stack.call("PUT", "/v1/default/aliases/gs", json={"spec": {"command": command}}, headers=named)
        return answer.status

    assert await write("two", If_None_Match="*") == 412
    assert await write("two", If_Match='"99"') == 412
    assert await write("two", If_Match=f'"99", {tag}') == 200
    assert await write("three", If_Match=tag) == 412
    assert await write("three", If_Match="*") == 200
    assert await write("three", If_Match="nonsense") == 412
    assert await write("three", If_None_Match='"1"') == 400
    assert (await stack.call("DELETE", "/v1/default/aliases/gs", headers={"If-Match": tag})).status == 412
    assert (await stack.call("PUT", "/v1/default/aliases/no", json={}, headers={"If-Match": "*"})).status == 412


async def test_patch_merges_and_null_removes(stack):
    await put(stack, "gs", spec={"command": "git status", "shell": "zsh"}, labels={"a": "1", "b": "2"})
    answer = await stack.call(
        "PATCH",
        "/v1/default/aliases/gs",
        body=b'{"labels":{"a":null},"spec":{"shell":null}}',
        headers={"content-type": "application/merge-patch+json"},
    )
    record = loads(answer)["record"]
    assert (record["labels"], record["spec"]) == ({"b": "2"}, {"command": "git status"})


BAD_BODIES = [
    (b'{"spec":{"command":"a","command":"b"}}', 400, "malformed"),
    (b'{"spec":{"command":"\\u0000"}}', 400, "malformed"),
    (b'{"spec":{"command":NaN}}', 400, "malformed"),
    (b"", 400, "malformed"),
    (b"\xff", 400, "malformed"),
    (b"[" * 100_000, 413, "too-large"),
    (b'{"a":' * 65 + b"1" + b"}" * 65, 413, "too-large"),
    (b"[]", 422, "invalid"),
    (b'"text"', 422, "invalid"),
    (b'{"spec":{"command":1}}', 422, "invalid"),
    (b'{"spec":[]}', 422, "invalid"),
    (b'{"name":"other"}', 422, "invalid"),
    (b'{"name":1}', 422, "invalid"),
    (b'{"kind":"service"}', 422, "invalid"),
    (b'{"kind":["x"]}', 422, "invalid"),
    (b'{"namespace":"other"}', 422, "invalid"),
    (b'{"classification":"NoSuch"}', 422, "invalid"),
    (b'{"nonsense":1}', 422, "invalid"),
    (b'{"labels":{"a":1}}', 422, "invalid"),
    (b'{"spec":{"n":9007199254740993}}', 400, "malformed"),
]


async def test_bad_bodies_are_named_and_never_a_500(stack):
    found = []
    for body, _, _ in BAD_BODIES:
        answer = await stack.call("PUT", "/v1/default/aliases/x", body=body)
        found.append((body, answer.status, loads(answer)["code"]))
    assert found == BAD_BODIES
    assert (await stack.call("GET", "/v1/default/aliases/x")).status == 404


async def test_a_body_beyond_the_limit_is_refused(stack):
    body = orjson.dumps({"spec": {"command": ["x" * 1000] * 1100}})
    assert len(body) > 1 << 20
    answer = await stack.call("PUT", "/v1/default/aliases/x", body=body)
    assert (answer.status, loads(answer)["data"]["limit"]) == (413, 1 << 20)


async def test_other_content_types_are_refused(stack):
    answer = await stack.call("PUT", "/v1/default/aliases/x", body=b"{}", headers={"content-type": "text/plain"})
    assert answer.status == 400
    answer = await stack.call("PUT", "/v1/default/aliases/x", body=b"{}", headers={"content-encoding": "gzip"})
    assert answer.status == 400


async def test_pages_are_walked_without_loss_or_repeat(stack):
    names = [f"a{number:03}" for number in range(25)]
    await stack.call(
        "POST",
        "/v1/batch",
        json={
            "operations": [{"op": "put", "kind": "alias", "name": name, "spec": {"command": "true"}} for name in names]
        },
    )
    seen: list[str] = []
    page = None
    while True:
        answer = await stack.call("GET", "/v1/default/aliases", query={"limit": 10, "page": page})
        found = loads(answer)
        seen += [each["name"] for each in found["items"]]
        page = found["next"]
        assert answer.header("registry-next") == (page or "")
        assert answer.header("registry-revision") == "1"
        if page is None:
            break
    assert seen == names


async def test_filters(stack):
    await put(stack, "one", spec={"command": "a,b", "shell": "zsh"}, labels={"tier": "x"})
    await put(stack, "two", spec={"command": "c", "shell": "sh"}, labels={"tier": "y", "old": "1"})

    async def names(**query: Any) -> list[str]:
        answer = await stack.call("GET", "/v1/default/aliases", query=query)
        return [each["name"] for each in loads(answer)["items"]]

    assert await names(name="o*") == ["one"]
    assert await names(name=["one", "two"]) == ["one", "two"]
    assert await names(label="tier=y") == ["two"]
    assert await names(label="old") == ["two"]
    assert await names(label="!old") == ["one"]
    assert await names(field="shell=sh") == ["two"]
    assert await names(field="command=a,b") == ["one"]
    assert await names(select="labels.tier=x,spec.shell=zsh") == ["one"]
    across = await stack.call("GET", "/v1/-/records", query={"kind": "aliases", "namespace": "default"})
    assert len(loads(across)["items"]) == 2


async def test_tsv_needs_no_json_parser_for_the_rows(stack):
    await put(stack, "tab", spec={"command": "a\tb\nc"})
    answer = await stack.call("GET", "/v1/default/aliases", headers={"accept": "text/tab-separated-values"})
    (line,) = answer.body.splitlines()
    name, classification, generation, revision, updated_at, spec = line.decode().split("\t")
    assert (name, generation, revision, orjson.loads(spec)) == ("tab", "1", "1", {"command": "a\tb\nc"})
    assert classification
    assert updated_at.endswith("Z")
    empty = await stack.call("GET", "/v1/default/services", headers={"accept": "text/tab-separated-values"})
    assert (empty.status, empty.body) == (200, b"")


async def test_a_batch_is_one_revision_or_nothing(stack):
    operations = [
        {"op": "put", "kind": "alias", "name": "a", "spec": {"command": "1"}},
        {"op": "merge", "kind": "service", "name": "s", "spec": {"port": 80}},
    ]
    done = loads(await stack.call("POST", "/v1/batch", json={"operations": operations, "message": "two"}))
    assert done["revision"] == 1
    assert [each["effect"] for each in done["results"]] == ["created", "created"]
    bad = [*operations, {"op": "put", "kind": "service", "name": "t", "spec": {"port": "eighty"}}]
    bad[0]["spec"] = {"command": "2"}
    answer = await stack.call("POST", "/v1/batch", json={"operations": bad})
    assert (answer.status, loads(answer)["data"]["index"]) == (422, 2)
    assert loads(await stack.call("GET", "/v1/default/aliases/a"))["spec"]["command"] == "1"
    for body in ({"operations": {}}, {"operations": [1]}, {"operations": [], "extra": 1}, {}):
        assert (await stack.call("POST", "/v1/batch", json=body)).status == 422


YAML = b"""
kind: service
name: pay
spec: {port: 8443}
---
kind: alias
name: gs
spec: {command: git status}
"""


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/yaml", YAML),
        ("text/yaml; charset=utf-8", YAML),
        (
            "application/x-ndjson",
            (
                b'{"kind":"service","name":"pay","spec":{"port":8443}}\n\n'
                b'{"kind":"alias","name":"gs","spec":{"command":"git status"}}\n'
            ),
        ),
        (
            "application/json",
            (
                b'[{"kind":"service","name":"pay","spec":{"port":8443}},'
                b'{"kind":"alias","name":"gs","spec":{"command":"git status"}}]'
            ),
        ),
    ],
)
async def test_apply_reads_every_form(stack, content_type, body):
    first = await stack.call("POST", "/v1/-/apply", body=body, headers={"content-type": content_type})
    assert [each["effect"] for each in loads(first)["results"]] == ["created", "created"]
    again = await stack.call("POST", "/v1/-/apply", body=body, headers={"content-type": content_type})
    assert [each["effect"] for each in loads(again)["results"]] == ["unchanged", "unchanged"]
    assert loads(again)["revision"] == loads(first)["revision"] == 1


async def test_apply_refuses_what_is_no_record(stack):
    for body in (b"[1]", b'[{"op":"delete","kind":"alias","name":"a"}]', b"1", b'{"kind":"alias"}'):
        assert (await stack.call("POST", "/v1/-/apply", body=body)).status == 422
    answer = await stack.call(
        "POST", "/v1/-/apply", body=b"a: &x [1]\nb: *x", headers={"content-type": "application/yaml"}
    )
    assert answer.status == 400
    assert (await stack.call("POST", "/v1/-/apply?mode=replace", body=b"[]")).status == 400


async def test_apply_reads_a_body_that_goes_to_a_thread(stack):
    documents = [{"kind": "alias", "name": f"n{number}", "spec": {"command": "x" * 500}} for number in range(1000)]
    body = orjson.dumps(documents)
    assert len(body) > 256 << 10
    done = loads(await stack.call("POST", "/v1/-/apply", body=body))
    assert (len(done["results"]), done["revision"]) == (1000, 1)


async def test_export_then_apply_then_export_is_byte_identical(stack):
    await put(stack, "gs", spec={"command": "git status"}, labels={"a": "1"}, title="Status")
    await stack.call(
        "PUT", "/v1/default/env_vars/TOKEN", json={"spec": {"secret_value": "canary-5f1c"}, "lifecycle": "draft"}
    )
    first = await stack.call("GET", "/v1/-/export")
    assert b"canary" not in first.body
    assert b"$sealed" in first.body
    done = await stack.call("POST", "/v1/-/apply", body=first.body, headers={"content-type": "application/x-ndjson"})
    assert [each["effect"] for each in loads(done)["results"]] == ["unchanged", "unchanged"]
    assert (await stack.call("GET", "/v1/-/export")).body == first.body
    assert len((await stack.call("GET", "/v1/-/export?kind=alias")).body.splitlines()) == 1


async def test_export_goes_on_over_pages(stack):
    documents = [{"kind": "alias", "name": f"n{number:04}", "spec": {"command": "x"}} for number in range(2001)]
    await stack.call("POST", "/v1/-/apply", json=documents)
    lines = (await stack.call("GET", "/v1/-/export")).body.splitlines()
    assert [orjson.loads(line)["name"] for line in lines] == [each["name"] for each in documents]


async def test_secrets_leave_by_no_read(stack):
    path = "/v1/default/env_vars/TOKEN"
    made = await stack.call("PUT", path, json={"spec": {"secret_value": "canary-5f1c"}})
    answers = [made] + [
        await stack.call("GET", each)
        for each in (path, "/v1/default/env_vars", "/v1/-/records", "/v1/-/find?name=TOKEN", "/v1/changes")
    ]
    answers.append(await stack.call("GET", "/v1/default/env_vars", headers={"accept": "text/tab-separated-values"}))
    for answer in answers:
        assert answer.status < 300
        assert b"canary" not in answer.body
        assert b"$sealed" not in answer.body
        assert b'{"$secret":"kept"}' in answer.body
    kept = await stack.call("PUT", path, json=loads(await stack.call("GET", path)))
    assert loads(kept)["effect"] == "unchanged"


async def test_strict_refuses_what_is_not_declared(stack):
    content = {"classification": "AppService", "spec": {"type": "service", "version": "1.0"}}
    loose = await stack.call("PUT", "/v1/default/services/myapp", json=content)
    assert (loose.status, len(loads(loose)["warnings"])) == (201, 1)
    assert (await stack.call("PUT", "/v1/default/services/other?strict=true", json=content)).status == 422
    assert (await stack.call("PUT", "/v1/default/services/other?strict=maybe", json=content)).status == 400


async def test_the_catalogue_is_served(stack):
    await put(stack, "a", spec={"command": "x"})
    found = loads(await stack.call("GET", "/v1/-/kinds"))["items"]
    assert len(found) == 42
    assert {each["name"]: each["records"] for each in found}["alias"] == 1
    for each in found:
        one = await stack.call("GET", f"/v1/-/kinds/{each['name']}")
        assert loads(one)["schema"]["title"] == each["name"]
    assert len(loads(await stack.call("GET", "/v1/-/classes"))["items"]) >= 60


# --- changes --------------------------------------------------------------------------------------------------------


def split(answer: Any) -> tuple[list[dict[str, Any]], str]:
    *lines, last = [orjson.loads(line) for line in answer.body.splitlines()]
    assert last.keys() == {"cursor"}
    return lines, last["cursor"]


async def test_changes_resume_where_they_ended(stack):
    await put(stack, "a", spec={"command": "1"})
    await put(stack, "b", spec={"command": "1"})
    await stack.call("DELETE", "/v1/default/aliases/a", query={"message": "gone"})
    lines, cursor = split(await stack.call("GET", "/v1/changes"))
    assert [(line["op"], line["name"], line["revision"]) for line in lines] == [
        ("put", "a", 1), ("put", "b", 2), ("delete", "a", 3),
    ]  # fmt: skip
    assert lines[2]["message"] == "gone"
    assert lines[0]["record"]["spec"] == {"command": "1"}
    first, between = split(await stack.call("GET", "/v1/changes?limit=1"))
    rest, end = split(await stack.call("GET", "/v1/changes", query={"after": between}))
    assert (first + rest, end) == (lines, cursor)
    assert split(await stack.call("GET", "/v1/changes", query={"from": cursor})) == ([], cursor)
    assert split(await stack.call("GET", "/v1/changes?from=now")) == ([], cursor)


async def test_a_revision_is_never_split_by_the_limit(stack):
    operations = [{"kind": "alias", "name": f"n{number}", "spec": {"command": "x"}} for number in range(5)]
    await stack.call("POST", "/v1/batch", json={"operations": operations})
    lines, _ = split(await stack.call("GET", "/v1/changes?limit=2"))
    assert [line["seq"] for line in lines] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("after=garbage", 400),
        ("after=000000000000.0.00000000", 409),
        ("from=list", 400),
        ("from=now&after=now", 400),
        ("wait=61", 400),
        ("wait=-1", 400),
    ],
)
async def test_bad_cursors_and_waits(stack, query, status):
    answer = await stack.call("GET", f"/v1/changes?{query}")
    assert answer.status == status
    if status == 409:
        assert loads(answer)["data"]["cursor"]


async def test_a_long_poll_ends_with_the_next_commit(stack):
    _, cursor = split(await stack.call("GET", "/v1/changes?from=now"))
    begun = stack.polls(20)
    async with asyncio.TaskGroup() as group:
        polls = [
            group.create_task(stack.call("GET", "/v1/changes", query={"after": cursor, "wait": 60})) for _ in range(20)
        ]
        await begun.wait()
        await put(stack, "a", spec={"command": "1"})
    assert all([line["name"] for line in split(poll.result())[0]] == ["a"] for poll in polls)


async def test_a_long_poll_ends_at_once_when_the_server_stops(stack):
    begun = stack.polls()
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        poll = group.create_task(stack.call("GET", "/v1/changes?wait=60"))
        await begun.wait()
        stack.api.close()
    assert split(poll.result())[0] == []
    assert split(await stack.call("GET", "/v1/changes?wait=60"))[0] == []


async def test_a_long_poll_ends_when_its_time_is_over(stack):
    begun = asyncio.get_running_loop().time()
    assert split(await stack.call("GET", "/v1/changes?wait=1"))[0] == []
    assert 0.9 < asyncio.get_running_loop().time() - begun < 10


async def test_events_show_their_payload(stack):
    from universal_registry.kernel.ids import Key
    from universal_registry.registry.service import Actor

    await stack.service.emit(
        Key("alias", "default", "a"), {"x": 1}, audience=["system/t"], session="s", actor=Actor("uid:0", True)
    )
    (line,), _ = split(await stack.call("GET", "/v1/changes"))
    assert (line["op"], line["payload"], line["audience"], line["session"]) == ("event", {"x": 1}, ["system/t"], "s")


async def test_quote_and_the_router_are_inverse(stack):
    from universal_registry.api.routes import match

    for name in HOSTILE_NAMES:
        assert match("GET", f"/v1/default/aliases/{quote(name)}").params["name"] == name


async def test_an_unknown_query_parameter_is_refused_with_the_nearest(stack):
    answer = await stack.call("GET", "/v1/default/aliases", query={"lable": "a=b"})
    assert (answer.status, loads(answer)["code"]) == (400, "usage")
    assert (loads(answer)["detail"], loads(answer)["hint"]) == (
        "unknown query parameter 'lable'",
        "did you mean 'label'?",
    )
    answer = await stack.call("GET", "/v1/-/kinds", query={"x": "y"})
    assert (answer.status, loads(answer)["hint"]) == (400, "it takes: none")
    assert (await stack.call("GET", "/health/live", query={"x": "y"})).status == 200, "probes may add what they like"


async def test_an_empty_name_is_invalid(stack):
    answer = await stack.call("PUT", "/v1/default/aliases/-?name=", json={"spec": {"command": "x"}})
    assert (answer.status, loads(answer)["detail"]) == (422, "the name is empty")
    assert (await stack.call("PUT", "/v1/default/aliases/-", json={"spec": {"command": "x"}})).status == 400


@pytest.mark.parametrize(
    ("health", "said"),
    [
        ("well", "'well'"),
        ({"status": "well", "details": "x"}, "'well'"),
        ({"status": ["passing"]}, "['passing']"),
        ({}, "{}"),
        (1, "1"),
    ],
)
async def test_a_health_that_is_none_is_named(stack, health, said):
    answer = await stack.call("PUT", "/v1/default/aliases/a", json={"spec": {"command": "x"}, "health": health})
    assert (answer.status, loads(answer)["detail"]) == (422, f"health {said} is no known status")
