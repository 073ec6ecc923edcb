"""`ureg get -w --consumer NAME`: a watch whose place the registry keeps."""

from __future__ import annotations

from universal_registry.cli.session import session
from universal_registry.client.http import quote


class Consuming:
    """A named consumer that is read here: what was written out is acknowledged."""

    def __init__(self, name: str) -> None:
        self._path = f"/v1/-/consumers/{quote(name)}"

    def check(self) -> None:
        """Raises NotFound when there is no such consumer."""
        with session(drive=False) as asked:
            asked.read(self._path)

    def acknowledge(self, cursor: str) -> None:
        """Everything up to the cursor has been written out. Raises what the registry answers."""
        with session(drive=False) as asked:
            asked.write(f"{self._path}/ack", None, cursor=cursor)
