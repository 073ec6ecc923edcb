"""What suites of more than one file here share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from syncing import ALL, PAIRS, Node

from universal_registry.registry.check import check_registry


@pytest.fixture(params=PAIRS)
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Node, Node]]:
    if request.param != "sqlite":
        request.getfixturevalue("postgres")
    async with AsyncExitStack() as stack:
        nodes = []
        for name, opener in zip("ab", PAIRS[request.param], strict=True):
            folder = tmp_path / name
            folder.mkdir()
            node = await stack.enter_async_context(opener(folder))
            node.name = name
            nodes.append(node)
        for node in nodes:
            await node.replica.enable("home", (ALL,))
        yield nodes[0], nodes[1]
        for node in nodes:
            await check_registry(node.service.records, node.service.log, node.service.event_commitment)
