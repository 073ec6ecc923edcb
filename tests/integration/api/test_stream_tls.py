"""TLS on the listener, for HTTP and for streams: who is trusted, and certificates that are renewed."""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from streaming import Streaming, streaming
from websockets.exceptions import InvalidMessage

from universal_registry.api.tls import Tls
from universal_registry.client.stream import StreamClient
from universal_registry.kernel.errors import SettingError, Untrusted
from universal_registry.kernel.settings import Settings
from universal_registry.kernel.world import SystemWorld
from universal_registry.propagation.lanes.outcome import Failed
from universal_registry.propagation.ports import Envelope
from universal_registry.security.addresses import Policy
from universal_registry.transports.websocket import WebSocketTransport

Stack = Any
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
RECORD = {"kind": "alias", "name": "gs", "spec": {"command": "git status"}}


class Authority:
    """Signs certificates; each is a file with its key in another."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._builder(self.name, self.key, NOW + DAY, ca=True).sign(self.key, hashes.SHA256())
        self.file = folder / f"{name.replace(' ', '-')}.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _builder(self, subject: x509.Name, key: Any, until: dt.datetime, *, ca: bool) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 10 * DAY)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )

    def issue(
        self,
        name: str,
        until: dt.datetime = NOW + DAY,
        *,
        hosts: tuple[str, ...] = ("127.0.0.1",),
        itself: bool = False,
    ) -> tuple[Path, Path]:
        """A certificate for hosts, signed by the authority or by `itself`."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [_general(host) for host in hosts]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key, until, ca=False)
        if itself:
            builder._issuer_name = subject
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(key if itself else self.key, hashes.SHA256())
        files = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return files

    def trust(self) -> ssl.SSLContext:
        """A client's trust in this authority alone."""
        return ssl.create_default_context(cafile=str(self.file))


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def serving(stack: Stack, tls: Tls) -> AsyncIterator[Streaming]:
    async with streaming(stack.api, stack.service, stack.folder, tls=tls) as served:
        yield served


async def test_a_stream_and_requests_over_tls(stack: Stack, authority: Authority) -> None:
    async with serving(stack, Tls(*authority.issue("good"))) as served:
        async with served.over_tcp(stack.token, ssl=authority.trust()) as client:
            assert (await client.asked("put", record=RECORD))["status"] == 201
            assert client.socket.transport.get_extra_info("cipher")
        async with StreamClient([f"wss://{served.addresses.tcp}"], token=stack.token, tls=authority.trust()) as ours:
            (answer,) = await ours.push({"type": "delete", "kind": "alias", "name": "gs"})
            assert answer["status"] == 200
        assert await _get(served, authority.trust(), stack.token) == 200


async def _get(served: Streaming, trust: ssl.SSLContext, token: str) -> int:
    import asyncio

    assert served.addresses.tcp is not None
    host, _, port = served.addresses.tcp.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=trust)
    writer.write(f"GET /v1/-/kinds HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {token}\r\n\r\n".encode())
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"hosts": ("other.example",)}, "is for another"),
        ({"until": NOW - DAY}, "has expired"),
        ({"itself": True}, "is signed by itself"),
    ],
    ids=["wrong-name", "expired", "self-signed"],
)
async def test_a_certificate_that_is_not_good_is_refused(
    stack: Stack, authority: Authority, asked: dict[str, Any], reason: str
) -> None:
    async with serving(stack, Tls(*authority.issue("bad", **asked))) as served:
        url = f"wss://{served.addresses.tcp}/v1/stream"
        with pytest.raises(ssl.SSLCertVerificationError):
            async with served.over_tcp(stack.token, ssl=authority.trust()):
                pass
        transport = WebSocketTransport(SystemWorld(), tls=authority.trust())
        sent = Envelope(url=url, headers=(("webhook-id", "1"),), body=b"{}", network=Policy.LOOPBACK, timeout=20.0)
        outcome = await transport.send(sent)
        await transport.close()
        client = StreamClient([url.removesuffix("/v1/stream")], token=stack.token, tls=authority.trust())
        with pytest.raises(Untrusted, match="the certificate of"):
            await client.push({"type": "put", "record": RECORD})
        with pytest.raises(Untrusted, match="the certificate of"):
            await anext(client.stream())
        assert served.front.connections == set()
    assert isinstance(outcome, Failed)
    assert reason in outcome.reason


async def test_an_authority_that_is_not_known_is_refused(stack: Stack, authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "a stranger")
    async with serving(stack, Tls(*authority.issue("good"))) as served:
        with pytest.raises(ssl.SSLCertVerificationError):
            async with served.over_tcp(stack.token, ssl=stranger.trust()):
                pass


