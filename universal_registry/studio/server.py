"""The registry as an MCP server: tools, resources, and a push to who subscribes.

The protocol is of the library `mcp` (the extra `studio`); what is asked of the registry is in `tools.py`. This runs in
a process of its own, never in the daemon: the library needs as much memory as all of the daemon does.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from mcp import types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError

from universal_registry import __version__
from universal_registry.client.http import Caller
from universal_registry.kernel.errors import Invalid, NotFound, RegistryError
from universal_registry.studio.access import Access, token_of
from universal_registry.studio.following import Push
from universal_registry.studio.resources import TEMPLATES, key_of, uri_of
from universal_registry.studio.tools import TOOLS, Arguments, Tool, WaitArguments, record, tool
from universal_registry.studio.waiting import changes_after

INSTRUCTIONS = (
    "A registry of what people run, look at, name and configure. Each change is stored, and propagated to the systems "
    "that need it. apply and propagate only foretell until dry_run is false: show what they foretell first. Secrets "
    'read {"$secret": "kept"}: send that back to leave them as they are. wait_for_changes with the cursor of the '
    "answer before tells everything that happened in between."
)
_PAGE = 100
_JSON = "application/json"
Asked = ServerRequestContext[Any, Any]


def make_server(access: Access, push: Push, *, read_only: bool) -> Server[Any]:
    """The server, whatever carries its messages. `read_only`: without the tools that change something."""
    answers = _Answers(access, tuple(each for each in TOOLS if each.reads or not read_only))
    return Server(
        "universal-registry",
        version=__version__,
        title="Universal Registry",
        instructions=INSTRUCTIONS,
        on_list_tools=answers.list_tools,
        on_call_tool=answers.call_tool,
        on_list_resources=answers.list_resources,
        on_list_resource_templates=answers.list_templates,
        on_read_resource=answers.read_resource,
        on_subscriptions_listen=push.listen,
    )


async def serve_stdio(access: Access, say: Callable[[str], None], *, read_only: bool) -> None:
    """Serve whoever started this process over its standard input and output, until that is closed."""
    push = Push(access, say)
    server = make_server(access, push, read_only=read_only)
    async with push.running(), stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


class _Answers:
    """What the server answers."""

    def __init__(self, access: Access, tools: tuple[Tool, ...]) -> None:
        self._access = access
        self._tools = tools
        # Those of this process's user one at a time: without a daemon each opens the store in this process.
        self._turn = asyncio.Lock()

    async def list_tools(self, _: Asked, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[_described(each) for each in self._tools])

    async def call_tool(self, ctx: Asked, params: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            called = tool(params.name, self._tools)
        except NotFound as error:
            raise MCPError(types.INVALID_PARAMS, str(error)) from None
        try:
            answer = await self._answer(ctx, called, called.read(params.arguments))
        except RegistryError as error:
            return failed(error)
        except Exception as error:  # noqa: BLE001 - the last one to see it: a client gets a line, no traceback
            return failed(RegistryError(f"a fault of ours: {type(error).__name__}: {error}", hint="please report it"))
        return types.CallToolResult(content=[_text(answer)], structured_content=answer)

    async def _answer(self, ctx: Asked, called: Tool, asked: Arguments) -> dict[str, Any]:
        ask = called.ask
        if ask is None:
            assert isinstance(asked, WaitArguments)
            return await changes_after(self._access.watcher(token_of(ctx)), asked)
        return await self._ask(ctx, lambda caller: ask(caller, asked))

    async def list_resources(
        self, ctx: Asked, params: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        query = {"limit": _PAGE, "page": None if params is None else params.cursor}
        try:
            page = await self._ask(ctx, lambda caller: caller.request("GET", "/v1/-/records", query=query).json())
        except RegistryError as error:
            raise _refused(error) from None
        return types.ListResourcesResult(
            resources=[_resource(item) for item in page["items"]], next_cursor=page.get("next")
        )

    async def list_templates(
        self, _: Asked, __: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        described = [
            types.ResourceTemplate(
                name=name, uri_template=template, mime_type=_JSON, description="A record, its secrets kept back."
            )
            for name, template in zip(("record", "record-elsewhere"), TEMPLATES, strict=True)
        ]
        return types.ListResourceTemplatesResult(resource_templates=described)

    async def read_resource(self, ctx: Asked, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        uri = str(params.uri)
        try:
            key = key_of(uri)
            found = await self._ask(ctx, lambda caller: record(caller, key.kind, key.name, key.namespace))
        except RegistryError as error:
            raise _refused(error, uri=uri) from None
        contents = types.TextResourceContents(uri=uri, mime_type=_JSON, text=_json(found))
        return types.ReadResourceResult(contents=[contents])

    async def _ask(self, ctx: Asked, ask: Callable[[Caller], dict[str, Any]]) -> dict[str, Any]:
        """Ask the registry, with the rights of whoever asks."""
        token = token_of(ctx)
        if token is not None:  # it is the daemon that is asked
            return await asyncio.to_thread(self._exchange, token, ask)
        async with self._turn:
            return await asyncio.to_thread(self._exchange, None, ask)

    def _exchange(self, token: str | None, ask: Callable[[Caller], dict[str, Any]]) -> dict[str, Any]:
        with self._access.caller(token) as caller:
            return ask(caller)


def failed(error: RegistryError) -> types.CallToolResult:
    """The registry's problem as a tool's error: for the model to read and to mend, with its code for programs."""
    problem: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "hint": error.hint,
        "retryable": error.retryable,
    }
    if error.data:
        problem["data"] = error.data
    return types.CallToolResult(content=[_text(problem)], structured_content=problem, is_error=True)


def _refused(error: RegistryError, **data: str) -> MCPError:
    """The same, where the protocol has no result for errors."""
    asked_wrongly = isinstance(error, Invalid | NotFound)
    told = {**data, "code": error.code, "hint": error.hint, "retryable": error.retryable}
    return MCPError(types.INVALID_PARAMS if asked_wrongly else types.INTERNAL_ERROR, str(error), told)


def _described(each: Tool) -> types.Tool:
    hints = types.ToolAnnotations(
        read_only_hint=each.reads,
        destructive_hint=each.destroys,
        idempotent_hint=each.reads,
        open_world_hint=each.reaches_out,
    )
    return types.Tool(
        name=each.name, title=each.title, description=each.description, input_schema=each.schema(), annotations=hints
    )


def _resource(item: dict[str, Any]) -> types.Resource:
    uri = uri_of(item["kind"], item["namespace"], item["name"])
    name = f"{item['kind']}/{item['name']}"
    return types.Resource(
        uri=uri, name=name, title=item.get("title"), description=item.get("description"), mime_type=_JSON
    )


def _text(value: dict[str, Any]) -> types.TextContent:
    return types.TextContent(text=_json(value))


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
