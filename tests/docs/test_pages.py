"""Every block of the tutorial and of the how-to pages runs as it is written, in its order, or is listed here with the
reason why not."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.docs.pages import DOCS, Block, Home, blocks_of
from universal_registry.client.listen import Receiver, refusing
from universal_registry.kernel.world import SystemWorld

PAGES = [DOCS / "tutorial.md", *sorted((DOCS / "how-to").glob("*.md"))]


class Scene(NamedTuple):
    """What a page supposes. `before`: lines that run first. `words`: what stands in the page -> what a reader would
    write there. `elsewhere`: blocks by number -> where they run, or why they cannot.
    `refuses`: the receiver takes nothing."""

    before: str = "ureg init && ureg up"
    words: Mapping[str, str] = {}
    elsewhere: Mapping[int, str] = {}
    refuses: bool = False


INIT = "ureg init; ureg up\n"
MINE = INIT + "ureg target add mine http://127.0.0.1:9000 --select kind=alias --seal never >/dev/null\n"
DEAD = (
    MINE
    + """
ureg set alias gs command=ls
seconds=0
until ureg delivery ls --target mine -o json | grep '"state": *"dead"' >/dev/null; do
  seconds=$((seconds + 1)); [ $seconds -lt 60 ]
done
ureg delivery ls --target mine -o json | grep -o 'dlv_[0-9a-z]*' | head -n 1 > dead
"""
)
SEES = "ureg set alias gs command=ls; ureg set service shop labels.tier=backend\n"
THERE = "REGISTRY_HOME=$PWD/there REGISTRY_LISTEN=127.0.0.1:0 ureg"
CAPTURED = """
ureg target secret show mine > secret.txt
ureg target test mine --show | sed -n '/^POST/,$p' > request.http
sed '/^$/,$d' request.http > headers.txt
sed '1,/^$/d' request.http > body.json
ureg target add chat http://127.0.0.1:9000/chat >/dev/null
"""
SCENES = {
    "tutorial": Scene(before=""),
    "how-to/ai-clients": Scene(elsewhere={1: "over HTTP in tests/system/daemon/test_daemon_mcp.py"}),
    "how-to/agent": Scene(before=INIT),
    "how-to/backup": Scene(
        words={"/var/backups/ureg": "backups"},
        elsewhere={1: "with a real server in tests/system/cli/test_cli_backup.py"},
    ),
    "how-to/delivery": Scene(before=DEAD, words={"dlv_0a1b2c": "$(cat dead)"}, refuses=True),
    "how-to/environments": Scene(before=INIT),
    "how-to/install": Scene(
        elsewhere={
            **dict.fromkeys((0, 1, 2), "on a machine of its own in tests/system/service/test_install_linux.py"),
            3: "the wheel in an environment of its own in tests/system/service/test_wheel.py",
            **dict.fromkeys((4, 5), "needs podman; what it does is done in tests/system/service/test_wheel.py"),
        }
    ),
    "how-to/keys": Scene(
        before=INIT + "echo pass-word > pass; ureg key backup keys.backup --passphrase-file pass",
        words={"import base64": "passphrase = 'pass-word'\nimport base64"},
    ),
    "how-to/monitoring": Scene(
        before=INIT,
        words={
            "/etc/prometheus/rules/": "",
            "/etc/prometheus/": "",
            "/mnt/elsewhere/": "",
            "journalctl -u universal-registry -o cat": "cat logs/registry.log",
        },
        elsewhere={2: "Prometheus reads it; promtool checks the rules in tests/unit/test_metrics.py"},
    ),
    "how-to/nats": Scene(elsewhere={0: "with a real server in tests/integration/test_nats_transport.py"}),
    "how-to/operator": Scene(),
    "how-to/postgresql": Scene(
        elsewhere=dict.fromkeys(range(4), "with a real server in tests/system/daemon/test_daemon_postgres.py")
    ),
    "how-to/production-checklist": Scene(words={"ureg checklist": "ureg checklist || [ $? = 10 ]"}),
    "how-to/python": Scene(before=MINE + "ureg target add office http://127.0.0.1:9000/office >/dev/null"),
    "how-to/receive-webhooks": Scene(
        before=MINE + CAPTURED,
        elsewhere=dict.fromkeys((0, 1), "as receivers in tests/docs/test_receive_webhooks.py"),
    ),
    "how-to/retention": Scene(before=INIT + SEES),
    "how-to/service": Scene(
        elsewhere=dict.fromkeys((0, 1, 2, 3, 5), "needs systemd, launchd or root; see tests/system/service")
    ),
    "how-to/streams": Scene(
        before=INIT + SEES,
        words={
            '["wss://one.example:8443", "wss://two.example:8443"], token="ur_..."': '[os.path.abspath("run/ureg.sock")]'
        },
    ),
    "how-to/studio": Scene(before=INIT),
    "how-to/sync": Scene(
        before=INIT + f"ureg set service service1 version=1 port=1; {THERE} init; {THERE} up",
        words={
            "ureg peer invite laptop ": "ureg peer invite laptop > line ",
            "ureg peer join LINE": f'{THERE} peer join "$(cat line)"',
        },
        elsewhere={
            1: "on an address of its own in tests/system/daemon/test_daemon_peers.py",
            2: "after edits in two places in tests/system/daemon/test_daemon_peers.py",
            3: "with three others in tests/system/daemon/test_daemon_peers.py",
        },
    ),
    "how-to/troubleshooting": Scene(words={"ureg doctor": "ureg doctor || [ $? = 10 ]"}),  # no key backup yet
    "how-to/watch": Scene(
        before=INIT + SEES,
        words={
            "/opt/universal-registry": ".",
            "| jq -c '.events[]?'": "",
            "=CURSOR'": "='$(ureg consumer get audit -o json | grep -o 'c1\\.[^\"]*')",
        },
    ),
    "how-to/zsh": Scene(elsewhere=dict.fromkeys(range(4), "in a real zsh in tests/shell/test_zsh.py")),
}


def scene_of(page: Path) -> Scene:
    return SCENES[str(page.relative_to(DOCS).with_suffix(""))]


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, int]]:
    made = Receiver(world=SystemWorld())
    _, port = await made.start("127.0.0.1", 0)
    yield made, port
    await made.stop()


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    made = Home(tmp_path / "home")
    yield made
    await asyncio.to_thread(made.close)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
async def test_the_page_runs(page: Path, home: Home, receiver: tuple[Receiver, int]) -> None:
    scene = scene_of(page)
    receiver[0].behaviour = refusing(422) if scene.refuses else None

    def real(text: str) -> str:
        for word, written in scene.words.items():
            text = text.replace(word, written)
        return re.sub(r"(127\.0\.0\.1|localhost)?:9000", f"127.0.0.1:{receiver[1]}", text)

    def run(block: Block) -> None:
        done = (home.python if block.language == "python" else home.sh)(real(block.text))
        assert done.returncode == 0, f"{page.name}, block {block.number}:\n{block.text}\n{done.stdout}\n{done.stderr}"

    await asyncio.to_thread(run, Block(-1, "sh", scene.before))
    for block in blocks_of(page):
        if block.number not in scene.elsewhere:
            assert block.language in ("sh", "python"), f"{page.name}: nobody runs {block.language}: {block.text}"
            await asyncio.to_thread(run, block)


def test_what_is_not_run_is_there() -> None:
    for page in PAGES:
        blocks = blocks_of(page)
        assert all(number < len(blocks) for number in scene_of(page).elsewhere), page
