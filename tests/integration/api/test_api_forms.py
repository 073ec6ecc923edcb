"""Form fields in place of JSON: the same records and bodies, whatever the values hold."""

from __future__ import annotations

from urllib.parse import urlencode

import orjson
import pytest

from universal_registry.api.forms import FORM_TYPE, form_pairs
from universal_registry.client.http import record_path
from universal_registry.kernel.errors import Malformed, TooLarge

FORM = {"content-type": FORM_TYPE}
HOSTILE = [
    'it\'s "so"',
    "a\nb\n",
    "$(touch pwned)",
    "-rf",
    "\U0001f98a",
    "\u202eabc",
    "a&b=c%20+d",
    "",
    "null",
    "{}",
    "\t\r\x1b",
]


async def send(stack, method, path, *fields, encoded=None, **query):
    body = urlencode(fields).encode() if encoded is None else encoded
    answer = await stack.call(method, path, body=body, headers=FORM, query=query)
    return answer.status, orjson.loads(answer.body)


@pytest.mark.parametrize("value", HOSTILE)
async def test_a_text_arrives_as_it_is(stack, value):
    path = record_path("default", "aliases", "gs")
    status, told = await send(
        stack, "PUT", path, ("command", value), ("labels.k", value[:1] and "v"), ("class", "ZshAlias")
    )
    assert status == 201, told
    assert told["record"]["spec"] == {"command": value}
    raw = value.replace("%", "%25").replace("&", "%26").replace("+", "%2B").encode()
    status, told = await send(
        stack, "PUT", path, encoded=b"class=ZshAlias&labels.k=" + (b"v" if value else b"") + b"&command=" + raw
    )
    assert (status, told["effect"]) == (200, "unchanged"), "what need not be encoded may stand as it is"


async def test_the_kind_says_the_type(stack):
    path = record_path("default", "services", "pay")
    fields = [
        ("port", "8443"),
        ("version", "1.0"),
        ("depends_on", "a,b"),
        ("spec.replicas:", "2"),
        ("labels.tier", "x"),
    ]
    status, told = await send(stack, "PATCH", path, *fields)
    assert status == 201
    assert told["record"]["spec"] == {"port": 8443, "version": "1.0", "depends_on": ["a", "b"], "replicas": 2}
    status, told = await send(stack, "PATCH", path, ("host:", "null"), ("spec:", '{"port": 1}'))
    assert (status, told["record"]["spec"]["port"], told["record"]["spec"]["version"]) == (200, 1, "1.0")
    for bad, wanted in ((("port", "x"), 422), (("port:", "{"), 400), (("", "x"), 400)):
        status, told = await send(stack, "PATCH", path, bad)
        assert (status, told["status"]) == (wanted, wanted), told
    status, told = await send(stack, "PATCH", path, ("port", "1"), ("port", "2"))
    assert (status, told["detail"]) == (400, "port is given twice")


async def test_bodies_of_models(stack):
    fields = [("name", "mine"), ("url", "http://127.0.0.1:9"), ("network", "loopback"), ("select", "kind=alias")]
    status, told = await send(stack, "POST", "/v1/-/targets", *fields)
    assert status == 200, told
    await send(stack, "PUT", record_path("default", "aliases", "gs"), ("command", "git status"))
    for data, kept in (
        ("a text", "a text"),
        ('{"n": 1}', {"n": 1}),
        ('"1"', "1"),
        ("{no json", "{no json"),
        ("1e999", "1e999"),
    ):
        status, told = await send(
            stack, "POST", "/v1/-/propagate", ("source", "gs"), ("targets", "mine"), ("data", data), ("strict", "true"),
            ("deadline", "60.5"),
        )  # fmt: skip
        assert (status, told["standing"]) == (200, False), told
        log = await stack.call("GET", "/v1/changes", query={"limit": 5000})
        events = [orjson.loads(line) for line in log.body.splitlines() if b'"op":"event"' in line]
        assert events[-1]["payload"] == kept
    status, told = await send(stack, "POST", "/v1/-/propagate", ("source", "gs"), ("targets", "mine"), ("data", " \n"))
    assert (status, told["standing"]) == (200, True), "blank data is no data"


async def test_what_is_wrong_is_said_of_the_field(stack):
    for fields, said in (
        ([("sourcee", "gs")], "unknown field"),
        ([("source", "gs"), ("source", "x")], "field source is given twice"),
        ([("once", "perhaps")], "once"),
        ([("data:", "{")], "data"),
    ):
        status, told = await send(stack, "POST", "/v1/-/propagate", *fields)
        assert status in (400, 422)
        assert said in told["detail"]
        assert "\n" not in told["detail"]


@pytest.mark.parametrize("body", [b"x", b"&", b"=1", b"a=%", b"a=%zz", b"a=%ff", b"a=\xff"])
def test_what_is_no_form_is_said(body):
    with pytest.raises(Malformed):
        form_pairs(body)


async def test_limits_hold_for_fields(stack):
    path = record_path("default", "aliases", "gs")
    status, told = await send(stack, "PUT", path, ("command", "x" * (300 << 10)))
    assert (status, told["code"]) == (413, TooLarge.code)
    status, told = await send(stack, "PUT", path, ("command", "a\0b"))
    assert (status, told["code"]) == (400, Malformed.code)
