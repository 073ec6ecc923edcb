"""The receiver's end of a WebSocket target: each delivery is a frame, and answered by one (docs/how-to/streams.md)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

Take = Callable[[Mapping[str, str], bytes], Awaitable["web.Response"]]
"""Headers and body of a delivery -> the answer that the same would get over HTTP."""
MOST_FRAME = 4 << 20


def is_stream(request: web.BaseRequest) -> bool:
    """Whether the request opens a stream."""
    return request.method == "GET" and request.headers.get("upgrade", "").lower() == "websocket"


async def answer_stream(request: web.BaseRequest, take: Take) -> web.WebSocketResponse:
    """Answer deliveries until the sender ends the stream; one that says anything else is sent away."""
    from aiohttp import WSCloseCode, WSMsgType, web

    socket = web.WebSocketResponse(max_msg_size=MOST_FRAME, compress=False)
    await socket.prepare(request)
    async for message in socket:
        delivery = _delivery(message.data) if message.type is WSMsgType.TEXT else None
        if delivery is None:
            await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"deliveries are expected here")
            break
        answer = await take(delivery["headers"], delivery["body"].encode())
        await socket.send_str(json.dumps(_said(delivery["id"], answer.status, answer.text or "")))
    return socket


def _delivery(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if not isinstance(value, dict) or value.get("type") != "delivery":
        return None
    headers = value.get("headers")
    fits = isinstance(headers, dict) and all(isinstance(each, str) for each in headers.values())
    return value if fits and isinstance(value.get("id"), str) and isinstance(value.get("body"), str) else None


def _said(number: str, status: int, text: str) -> dict[str, Any]:
    if status < 300:
        return {"type": "ack", "id": number, "answer": text}
    return {"type": "nack", "id": number, "status": status, "reason": text.strip()}
