"""Answers for those who read no JSON: cells between tabs or NULs, and errors as four of them."""

from __future__ import annotations

TSV = {"accept": "text/tab-separated-values"}
NUL = {"accept": "text/nul-separated-values"}
GS = "/v1/default/aliases/gs"


async def put(stack, command: str = "a\tb\n\x7f\u202e") -> None:
    await stack.call("PUT", GS, json={"spec": {"command": command}, "labels": {"a.b": "x"}})


async def test_columns_are_chosen_by_paths(stack):
    await put(stack)
    query = {"column": ["name", "spec.command", "labels.a.b", "spec.nothing", "meta.revision"]}
    exact = await stack.call("GET", "/v1/default/aliases", query=query, headers=NUL)
    assert exact.body.decode().split("\0") == ["gs", "a\tb\n\x7f\u202e", "x", "", "1", ""]
    line = await stack.call("GET", "/v1/default/aliases", query=query, headers=TSV)
    assert line.body.decode() == "gs\ta\\tb\\n\\x7f\\u202e\tx\t\t1\n"
    assert (line.header("content-type"), line.header("registry-revision")) == (
        "text/tab-separated-values; charset=utf-8",
        "1",
    )


async def test_one_answer_is_pairs(stack):
    await put(stack, "x")
    cells = (await stack.call("GET", GS, headers=NUL)).body.decode().split("\0")
    pairs = dict(zip(cells[::2], cells[1::2], strict=False))
    assert (pairs["spec.command"], pairs["labels.a.b"], pairs["meta.generation"]) == ("x", "x", "1")
    row = (await stack.call("GET", GS, headers=TSV)).body.decode().split("\t")
    assert (row[0], row[-1]) == ("gs", '{"command":"x"}\n')


async def test_items_of_a_list_stand_in_lines(stack):
    answer = await stack.call(
        "PUT", GS, json={"spec": {"command": "x", "odd": 1}}, query={"column": ["effect", "warnings[]"]}, headers=NUL
    )
    effect, warnings, _ = answer.body.decode().split("\0")
    assert effect == "created"
    assert warnings.startswith("spec.odd is not a field")


async def test_errors_are_four_cells_unless_problems_are_accepted_too(stack):
    answer = await stack.call("GET", GS, headers=TSV)
    code, name, detail, _ = answer.body.decode().split("\t")
    assert (answer.status, code, name) == (404, "3", "not-found")
    assert "gs" in detail
    both = await stack.call("GET", GS, headers={"accept": f"{TSV['accept']}, application/problem+json"})
    assert both.header("content-type") == "application/problem+json"


async def test_the_parameter_is_for_shells_only(stack):
    assert (await stack.call("GET", "/v1/default/aliases", query={"column": "name"})).status == 400


async def test_the_kind_may_be_that_of_the_classification(stack):
    body = b"class=AppService&spec:={}"
    form = {"content-type": "application/x-www-form-urlencoded"}
    made = await stack.call("PUT", "/v1/default/-/pay", query={"class": "AppService"}, body=body, headers=form)
    assert made.status == 201
    assert (await stack.call("GET", "/v1/default/services/pay")).status == 200
    assert (await stack.call("PUT", "/v1/default/-/pay", body=body, headers=form)).status == 400


async def test_a_propagation_says_how_its_session_stands_and_lists_name_targets_as_commands_do(stack):
    await put(stack, "x")
    asked = {"source": "alias/gs", "target": "later"}
    columns = ["session", "state", "mode"]
    answer = await stack.call(
        "POST", "/v1/-/propagate", json=asked, query={"state": "true", "column": columns}, headers=TSV
    )
    session, state, mode = answer.body.decode().rstrip("\n").split("\t")
    row = (await stack.call("GET", "/v1/-/sessions", headers=TSV)).body.decode().rstrip("\n").split("\t")
    assert row == [session, state, mode, "alias/gs", f'["later:{row[4].split(":")[1]}', "true"]
    target = (await stack.call("GET", "/v1/-/targets", headers=TSV)).body.decode().split("\t")
    assert target[0] == "later"
    assert b'"state"' not in (await stack.call("POST", "/v1/-/propagate", json=asked)).body
