"""Records as resources: `registry://KIND/NAME`, and `?namespace=NAMESPACE` outside of `default`."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote, urlsplit

from universal_registry.client.http import quote
from universal_registry.kernel.errors import Invalid
from universal_registry.kernel.ids import DEFAULT_NAMESPACE, Key

SCHEME = "registry"
TEMPLATES = (
    f"{SCHEME}://{{kind}}/{{name}}",
    f"{SCHEME}://{{kind}}/{{name}}?namespace={{namespace}}",
)


def uri_of(kind: str, namespace: str, name: str) -> str:
    """The URI of a record; one record has one."""
    there = "" if namespace == DEFAULT_NAMESPACE else f"?namespace={quote(namespace)}"
    return f"{SCHEME}://{quote(kind)}/{quote(name)}{there}"


def key_of(uri: str) -> Key:
    """The record of a URI. Raises Invalid."""
    try:
        parts = urlsplit(uri)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        kind, name = parts.netloc, unquote(parts.path.removeprefix("/"), errors="strict")
    except ValueError as error:
        raise Invalid(f"{uri!r:.100} is no URI: {error}", hint=TEMPLATES[0]) from None
    namespaces = [value for key, value in query if key == "namespace"]
    if parts.scheme != SCHEME or not kind or not name or parts.fragment or len(namespaces) != len(query):
        raise Invalid(f"{uri!r:.100} is no record's URI", hint=TEMPLATES[0])
    if len(namespaces) > 1:
        raise Invalid(f"{uri!r:.100} names two namespaces")
    return Key(kind, namespaces[0] if namespaces else DEFAULT_NAMESPACE, name)
