"""The demo's script: each act does something to the real product, waits for its consequence, and says what it saw."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from statistics import quantiles
from typing import Any, TextIO

from universal_registry.demo.daemon import Daemon
from universal_registry.demo.receivers import Inbox, Receivers
from universal_registry.demo.screen import Screen, counted
from universal_registry.kernel.errors import Corrupt
from universal_registry.kernel.ids import namespace_from
from universal_registry.kernel.world import World
from universal_registry.scan import Found, Machine, read_all

_ALIAS = "gs"
_CHUNK = 250
_WAIT = 60.0
_EDITS = ("git status -sb", "git status -s --branch", "git status --short --branch")
_FLAKY_SHARE = 0.08
_UNSENT = 14
_TURNS = 50


class Demo:
    """One run of it. `real_time`: retry and breaker keep their own times instead of a tenth of them."""

    def __init__(
        self, *, world: World, machine: Machine, environ: Mapping[str, str], out: TextIO, real_time: bool = False
    ) -> None:
        self._world = world
        self._machine = machine
        self._namespace = namespace_from(machine.hostname)
        self._faster = 1.0 if real_time else 10.0
        self._screen = Screen(out, world)
        self._edge = Inbox("edge", world)
        self._inboxes = [
            Inbox("laptop", world),
            Inbox("backup", world),
            Inbox("office", world),
            Inbox("flaky", world, flaky_share=_FLAKY_SHARE),
            self._edge,
        ]
        self._daemon = Daemon(environ, self._settings(), world)
        self._receivers = Receivers(self._inboxes)
        self._latencies: list[float] = []
        self._plurals: dict[str, str] = {}

    def _settings(self) -> dict[str, str]:
        return {
            "REGISTRY_RETRY_BASE_DELAY_SECONDS": str(1.0 / self._faster),
            "REGISTRY_RETRY_MAX_DELAY_SECONDS": str(300.0 / self._faster),
            "REGISTRY_RETRY_CIRCUIT_BREAKER_TIMEOUT_SECONDS": str(60.0 / self._faster),
            "REGISTRY_MAX_IN_FLIGHT": "20",
            "REGISTRY_MAX_IN_FLIGHT_PER_TARGET": "4",
        }

    def run(self) -> int:
        """All acts; 0 when every receiver ended with every record. Everything is removed at the end, come what may."""
        try:
            self._begin()
            self._fill()
            self._edit_once()
            self._edge_dies()
            self._kill_the_daemon()
            self._edge_lives()
            return self._account()
        finally:
            self._receivers.close()
            self._daemon.close()

    # --- the acts --------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        speed = "" if self._faster == 1 else f" Retry and breaker times are divided by {self._faster:.0f}."
        self._screen.say(f"Reading this machine. Loopback only. Removed at exit.{speed}")
        self._receivers.start()
        ready = self._daemon.start()
        kinds = self._api("GET", "/v1/-/kinds")["items"]
        self._plurals = {kind["name"]: kind["plural"] for kind in kinds}
        self._screen.say(f"The daemon was ready in {ready:.2f} s (20 deliveries at once, 4 for each target)")
        found = [item for _, item in read_all(self._machine) if isinstance(item, Found)]
        for start in range(0, len(found), _CHUNK):
            self._put(found[start : start + _CHUNK])
        self._screen.say(f"{len(found)} records: {counted(Counter(self._plural(item.kind) for item in found))}")

    def _put(self, found: list[Found]) -> None:
        operations = [
            {
                "op": "put",
                "kind": item.kind,
                "namespace": self._namespace,
                "name": item.name,
                "classification": item.classification,
                "title": item.title,
                "labels": dict(item.labels),
                "spec": item.spec,
            }
            for item in found
        ]
        self._api("POST", "/v1/batch", {"operations": operations, "message": "demo: reading this machine"})

    def _fill(self) -> None:
        for inbox in self._inboxes:
            body = {"name": inbox.name, "url": inbox.url, "select": f"namespace={self._namespace}"}
            self._receivers.do(inbox.stop())
            inbox.trust(self._api("POST", "/v1/-/targets", body)["secret"])
            self._receivers.revive(inbox)
        began = self._world.monotonic()
        wanted = self._records()
        self._until(lambda: all(len(inbox.state) >= wanted for inbox in self._inboxes), "every target", rows=wanted)
        took = self._world.monotonic() - began
        self._screen.rows(self._inboxes, wanted, last=True)
        total = wanted * len(self._inboxes)
        self._screen.say(f"{total}/{total} delivered and their signatures verified, {total / took:.0f} a second")

    def _edit_once(self) -> None:
        self._screen.say(f"$ ureg set alias {_ALIAS} command='{_EDITS[0]}'")
        steady = [inbox for inbox in self._inboxes if inbox.name != "flaky"]
        revision = 0
        for turn in range(_TURNS):
            began = self._world.monotonic()
            revision = self._set(_EDITS[0] if turn == 0 else f"{_EDITS[0]} # {turn}")
            self._until_all_have(steady, revision)
            arrived = [each.arrived[self._subject, self._sequence(revision)] - began for each in steady]
            self._latencies += arrived
            if turn == 0:
                slowest = max(arrived) * 1000
                self._screen.say(f"revision {revision} was at all four steady targets after {slowest:.0f} ms")
        self._until_all_have(self._inboxes, revision)
        self._screen.say(f"{_TURNS - 1} more edits, one after the other; flaky has the last one too")

    def _edge_dies(self) -> None:
        self._receivers.do(self._edge.stop())
        self._screen.say("edge dies; three edits")
        for text in _EDITS:
            self._set(f"{text} # edge is away")
        self._until(lambda: self._breaker() == "open", "edge's breaker to open")
        others = [inbox for inbox in self._inboxes if inbox is not self._edge]
        revision = self._revision()
        self._until_all_have(others, revision)
        behind = self._behind()
        self._screen.say(
            f"the other four have them all; edge: {behind} behind, --o  o-- breaker open, nothing is dropped"
        )
        answer = self._daemon.command("where", f"alias/{_ALIAS}", "-o", "tsv")
        self._screen.say(f"$ ureg where alias/{_ALIAS}")
        for line in answer.stdout.strip().splitlines():
            self._screen.say(f"  {line.expandtabs(2)}")

    def _kill_the_daemon(self) -> None:
        for number in range(_UNSENT - self._behind()):
            self._api("PUT", f"/v1/{self._namespace}/aliases/demo-{number}", {"spec": {"command": f"echo {number}"}})
        self._until(lambda: self._behind() == _UNSENT, f"{_UNSENT} to wait for edge")
        before = self._behind()
        self._daemon.kill()
        seconds = self._daemon.start()
        after = self._behind()
        self._screen.say(f"kill -9 of our own daemon with {before} unsent; back in {seconds:.2f} s, still {after}")
        if after != before:
            raise Corrupt(f"{before} deliveries waited before the kill, {after} after it")

    def _edge_lives(self) -> None:
        seen = len(self._edge.order)
        self._receivers.revive(self._edge)
        self._screen.say("edge lives")
        self._until(lambda: self._behind() == 0 and self._breaker() == "closed", "edge to catch up")
        mine = [sequence for subject, sequence in self._edge.order[seen:] if subject == self._subject]
        in_order = "in order" if mine == sorted(mine) else "OUT OF ORDER"
        came = len(self._edge.order) - seen
        self._screen.say(f"one probe, then {came} deliveries; the edits of {_ALIAS} {in_order}; breaker closed")

    def _account(self) -> int:
        """Compare what each receiver has with what the registry has, record by record."""
        expected = self._expected()
        wrong = 0
        for inbox in self._inboxes:
            have = {subject: record["spec"] for subject, (_, record) in inbox.state.items()}
            wrong += sum(have.get(subject) != spec for subject, spec in expected.items())
        received = sum(inbox.events for inbox in self._inboxes)
        repeated = sum(inbox.repeated for inbox in self._inboxes)
        refused = sum(inbox.refused for inbox in self._inboxes)
        turned = sum(inbox.turned_away for inbox in self._inboxes)
        p50, p99 = self._percentiles()
        self._screen.say(
            f"received {received} = verified {received - refused} · lost {wrong} · repeated {repeated} (same ids) · "
            f"turned away and sent again {turned} · edit to receipt p50 {p50:.0f} ms, p99 {p99:.0f} ms"
        )
        self._screen.say("Yours:  ./ureg init && ./ureg up && ./ureg scan")
        self._screen.say("        ./ureg listen :9000")
        self._screen.say("        ./ureg target add mine http://127.0.0.1:9000 --select kind=alias")
        return 1 if wrong or refused else 0

    # --- small words -----------------------------------------------------------------------------------------------

    @property
    def _subject(self) -> str:
        return f"alias/{self._namespace}/{_ALIAS}"

    def _set(self, text: str) -> int:
        """What that command does. The revision."""
        path = f"/v1/{self._namespace}/aliases/{_ALIAS}"
        answer = self._api("PATCH", path, {"classification": "ZshAlias", "spec": {"command": text}})
        return int(answer["revision"])

    def _api(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        return self._daemon.client.request(method, path, json=body, query=query or None).json()

    def _revision(self) -> int:
        return int(self._api("GET", "/v1/-/status")["revision"])

    def _records(self) -> int:
        return len(self._expected())

    def _expected(self) -> dict[str, Any]:
        """Subject -> spec of everything that the receivers should have."""
        found: dict[str, Any] = {}
        page: str | None = ""
        while page is not None:
            more = {"page": page} if page else {}
            answer = self._api("GET", "/v1/-/records", namespace=self._namespace, limit="1000", **more)
            for item in answer["items"]:
                found[f"{item['kind']}/{item['namespace']}/{item['name']}"] = item["spec"]
            page = answer["next"]
        return found

    def _sequence(self, revision: int) -> str:
        return f"{revision:016d}.{0:06d}"

    def _has(self, inbox: Inbox, revision: int) -> bool:
        have = inbox.state.get(self._subject)
        return have is not None and have[0] >= self._sequence(revision)

    def _until_all_have(self, inboxes: list[Inbox], revision: int) -> None:
        self._until(lambda: all(self._has(inbox, revision) for inbox in inboxes), f"revision {revision}")

    def _breaker(self) -> str:
        """The state of edge's breaker."""
        return str(self._api("GET", "/v1/-/targets/system/edge")["lane"]["breaker"])

    def _behind(self) -> int:
        """How many deliveries wait for edge."""
        answer = self._api("GET", "/v1/-/deliveries", target="system/edge")
        return sum(item["state"] != "dead" for item in answer["items"])

    def _until(self, condition: Callable[[], bool], what: str, rows: int = 0) -> None:
        def looked() -> bool:
            if rows:
                self._screen.rows(self._inboxes, rows)
            return condition()

        self._daemon.wait_for(looked, _WAIT * (10.0 / self._faster), what)

    def _plural(self, kind: str) -> str:
        return self._plurals[kind]

    def _percentiles(self) -> tuple[float, float]:
        """Milliseconds from an edit to its receipt, over fifty edits and the steady receivers."""
        cuts = quantiles(sorted(self._latencies), n=100, method="inclusive")
        return cuts[49] * 1000, cuts[98] * 1000


def run(*, world: World, machine: Machine, environ: Mapping[str, str], out: TextIO, real_time: bool = False) -> int:
    """The whole demo. 0: every receiver ended with every record, verified. Raises what kept it from going on."""
    return Demo(world=world, machine=machine, environ=environ, out=out, real_time=real_time).run()
