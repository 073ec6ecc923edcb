"""What arrives, as others read it: by the verifier and the parser that other people wrote, and by other languages."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http
from cloudevents.core.formats.json import JSONFormat
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.system.cli.conftest import Listener, Ureg
from universal_registry.client.receiver import WebhookReceiver


class Got(NamedTuple):
    headers: dict[str, str]
    body: bytes


class Sink:
    """A receiver that knows nothing of ours: it keeps what comes and answers 204."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                sink.got.append(Got({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *words: Any) -> None:
                """Nothing is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/in"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def sink() -> Iterator[Sink]:
    made = Sink()
    yield made
    made.close()


def test_every_delivery_is_verified_and_parsed_by_others(
    ureg: Ureg, sink: Sink, wait_for: Callable[[Callable[[], object]], bool]
) -> None:
    secret = ureg.json("target", "add", "mine", sink.url, "--select", "kind=alias", "--signing", "both")["secret"]
    for number in range(5):
        ureg("set", "alias", f"a{number}", f"command=echo {number}")
    ureg("set", "alias", "a0", "command=echo again")
    ureg("delete", "alias/a1")
    ureg("unidirectional", "--source", "a2", "--target", "mine", "--data", '{"deploy": "é"}')
    assert wait_for(lambda: len(sink.got) >= 8)
    other = Webhook("whsec_" + "A" * 43 + "=")
    types = []
    for got in sink.got:
        assert Webhook(secret).verify(got.body, got.headers) == json.loads(got.body)
        with pytest.raises(WebhookVerificationError):
            other.verify(got.body, got.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(got.body + b" ", got.headers)
        event = from_http(HTTPMessage(got.headers, got.body), JSONFormat())
        assert event.get_specversion() == "1.0"
        assert event.get_source().startswith("/registries/")
        assert (event.get_subject() or "").startswith("alias/default/")
        assert event.get_time() is not None
        types.append(event.get_type())
    assert sorted(set(types)) == [f"registry.alias.{verb}.v1" for verb in ("created", "deleted", "event", "updated")]
    assert len({got.headers["webhook-id"] for got in sink.got}) == len(sink.got)


def test_sealed_deliveries_open_with_the_key_that_was_handed_over(
    ureg: Ureg, sink: Sink, wait_for: Callable[[Callable[[], object]], bool]
) -> None:
    made = ureg.json("target", "add", "mine", sink.url, "--seal", "always", "--signing", "ed25519")
    public, key = ureg("webhook", "keys").stdout.strip(), ureg("target", "key", "show", "mine").stdout.strip()
    assert (made["seal_key"], public[:5]) == (key, "whpk_")
    ureg("apply", "-f", "-", stdin='{"kind": "secret", "name": "db", "spec": {"value": "hunter2"}}')
    ureg("route", "add", "all", "--select", "kind=secret", "--target", "mine", "--secrets", "include")
    assert wait_for(lambda: sink.got)
    (got,) = sink.got
    assert b"hunter2" not in got.body
    message = WebhookReceiver(public_keys=[public], seal_keys=[key]).open(got.headers, got.body)
    assert message.data["record"]["spec"] == {"value": "hunter2"}
    assert got.headers["content-type"] == "application/jose"
    assert message.content_type == "application/cloudevents+json; charset=utf-8"


def test_a_listener_opens_counts_and_is_validated(ureg: Ureg, listen: Callable[..., Listener]) -> None:
    ureg("target", "add", "mine", "http://127.0.0.1:9/", "--seal", "always")
    secret = ureg.write("secret.txt", ureg("target", "secret", "show", "mine").stdout)
    key = ureg.write("key.txt", ureg("target", "key", "show", "mine").stdout)
    listener = listen("--secret", f"@{secret}", "--key", f"@{key}")
    ureg("target", "add", "mine", listener.url)
    assert ureg.json("target", "get", "mine")["validated_at"] is None
    assert "validated" in ureg("target", "validate", "mine").stdout
    assert ureg.json("target", "get", "mine")["validated_at"]
    ureg("target", "test", "mine")
    ureg("target", "secret", "rotate", "mine", "--overlap", "0s")
    assert "did not take it with 401" in ureg.run(("target", "test", "mine"), b"", {}).stdout
    heard = listener.stop()
    kinds = [(each["type"], each["state"]) for each in heard]
    assert kinds[:2] == [("registry.target.challenge.v1", "received"), ("registry.target.test.v1", "received")]
    assert heard[-1]["state"] == "refused"


def test_a_receiver_that_does_not_answer_is_not_validated(offline: Ureg, sink: Sink) -> None:
    offline("target", "add", "mine", sink.url)
    assert "did not answer with it" in offline.run(("target", "validate", "mine"), b"", {}).stdout
    assert offline.json("target", "get", "mine")["validated_at"] is None


def test_show_prints_the_exact_request_and_verify_takes_it(offline: Ureg) -> None:
    offline("target", "add", "mine", "http://127.0.0.1:9/", "--seal", "always", "--signing", "both")
    shown = offline("target", "test", "mine", "--show").stdout
    whole = offline.write("request.http", shown)
    said = offline("webhook", "verify", whole, "--target", "mine").stdout
    assert "signature: good" in said
    assert "sealed body: opens" in said
    head, _, body = shown.partition("\n\n")
    apart = offline.write("head.txt", head), offline.write("body.txt", body)
    secret = offline.write("secret.txt", offline("target", "secret", "show", "mine").stdout)
    assert "signature: good" in offline("webhook", "verify", *apart, "--target", "mine").stdout
    done = offline.run(("webhook", "verify", whole, "--secret", f"@{secret}"), b"", {})
    assert (done.returncode, "ureg target key show" in done.stdout) == (4, True)
    spoiled = shown.replace("webhook-id", "webhook-ix").encode()
    done = offline.run(("webhook", "verify", "-", "--target", "mine"), spoiled, {})
    assert (done.returncode, done.stdout[:31]) == (4, "WRONG webhook-id is missing (me")
    offline("webhook", "verify", whole, code=2)
    offline("webhook", "verify", "nowhere.http", "--target", "mine", code=3)
    offline("webhook", "verify", offline.write("bad.http", "hello\n\n"), "--target", "mine", code=6)


def test_a_filter_of_a_route_decides_what_is_sent(
    ureg: Ureg, sink: Sink, wait_for: Callable[[Callable[[], object]], bool]
) -> None:
    ureg("target", "add", "mine", sink.url)
    made = [{"kind": "service", "name": f"s{port}", "spec": {"port": port}} for port in (80, 8000, 443, 9000)]
    ureg("apply", "-f", "-", stdin="\n".join(map(json.dumps, made)))
    ureg("set", "service", "s80", "port=8080")
    ureg("route", "add", "big", "--select", "kind=service", "--filter", "spec.port>=8000", "--target", "mine")
    assert wait_for(lambda: len(sink.got) >= 3)
    names = [json.loads(got.body)["subject"].rpartition("/")[2] for got in sink.got]
    assert sorted(names) == ["s80", "s8000", "s9000"]


def test_all_targets_are_tried(offline: Ureg, sink: Sink) -> None:
    offline("webhook", "test", code=3)
    offline("target", "add", "good", sink.url)
    assert offline("webhook", "test").stdout == "good  ok     204  (not validated)\n"
    offline("target", "add", "bad", "http://127.0.0.1:9/")
    done = offline.run(("webhook", "test"), b"", {})
    assert (done.returncode, "bad  FAILED connection refused" in done.stdout) == (8, True)
    assert offline.run(("webhook", "test", "bad"), b"", {}).returncode == 1
    offline("webhook", "test", "nosuch", code=3)
    assert len(sink.got) == 2


NODE = """
const { createHmac, createDecipheriv, timingSafeEqual } = require('node:crypto')
const { headers, body, secret, key } = JSON.parse(require('node:fs').readFileSync(0))
const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`
const wanted = createHmac('sha256', Buffer.from(secret.slice('whsec_'.length), 'base64')).update(signed).digest()
const good = headers['webhook-signature'].split(' ').some((entry) => {
  const [version, signature] = entry.split(',')
  const given = Buffer.from(signature, 'base64')
  return version === 'v1' && given.length === wanted.length && timingSafeEqual(given, wanted)
})
if (!good) throw new Error('not authentic')
const [header, , iv, ciphertext, tag] = body.split('.')
const bytes = (text) => Buffer.from(text, 'base64url')
const box = createDecipheriv('aes-256-gcm', bytes(key.slice('sealkey_'.length)), bytes(iv))
box.setAAD(Buffer.from(header)).setAuthTag(bytes(tag))
process.stdout.write(Buffer.concat([box.update(bytes(ciphertext)), box.final()]))
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node here")
def test_node_checks_and_opens_what_arrives(offline: Ureg, sink: Sink) -> None:
    made = offline.json("target", "add", "mine", sink.url, "--seal", "always")
    offline("target", "test", "mine")
    (got,) = sink.got
    given = {"headers": got.headers, "body": got.body.decode(), "secret": made["secret"], "key": made["seal_key"]}
    command = ["node", "-e", NODE]
    done = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["type"] == "registry.target.test.v1"


def test_the_daemon_drops_a_secret_when_its_overlap_is_over(
    offline: Ureg, wait_for: Callable[[Callable[[], object]], bool]
) -> None:
    offline("target", "add", "mine", "http://127.0.0.1:9/")
    offline("target", "secret", "rotate", "mine", "--overlap", "1s")
    assert offline.json("target", "get", "mine")["secret_overlap_until"]
    offline("up", REGISTRY_HEALTH_INTERVAL="0.2")
    assert wait_for(lambda: offline.json("target", "get", "mine")["secret_overlap_until"] is None)
    assert "the overlap is over" in offline("history", "endpoint/mine", "-n", "system", "-o", "json").stdout


def test_webhooks_are_targets_and_the_same_words_do(ureg: Any) -> None:
    added = ureg.json("webhook", "add", "mine", "http://127.0.0.1:9", "--select", "kind=alias", "--rate", "5")
    assert (added["result"], added["route"]["route"]) == ("created", "mine")
    assert ureg.json("target", "add", "mine", "http://127.0.0.1:9")["result"] == "unchanged"
    ureg("target", "add", "bus", "nats://127.0.0.1:4222/a.b", "--network", "loopback")
    assert ureg("webhook", "ls", "-o", "name").stdout == "mine\n"
    assert ureg.json("webhook", "ls") == [each for each in ureg.json("target", "ls") if each["name"] == "mine"]
    new = ureg.json("webhook", "rotate-secret", "mine", "--overlap", "1h")
    assert new["secret"] == ureg("target", "secret", "show", "mine").stdout.split()[0] != added["secret"]


def test_what_is_no_webhook_is_said_to_be_none(offline: Any) -> None:
    assert "no webhooks" in offline("webhook", "ls").stderr
    offline("target", "add", "bus", "nats://127.0.0.1:4222/a.b", "--network", "loopback")
    for words, code, said in (
        (("add", "x", "nats://127.0.0.1:4222/a.b"), 2, "nats:// is no webhook"),
        (("add", "x", "http://["), 6, "URL"),
        (("add", "x", "nowhere"), 6, "must begin with"),
        (("add", "x"), 2, "URL"),
        (("rotate-secret", "bus"), 5, "goes by nats"),
        (("rotate-secret", "buss"), 3, "did you mean 'bus'"),
    ):
        done = offline("webhook", *words, code=code)
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    assert offline("target", "ls", "-o", "name").stdout == "bus\n"
