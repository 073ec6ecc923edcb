"""`ureg api`: any request of the HTTP API, with a daemon or without. What the shell fronts fall back to."""

from __future__ import annotations

import sys

import click

from universal_registry.cli.command import Example, command
from universal_registry.cli.session import Session, session
from universal_registry.client.http import Reply
from universal_registry.kernel.errors import UsageError

_METHODS = ("GET", "PUT", "POST", "PATCH", "DELETE")
_NEXT = "registry-next"


@command(
    "api",
    Example("ureg api GET /v1/-/status"),
    Example("ureg api GET /v1/default/aliases --accept text/tab-separated-values --all"),
    Example("ureg api PATCH /v1/default/aliases/gs -d command='git status -sb'", "fields of a form"),
    Example("ureg api POST /v1/batch --type application/json -d @batch.json"),
)
@click.argument("method", type=click.Choice(_METHODS, case_sensitive=False))
@click.argument("path")
@click.option("-d", "--data", metavar="BODY", help="The body, or @FILE, or - for standard input.")
@click.option("--type", "content_type", metavar="TYPE", help="Of the body; a form if absent.")
@click.option("--accept", metavar="TYPE", default="application/json", show_default=True, help="Of the answer.")
@click.option("--all", "every", is_flag=True, help="All pages of a list, one after the other.")
def api(method: str, path: str, data: str | None, content_type: str | None, accept: str, every: bool) -> None:
    """Send a request of the HTTP API (docs/reference/http.md), and print the body of its answer as it came.

    The daemon answers, or this process when none runs. PATH is percent-encoded and may hold a query.
    """
    if not path.startswith("/"):
        raise UsageError(f"the path is {path!r:.80}", hint="it begins with /, as in /v1/-/status")
    body = _body(data)
    headers = {"accept": f"{accept}, application/problem+json"}
    if body:
        headers["content-type"] = content_type or "application/x-www-form-urlencoded"
    with session() as asked:
        reply = _request(asked, method.upper(), path, headers, body)
        while every and (page := reply.headers.get(_NEXT)):
            reply = _request(asked, method.upper(), path, headers, body, page=page)


def _request(
    asked: Session, method: str, path: str, headers: dict[str, str], body: bytes, page: str | None = None
) -> Reply:
    reply = asked.caller.request(method, path, query={"page": page} if page else None, body=body, headers=headers)
    sys.stdout.flush()
    sys.stdout.buffer.write(reply.body)
    return reply


def _body(word: str | None) -> bytes:
    if word is None:
        return b""
    from universal_registry.cli.reading import read_file, read_input

    if word == "-":
        return read_input()
    if word.startswith("@") and len(word) > 1:
        return read_file(word[1:])
    return word.encode("utf-8", "surrogateescape")
