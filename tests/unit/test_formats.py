"""The formats of bodies: each with its version, templates within their bounds."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.messages.formats import Format, Shape, check_shape, write_event
from universal_registry.propagation.messages.templates import MOST_TEXT, check_template, expand

WORLD = SystemWorld()


class Hasty(SystemWorld):
    """Each look at the clock finds that a tenth of a second has gone."""

    def __init__(self) -> None:
        self._at = 0.0

    def monotonic(self) -> float:
        self._at += 0.1
        return self._at


def event(verb: str = "updated", **data: Any) -> dict[str, Any]:
    record = {"kind": "alias", "name": "gs", "spec": {"command": "git status", "items": [1, {"a": None}]}}
    made = {"record": record, "changed": ["spec.command"], "revision": 7, "generation": 2, "actor": "uid:0"}
    return {
        "specversion": "1.0",
        "id": "0123456789ab.7.0",
        "source": "/registries/0123456789ab",
        "type": f"registry.alias.{verb}.v1",
        "subject": "alias/default/gs",
        "time": "2026-03-01T12:00:00.000Z",
        "sequence": "0000000000000007.000000",
        "datacontenttype": "application/json",
        "data": {**made, "message": "shorter", **data},
    }


def payload(value: Any) -> dict[str, Any]:
    return {**event("event"), "data": value}


def written(of: dict[str, Any], format_: Format, **shape: Any) -> Any:
    return orjson.loads(write_event(Shape(format_, **shape), of, WORLD).content)


def templated(source: str, of: dict[str, Any] | None = None) -> str:
    shape = Shape(Format.TEMPLATE, 1, source, "text/plain")
    return write_event(shape, of or event(), WORLD).content.decode()


def test_each_format_says_what_it_is() -> None:
    kinds = {each: write_event(Shape(each, 1, "1"), event(), WORLD).content_type for each in Format}
    assert kinds.pop(Format.CLOUDEVENTS) == "application/cloudevents+json; charset=utf-8"
    assert set(kinds.values()) == {"application/json; charset=utf-8"}
    assert write_event(Shape(Format.TEMPLATE, 1, "x", "text/plain"), event(), WORLD).content_type == "text/plain"


def test_raw_is_the_data_and_of_a_record_what_happened() -> None:
    found = written(event("deleted"), Format.RAW)
    assert (found["verb"], found["record"]["name"], found["revision"]) == ("deleted", "gs", 7)
    for value in ({"a": 1}, [1], "text", 5, None):
        assert written(payload(value), Format.RAW) == value


def test_chats_get_a_sentence_without_values() -> None:
    said = "alias/default/gs was updated by uid:0 (spec.command): shorter"
    assert written(event(), Format.SLACK) == {"text": said}
    assert written(event(), Format.DISCORD) == {"content": said, "allowed_mentions": {"parse": []}}
    assert written(payload("a <b> & c"), Format.SLACK)["text"] == "alias/default/gs: a &lt;b&gt; &amp; c"
    assert len(written(event(message="x" * 9000), Format.DISCORD)["content"]) == 2000
    assert len(written(event(message="x" * 9000), Format.SLACK)["text"]) == 3000


def test_a_template_reads_data() -> None:
    assert templated("{{ verb }} {{ kind }}/{{ namespace }}/{{ name }}") == "updated alias/default/gs"
    assert templated("{{ record.spec.items[0] }}{{ record.spec['items'][1].a }}") == "1null"
    assert templated("{{ record.spec }}") == '{"command":"git status","items":[1,{"a":null}]}'
    assert templated(
        "{% for each in record.spec.items %}{{ loop.index }}{% if not loop.last %},{% endif %}{% endfor %}"
    )
    assert templated("{{ nothing|default('x') }} {{ data.no.such|default('y') }}") == "x y"
    assert templated("{{ data }}", payload({"a": True})) == '{"a":true}'
    assert templated("{{ name|upper|tojson }}") == '"GS"'


@pytest.mark.parametrize(
    "source",
    [
        "{{ name.upper() }}", "{{ range(9) }}", "{{ name * 9 }}", "{{ 9 ** 9 }}", "{{ name ~ name }}", "{{ 1 + 1 }}",
        "{{ '%s' % name }}", "{% set a = 1 %}", "{% macro m() %}{% endmacro %}", "{% include 'x' %}",
        "{% import 'x' as x %}", "{% extends 'x' %}", "{% block b %}{% endblock %}", "{{ self }}", "{{ _context }}",
        "{{ name|map('upper') }}", "{{ name|attr('x') }}", "{{ name|format(1) }}", "{{ name|replace('a', 'b') }}",
        "{{ name|truncate(999999999) }}", "{{ name|join(name) }}", "{{ name|tojson|tojson }}", "{{ name is foo }}",
        "{{ name|upper|upper|upper|upper|upper }}", "{% for a in data recursive %}{{ loop(a) }}{% endfor %}",
        "{{ {'a': 1} }}", "{{ name[1:2] }}", "{{ foo(", "{% if %}", "{{ x", "", "x" * 20_000, "{{" + "(" * 5000,
        "{% call x() %}{% endcall %}", "{% filter upper %}{% endfilter %}", "{{ \ud800 }}",
    ],
)  # fmt: skip
def test_what_is_not_in_the_language_is_refused_before_it_is_stored(source: str) -> None:
    with pytest.raises(Invalid):
        check_template(source)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("{{ nothing }}", "undefined"),
        ("{{ name.__class__ }}", "__class__"),
        ("{{ record.items }}", "items"),
        ("{{ record.spec.items.append }}", "append"),
        ("{{ loop }}", "undefined"),
        ("{% for a in name %}{% endfor %}", "not over an array"),
        ("{{ data|round }}", "does not fit"),
    ],
)
def test_what_does_not_fit_an_event_says_why(source: str, says: str) -> None:
    with pytest.raises(Invalid, match=says):
        templated(source)


def test_a_template_of_json_has_to_make_json() -> None:
    assert written(event(), Format.TEMPLATE, template='{"t": {{ text|tojson }}}')["t"].startswith("alias/default/gs")
    with pytest.raises(Invalid, match="makes no JSON"):
        written(event(), Format.TEMPLATE, template='{"t": {{ text }}}')


def test_a_template_is_bounded_in_turns_text_and_time() -> None:
    many = {"n": list(range(200)), "long": "x" * 2000}
    three = "{% for a in n %}{% for b in n %}{% for c in n %}{% endfor %}{% endfor %}{% endfor %}"
    with pytest.raises(Invalid, match="turns"):
        expand(three, many, WORLD)
    with pytest.raises(Invalid, match=f"more than {MOST_TEXT >> 10} KiB"):
        expand("{% for a in n %}{{ long }}{% endfor %}", many, WORLD)
    with pytest.raises(Invalid, match="longer than"):
        expand("{% for a in n %}{% endfor %}", many, Hasty())


@pytest.mark.parametrize(
    "shape",
    [
        Shape(Format.SLACK, 2),
        Shape(Format.SLACK, 0),
        Shape(Format.SLACK, 1, "{{ text }}"),
        Shape(Format.RAW, 1, "", "text/plain"),
        Shape(Format.TEMPLATE),
    ],
)
def test_a_shape_that_cannot_be_written_is_refused(shape: Shape) -> None:
    with pytest.raises(Invalid):
        check_shape(shape)
