"""The receivers of docs/how-to/receive-webhooks.md do what the page says."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.messages.formats import Format
from universal_registry.propagation.routing.target import Seal, Signing
from universal_registry.security.signing import new_secret, parse_secret, signed_headers
from universal_registry.security.wire import SEALED_TYPE, new_wire_key, parse_wire_key, seal_for_wire

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "receive-webhooks.md").read_text(encoding="utf-8")
WORLD = SystemWorld()
SECRET, KEY = new_secret(WORLD), new_wire_key(WORLD)
EVENT = {"specversion": "1.0", "type": "registry.alias.updated.v1", "subject": "alias/default/gs", "sequence": "1"}


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def sealed() -> bytes:
    content_type = "application/cloudevents+json; charset=utf-8"
    return seal_for_wire(parse_wire_key(KEY), json.dumps(EVENT).encode(), content_type, WORLD)


def test_the_python_receiver_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect("mine.db") as made:
        made.execute("CREATE TABLE seen (subject TEXT, sequence TEXT)")
    made.close()
    names: dict[str, Any] = {}
    exec(block("python").replace("whsec_...", SECRET).replace("sealkey_...", KEY), names)
    body = sealed()
    signed = signed_headers([parse_secret(SECRET)], "dlv_1", int(WORLD.now().timestamp()), body)
    headers = {**signed, "content-type": SEALED_TYPE}
    assert [names["receive"](headers, body) for _ in range(2)] == [(204, "")] * 2
    assert names["connection"].execute("SELECT * FROM seen").fetchall() == [("alias/default/gs", "1")]
    assert names["receive"](headers, body + b" ")[0] == 401
    names["connection"].close()


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
def test_the_lines_for_node_open_a_body() -> None:
    script = "const [key, body] = process.argv.slice(1)\n" + block("js") + "console.log(JSON.stringify(event))"
    done = subprocess.run(["node", "-e", script, KEY, sealed().decode()], capture_output=True, timeout=60, check=False)
    assert (json.loads(done.stdout), done.stderr) == (EVENT, b"")


@pytest.mark.parametrize("words", [Format, Signing, Seal])
def test_each_word_is_explained(words: Any) -> None:
    for word in words:
        assert f"`{word.value}`" in PAGE