async def test_a_renewed_certificate_counts_at_once_and_drops_no_stream(stack: Stack, authority: Authority) -> None:
    tls = Tls(*authority.issue("served"))
    async with serving(stack, tls) as served, served.over_tcp(stack.token, ssl=authority.trust()) as old:
        await old.subscribed(start="now")
        await old.hear("synced")
        first = old.socket.transport.get_extra_info("peercert")["serialNumber"]
        assert not tls.refresh()
        authority.issue("served")
        assert tls.refresh()
        async with served.over_tcp(stack.token, ssl=authority.trust()) as new:
            second = new.socket.transport.get_extra_info("peercert")["serialNumber"]
            assert (await new.asked("put", record=RECORD))["status"] == 201
        assert (await old.hear("changes"))["events"][0]["name"] == "gs"
        # Half of a pair changes nothing, and is told of.
        (authority.folder / "served.key").write_text("no key")
        with pytest.raises(SettingError, match="cannot be used"):
            tls.refresh()
        async with served.over_tcp(stack.token, ssl=authority.trust()) as again:
            assert again.socket.transport.get_extra_info("peercert")["serialNumber"] == second
    assert first != second


async def test_with_an_authority_of_clients_each_needs_a_certificate(stack: Stack, authority: Authority) -> None:
    tls = Tls(*authority.issue("served"), authority.file)
    async with serving(stack, tls) as served:
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError, InvalidMessage)):
            async with served.over_tcp(stack.token, ssl=authority.trust()) as client:
                await client.asked("put", record=RECORD)
        mine = authority.trust()
        mine.load_cert_chain(*authority.issue("client"))
        async with served.over_tcp(stack.token, ssl=mine) as client:
            assert (await client.asked("put", record=RECORD))["status"] == 201


async def test_the_names_of_the_certificate_are_hosts(stack: Stack, authority: Authority) -> None:
    tls = Tls(*authority.issue("named", hosts=("registry.example", "127.0.0.1")))
    assert tls.names == {"registry.example", "127.0.0.1"}
    async with serving(stack, tls) as served:
        assert served.addresses.tcp is not None
        port = int(served.addresses.tcp.rpartition(":")[2])
        from websockets.asyncio.client import connect

        async with connect(
            f"wss://registry.example:{port}/v1/stream",
            host="127.0.0.1",
            port=port,
            ssl=authority.trust(),
            additional_headers={"Authorization": f"Bearer {stack.token}"},
        ) as socket:
            await socket.send(json.dumps({"type": "put", "id": 1, "record": RECORD}))
            assert json.loads(await socket.recv())["status"] == 201


def test_files_that_are_no_certificate(tmp_path: Path, authority: Authority) -> None:
    good, key = authority.issue("good")
    _, other = authority.issue("other")
    with pytest.raises(SettingError, match="No such file"):
        Tls(tmp_path / "none", key)
    with pytest.raises(SettingError, match="cannot be used"):
        Tls(good, other)
    with pytest.raises(SettingError, match="cannot be used"):
        Tls(key, key)
    assert Settings(home=tmp_path).tls_cert is None


def test_on_port_443_in_a_network_of_its_own(tmp_path: Path, authority: Authority) -> None:
    """The daemon itself, on the port that the world expects, and `ureg` refusing what is in clear there."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace can be made here")
    certificate, key = authority.issue("served", hosts=("registry.test",))
    root = Path(__file__).parents[3]
    script = f"""
set -e
ip link set lo up
export REGISTRY_HOME={tmp_path}/home REGISTRY_LISTEN=0.0.0.0:443
if {sys.executable} -m universal_registry up 2> {tmp_path}/said; then echo "spoke in clear"; exit 1; fi
export REGISTRY_TLS_CERT={certificate} REGISTRY_TLS_KEY={key}
{sys.executable} -m universal_registry up
{sys.executable} {tmp_path}/client.py
{sys.executable} -m universal_registry down
"""
    (tmp_path / "client.py").write_text(f"""
import asyncio, json, ssl
from websockets.asyncio.client import connect
token = open("{tmp_path}/home/config/admin.token").read().strip()
async def main():
    trust = ssl.create_default_context(cafile="{authority.file}")
    async with connect("wss://registry.test/v1/stream", host="127.0.0.1", port=443, ssl=trust,
                       additional_headers={{"Authorization": "Bearer " + token}}) as socket:
        await socket.send(json.dumps({{"type": "put", "id": 1, "record": {RECORD!r}}}))
        print(json.loads(await socket.recv())["status"])
asyncio.run(main())
""")
    done = subprocess.run(
        [unshare, "-rn", "sh", "-c", script], cwd=root, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n201\n" in done.stdout
    assert "tokens must not go in clear" in (tmp_path / "said").read_text()
