"""Targets: making and changing them, their keys, and what is sent to try them. All rules are in `control`."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from universal_registry.api.context import Call, Context, body_as
from universal_registry.api.http import Response, json_response
from universal_registry.kernel.ids import SYSTEM_NAMESPACE
from universal_registry.propagation.verbs.target_keys import KeyField, parse_overlap
from universal_registry.propagation.verbs.targets import TargetOptions

DAY = "24h"


class TargetSettings(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """How a target is delivered to; what is left out stays as it is."""

    network: Literal["public", "private", "loopback"] | None = None
    secret: str | None = None
    insecure_http: bool | None = None
    signing: Literal["hmac", "ed25519", "both"] | None = None
    seal: Literal["auto", "always", "never"] | None = None
    format: Literal["cloudevents", "raw", "slack", "discord", "template"] | None = None
    template: str | None = None
    content_type: str | None = None
    in_flight: int | None = None
    timeout: float | None = None
    order: Literal["none", "per-key", "strict"] | None = None
    delivery: Literal["every", "latest"] | None = None
    rejected: Literal["dead", "retry"] | None = None
    rate: float | None = None
    weight: int | None = None


class TargetBody(TargetSettings, forbid_unknown_fields=True, kw_only=True):
    """A target to add. `select`: also make a route of the same name with this selector."""

    name: str
    url: str
    namespace: str = SYSTEM_NAMESPACE
    select: str | None = None


class RotateBody(msgspec.Struct, forbid_unknown_fields=True):
    """`overlap`: how long the one before counts, as `24h`, `90m` or `0s`."""

    overlap: str = DAY


async def add_target(context: Context, call: Call) -> Response:
    """Add a target, or find it there. A secret or key that was made for it is in this answer."""
    body = await body_as(TargetBody, call)
    added = await context.control.add_target(
        body.name,
        body.url,
        options=_options(body),
        namespace=body.namespace,
        select=body.select,
        actor=call.who,
        once_key=call.once_as(json_response),
    )
    return json_response(added)


async def set_target(context: Context, call: Call) -> Response:
    """Change how a target is delivered to."""
    options = _options(await body_as(TargetSettings, call))
    once = call.once_as(json_response)
    return json_response(await context.control.set_target(*_place(call), options, actor=call.who, once_key=once))


async def test_target(context: Context, call: Call) -> Response:
    """Send one test event now, which is recorded nowhere; with `show` only say what would be sent."""
    return json_response(await context.control.test_target(*_place(call), show=call.request.flag("show")))


async def validate_target(context: Context, call: Call) -> Response:
    """Send a signed challenge. A receiver that answers with it is marked as validated."""
    return json_response(await context.control.validate_target(*_place(call), actor=call.who))


async def secret(context: Context, call: Call) -> Response:
    """The signing secret, in clear."""
    return await _key(context, call, KeyField.SECRET)


async def seal_key(context: Context, call: Call) -> Response:
    """The sealing key, in clear."""
    return await _key(context, call, KeyField.SEAL_KEY)


async def rotate_secret(context: Context, call: Call) -> Response:
    """Replace the signing secret; both sign until the overlap ends."""
    return await _rotate(context, call, KeyField.SECRET)


async def rotate_seal_key(context: Context, call: Call) -> Response:
    """Replace the sealing key; the one before seals until the overlap ends."""
    return await _rotate(context, call, KeyField.SEAL_KEY)


async def webhook_keys(context: Context, _: Call) -> Response:
    """The public keys of this registry as a JWKS."""
    return json_response(context.control.public_keys())


async def _key(context: Context, call: Call, field: KeyField) -> Response:
    return json_response(await context.control.target_key(*_place(call), field, actor=call.who))


async def _rotate(context: Context, call: Call, field: KeyField) -> Response:
    overlap = parse_overlap((await body_as(RotateBody, call)).overlap)
    once = call.once_as(json_response)
    rotated = await context.control.rotate_target_key(*_place(call), field, overlap, actor=call.who, once_key=once)
    return json_response(rotated)


def _place(call: Call) -> tuple[str, str]:
    return call.params["namespace"], call.params["name"]


def _options(body: TargetSettings) -> TargetOptions:
    given: dict[str, Any] = {name: getattr(body, name) for name in TargetSettings.__struct_fields__}
    return TargetOptions(**given)
