"""The registry from a program: what the commands do, as methods. Blocking; `client/watch.py` and `client/stream.py`
follow changes on an event loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from universal_registry.client.http import Caller, Client, find_daemon, quote, record_path
from universal_registry.kernel.errors import Unreachable
from universal_registry.kernel.settings import Places

_PAGE = 1000


class Registry:
    """One namespace of a registry, by way of `caller`. For one thread; close it, or use it as a context manager.

    Records come and go as documents: `{"kind", "namespace", "name", "spec", "labels", "meta", ...}`. Every method
    raises the RegistryError that the API answered with (`NotFound`, `Conflict`, `Invalid`, ...), and Unreachable or
    TimedOut when nothing answered.
    """

    def __init__(self, caller: Caller, *, namespace: str = "default") -> None:
        self._caller = caller
        self._namespace = namespace

    @classmethod
    def at(cls, address: str, *, token: str | None = None, namespace: str = "default", timeout: float = 30.0) -> Self:
        """The registry at a Unix socket's absolute path, or at `HOST:PORT` with a token."""
        return cls(Client(address, token, timeout), namespace=namespace)

    @classmethod
    def local(cls, places: Places, *, namespace: str = "default") -> Self:
        """The registry of a home, by its daemon. Raises Unreachable when none is running."""
        address = find_daemon(places)
        if address is None:
            raise Unreachable(f"no daemon runs in {places.home}", hint="ureg up")
        return cls.at(address, namespace=namespace)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the connection."""
        self._caller.close()

    # --- records -----------------------------------------------------------------------------------------------------

    def get(self, kind: str, name: str, *, rev: int | None = None) -> dict[str, Any]:
        """The record's document, now or as of a revision."""
        query = {} if rev is None else {"rev": str(rev)}
        return self._json("GET", record_path(self._namespace, kind, name), query=query)

    def records(self, kind: str, select: str = "") -> Iterator[dict[str, Any]]:
        """The records of a kind in order of their names, those that a selector selects; a page at a time."""
        query = {"limit": str(_PAGE), **({"select": select} if select else {})}
        while True:
            page = self._json("GET", f"/v1/{quote(self._namespace)}/{quote(kind)}", query=query)
            yield from page["items"]
            if page["next"] is None:
                return
            query["page"] = page["next"]

    def put(self, kind: str, name: str, spec: Mapping[str, Any], **rest: Any) -> dict[str, Any]:
        """Make the record exactly this. `rest`: `labels`, `classification`, `title`, ... Answers with `effect`,
        `revision`, `cursor`, `record`, `warnings`."""
        return self._json("PUT", record_path(self._namespace, kind, name), json={"spec": dict(spec), **rest})

    def set(self, kind: str, name: str, **fields: Any) -> dict[str, Any]:
        """Change fields of the spec, or create the record; None removes one. Answers as `put` does."""
        return self.merge(kind, name, {"spec": fields})

    def merge(self, kind: str, name: str, document: Mapping[str, Any]) -> dict[str, Any]:
        """Merge into the record (RFC 7386), or create it. Answers as `put` does."""
        return self._json("PATCH", record_path(self._namespace, kind, name), json=dict(document))

    def delete(self, kind: str, name: str, *, missing_ok: bool = False) -> dict[str, Any]:
        """Remove the record. Answers as `put` does."""
        query = {"missing_ok": "true"} if missing_ok else {}
        return self._json("DELETE", record_path(self._namespace, kind, name), query=query)

    def history(self, kind: str, name: str) -> Iterator[dict[str, Any]]:
        """What was done to the record, newest first; a page at a time."""
        query = {"kind": kind, "name": name, "namespace": self._namespace}
        while True:
            page = self._json("GET", "/v1/-/history", query=query)
            yield from page["items"]
            if page["next"] is None:
                return
            query["before"] = str(page["next"])

    def batch(self, operations: Sequence[Mapping[str, Any]], *, message: str = "") -> dict[str, Any]:
        """Many operations (`{"op": "put" | "merge" | "delete", "kind", "name", ...}`), one revision, all or nothing."""
        placed = [{"namespace": self._namespace, **each} for each in operations]
        return self._json("POST", "/v1/batch", json={"operations": placed, "message": message})

    # --- propagation -------------------------------------------------------------------------------------------------

    def propagate(self, mode: str, source: str, targets: Sequence[str] = (), **rest: Any) -> dict[str, Any]:
        """Begin a propagation in one of the seven modes. `rest`: `data`, `once`, `exclude`, `deadline`, ...: the fields
        of PropagateBody. Answers with `session`, its id, and what it does."""
        body = {"mode": mode, "source": source, "targets": list(targets), **rest}
        return self._json("POST", "/v1/-/propagate", json=body)

    def session(self, session_id: str) -> dict[str, Any]:
        """A session with its targets and what has not arrived."""
        return self._json("GET", f"/v1/-/sessions/{quote(session_id)}")

    def where(self, name: str) -> list[dict[str, Any]]:
        """For each record that `name` (or `kind/name`) may mean: its `targets`, which of them have it, and why not."""
        found: list[dict[str, Any]] = self._json(
            "GET", "/v1/-/where", query={"name": name, "namespace": self._namespace}
        )["items"]
        return found

    def status(self) -> dict[str, Any]:
        """What there is and how it goes."""
        return self._json("GET", "/v1/-/status")

    def _json(self, method: str, path: str, **request: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._caller.request(method, path, **request).json()
        return answer
