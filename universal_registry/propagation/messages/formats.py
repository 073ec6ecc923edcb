"""What a target gets to read: the CloudEvent as it is, its data alone, a line for a chat, or what a template makes.

Pure. Each format has a version, which a target pins: a format that changes gets a new version beside the old one.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

from universal_registry.kernel.errors import Invalid, Malformed, TooLarge
from universal_registry.kernel.jsonvalue import canonical
from universal_registry.kernel.loader import load_json
from universal_registry.kernel.world import World

CLOUDEVENTS_TYPE = "application/cloudevents+json; charset=utf-8"
JSON_TYPE = "application/json; charset=utf-8"
_ATTRIBUTES = ("specversion", "id", "source", "type", "subject", "time", "sequence")
_MOST_SLACK, _MOST_DISCORD, _MOST_PAYLOAD = 3000, 2000, 1000


class Format(StrEnum):
    """The formats. All but the first lose the envelope: what is in it stands in the headers or nowhere."""

    CLOUDEVENTS = "cloudevents"
    RAW = "raw"
    SLACK = "slack"
    DISCORD = "discord"
    TEMPLATE = "template"


VERSIONS: dict[Format, int] = dict.fromkeys(Format, 1)
"""The newest version of each format."""


class Body(NamedTuple):
    """The bytes of a request and what they are. `attributes`: of the event, but for its data."""

    content: bytes
    content_type: str
    attributes: tuple[tuple[str, str], ...] = ()


class Shape(NamedTuple):
    """All that decides how an event is written for a target: equal shapes give equal bodies. `binary`: the attributes
    of a CloudEvent travel beside its data."""

    format: Format = Format.CLOUDEVENTS
    version: int = 1
    template: str = ""
    content_type: str = ""
    binary: bool = False


def check_shape(shape: Shape) -> None:
    """Raises Invalid for what cannot be written, a template that cannot be used among it."""
    newest = VERSIONS[shape.format]
    if not 1 <= shape.version <= newest:
        raise Invalid(f"format_version of {shape.format} is {shape.version}", hint=f"built: up to {newest}")
    if shape.format is Format.TEMPLATE:
        from universal_registry.propagation.messages.templates import check_template

        check_template(shape.template)
    elif shape.template:
        raise Invalid(f"a template is for format template, not {shape.format}", hint="--format template")
    if shape.content_type and shape.format is not Format.TEMPLATE:
        raise Invalid(f"a content type is for format template: {shape.format} has its own")


def write_event(shape: Shape, event: dict[str, Any], world: World) -> Body:
    """The body for an event, which is a CloudEvent as `render` builds it. `world`: a template's time is limited.

    Raises Invalid, with the reason for people, for an event of which a template makes nothing that can be sent.
    """
    if shape.format is Format.TEMPLATE:
        body = _templated(shape, event, world)
    elif shape.binary and shape.format is Format.CLOUDEVENTS:
        body = Body(canonical(event["data"]), JSON_TYPE)
    else:
        body = _WRITERS[shape.format](event)
    if not shape.binary:
        return body
    return body._replace(attributes=tuple((name, event[name]) for name in _ATTRIBUTES if name in event))


def _cloudevent(event: dict[str, Any]) -> Body:
    return Body(canonical(event), CLOUDEVENTS_TYPE)


def _raw(event: dict[str, Any]) -> Body:
    """The data alone. Of a change it says what happened, too, which else only the type does."""
    data = event["data"]
    if _is_state(event):
        data = {"verb": _verb(event), **data}
    return Body(canonical(data), JSON_TYPE)


def _slack(event: dict[str, Any]) -> Body:
    text = sentence(event).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Body(canonical({"text": _cut(text, _MOST_SLACK)}), JSON_TYPE)


def _discord(event: dict[str, Any]) -> Body:
    # Nobody is called by what stands in a record: `@everyone` is text here.
    body = {"content": _cut(sentence(event), _MOST_DISCORD), "allowed_mentions": {"parse": []}}
    return Body(canonical(body), JSON_TYPE)


_WRITERS: dict[Format, Callable[[dict[str, Any]], Body]] = {
    Format.CLOUDEVENTS: _cloudevent,
    Format.RAW: _raw,
    Format.SLACK: _slack,
    Format.DISCORD: _discord,
}


def _templated(shape: Shape, event: dict[str, Any], world: World) -> Body:
    from universal_registry.propagation.messages.templates import expand

    text = expand(shape.template, template_names(event), world)
    content_type = shape.content_type or JSON_TYPE
    content = text.encode()
    if "json" in content_type.partition(";")[0].lower():
        try:
            load_json(content)
        except (Malformed, TooLarge) as error:
            hint = "write values with |tojson, or set another content type"
            raise Invalid(f"the template makes no JSON of it: {error.message}", hint=hint) from None
    return Body(content, content_type)


def template_names(event: dict[str, Any]) -> dict[str, Any]:
    """What a template may speak of: the CloudEvent, its parts by short names, and the sentence that chats get."""
    kind, namespace, name = [*event["subject"].split("/", 2), "", ""][:3]
    state = _is_state(event)
    return {
        "event": event,
        "id": event["id"],
        "type": event["type"],
        "verb": _verb(event),
        "time": event["time"],
        "kind": kind,
        "namespace": namespace,
        "name": name,
        "data": event["data"],
        "record": event["data"]["record"] if state else None,
        "text": sentence(event),
    }


def sentence(event: dict[str, Any]) -> str:
    """What happened, in one line for people. Of a record it names fields and shows no values."""
    subject, data = event["subject"], event["data"]
    if not _is_state(event):
        said = data if isinstance(data, str) else canonical(data).decode()
        return f"{subject}: {_cut(said, _MOST_PAYLOAD)}"
    text = f"{subject} was {_verb(event)} by {data['actor']}"
    if data["changed"] and _verb(event) == "updated":
        text += f" ({', '.join(data['changed'][:10])})"
    return f"{text}: {data['message']}" if data["message"] else text


def _verb(event: dict[str, Any]) -> str:
    return str(event["type"]).split(".")[-2]


def _is_state(event: dict[str, Any]) -> bool:
    return _verb(event) in ("created", "updated", "deleted")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
