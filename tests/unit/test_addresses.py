from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest

from universal_registry.kernel.errors import AddressRefused, Invalid
from universal_registry.security.addresses import (
    Policy,
    Url,
    check_address,
    check_peer,
    check_url,
    classify,
    is_loopback,
)

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "93.184.215.14",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "192.169.0.0",
    "11.0.0.0",
    "9.255.255.255",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "192.0.1.0",
    "192.0.3.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "2000::1",
    "2001:200::1",
    "2001:4860:4860::8888",
    "3ffe::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
    "2001:0:808:808:0:0:f7f7:f7f7",  # Teredo: relay and client 8.8.8.8
]
PRIVATE = [
    "10.0.0.0",
    "10.255.255.255",
    "172.16.0.0",
    "172.31.255.255",
    "192.168.0.0",
    "192.168.255.255",
    "100.64.0.0",
    "100.127.255.255",
    "fc00::",
    "fdff:ffff::1",
    "::ffff:10.0.0.1",
    "::10.0.0.1",
    "::ffff:0:10.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b:1::a00:1",
    "64:ff9b:1::808:808",
    "64:ff9b:1:a00:0:100::",
    "64:ff9b:1::",
    "2002:a00:1::",
    "2001:0:a00:1:0:0:f7f7:f7f7",
    "2001:0:808:808:0:0:f5ff:fffe",
]
LOOPBACK = [
    "127.0.0.0",
    "127.0.0.1",
    "127.255.255.255",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::7f00:1",
    "64:ff9b:1:7f00:0:100::",
    "2002:7f00:1::",
    "2001:0:7f00:1:0:0:f7f7:f7f7",
    "2001:0:808:808:0:0:80ff:fffe",
]
NEVER = [
    "0.0.0.0",
    "0.0.0.1",
    "0.255.255.255",
    "169.254.0.0",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.255.255",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.0",
    "192.0.0.192",
    "192.0.0.255",
    "192.0.2.0",
    "192.0.2.255",
    "192.88.99.1",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.7",
    "224.0.0.0",
    "239.255.255.255",
    "240.0.0.0",
    "255.255.255.254",
    "255.255.255.255",
    "::",
    "::2:0:0:0",
    "100::1",
    "2001:1::1",
    "2001:2::1",
    "2001:10::1",
    "2001:1ff:ffff::1",
    "2001:db8::1",
    "3fff::1",
    "3fff:fff:ffff::1",
    "4000::",
    "5f00::1",
    "fbff::1",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fe00::1",
    "fe80::1",
    "fe80::1%eth0",
    "fe80::1%1",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "::169.254.169.254",
    "::ffff:0:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a9fe:a9fe",
    "64:ff9b:2::1",
    "2002:a9fe:a9fe::1",
    "2001:0:a9fe:a9fe:0:0:f7f7:f7f7",
    "2001:0:808:808:0:0:5601:5601",
    "::ffff:0.0.0.0",
    "::ffff:255.255.255.255",
    "::ffff:224.0.0.1",
    "64:ff9b::",
    "64:ff9b::e000:1",
    "2002::1",
]
REACHES = [(PUBLIC, 0), (PRIVATE, 1), (LOOPBACK, 2), (NEVER, 3)]
POLICIES = [Policy.PUBLIC, Policy.PRIVATE, Policy.LOOPBACK]


@pytest.mark.parametrize(("text", "reach"), [(text, reach) for texts, reach in REACHES for text in texts])
def test_each_address_under_each_policy(text: str, reach: int) -> None:
    for order, policy in enumerate(POLICIES):
        for form in (text, ipaddress.ip_address(text)):
            if order >= reach:
                check_address(form, policy)
            else:
                with pytest.raises(AddressRefused) as caught:
                    check_address(form, policy)
                hint = caught.value.hint or ""
                wanted = {1: "--network private", 2: "--network loopback", 3: "never"}[reach]
                assert wanted in hint
                assert ("ureg target add" in hint) is (reach < 3)


def test_the_message_names_range_and_meaning() -> None:
    with pytest.raises(AddressRefused, match=r"10\.1\.2\.3 is in 10\.0\.0\.0/8 \(private network\)"):
        check_address("10.1.2.3", Policy.PUBLIC)
    with pytest.raises(AddressRefused, match=r"which stands for 169\.254\.169\.254, .*\(cloud metadata, as NAT64\)"):
        check_address("64:ff9b::a9fe:a9fe", Policy.LOOPBACK)


def test_whatever_python_calls_not_global_is_not_public() -> None:
    """The library's table as a second opinion, all over both spaces. The reverse does not hold, hence our own."""
    samples: list[Any] = [ipaddress.IPv4Address(high << 16 | low) for high in range(1 << 16) for low in (0, 0xFFFF)]
    samples += [
        ipaddress.IPv6Address(high << 112 | rest)
        for high in range(1 << 16)
        for rest in (1, 1 << 96 | 1, (1 << 112) - 1)
    ]
    refused = [address for address in samples if not address.is_global or address.is_multicast]
    assert len(refused) > 19_000
    classify_uncached = classify.__wrapped__
    assert [address for address in refused if classify_uncached(address).reach is Policy.PUBLIC] == []


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "2130706433", "0x7f.1", "0x7f000001", "127.1", "0177.0.0.1", "127.0.0.1 ", "127.0.0.1:80",
     "\uff11\uff12\uff17.0.0.1", "\u0661.0.0.1", "[::1]", "::1%", "::ffff:127.0.0.1.1", "1.2.3.4/32", "x" * 10_000],
)  # fmt: skip
def test_texts_that_are_no_address_are_refused(text: str) -> None:
    for policy in POLICIES:
        with pytest.raises(AddressRefused):
            check_address(text, policy)


def test_other_types_are_refused() -> None:
    for odd in (2130706433, b"\x7f\x00\x00\x01", None, ("127.0.0.1", 80)):
        value: Any = odd
        with pytest.raises(AddressRefused):
            check_address(value, Policy.LOOPBACK)


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f.1", "0x7f000001", "127.1", "0177.0.0.1", "\uff11\uff12\uff17.0.0.1"]
)
def test_disguised_loopback_is_seen_once_resolved(host: str) -> None:
    """These pass as host names; the resolver turns them into 127.0.0.1, which is what is judged."""
    url = check_url(f"https://{host}/")
    answers = {str(entry[4][0]) for entry in socket.getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)}
    assert answers == {"127.0.0.1"}
    with pytest.raises(AddressRefused, match="this machine"):
        check_address(answers.pop(), Policy.PUBLIC)


def test_is_loopback() -> None:
    assert all(is_loopback(text) for text in LOOPBACK)
    assert not any(is_loopback(text) for text in PUBLIC + PRIVATE + NEVER)


# --- URLs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected", "authority"),
    [
        ("https://example.com", Url("https", "example.com", 443, "/", False), "example.com"),
        ("HTTPS://Example.COM.:443/A?b=c%20d", Url("https", "example.com", 443, "/A?b=c%20d", False), "example.com"),
        ("https://example.com:8443?x", Url("https", "example.com", 8443, "/?x", False), "example.com:8443"),
        ("https://a_b.internal/x@y:z", Url("https", "a_b.internal", 443, "/x@y:z", False), "a_b.internal"),
        ("https://10.0.0.1/", Url("https", "10.0.0.1", 443, "/", False), "10.0.0.1"),
        ("https://[2606:4700:0::1]:444/", Url("https", "2606:4700::1", 444, "/", False), "[2606:4700::1]:444"),
        ("https://fa\u00df.de/", Url("https", "xn--fa-hia.de", 443, "/", False), "xn--fa-hia.de"),
        ("https://\u4f8b\u3048.jp/", Url("https", "xn--r8jz45g.jp", 443, "/", False), "xn--r8jz45g.jp"),
        ("https://B\u00dccher.net/", Url("https", "xn--bcher-kva.net", 443, "/", False), "xn--bcher-kva.net"),
        ("https://\uff11\uff12\uff17.0.0.1/", Url("https", "127.0.0.1", 443, "/", False), "127.0.0.1"),
        ("http://localhost:9000/hook", Url("http", "localhost", 9000, "/hook", True), "localhost:9000"),
        ("http://a.localhost", Url("http", "a.localhost", 80, "/", True), "a.localhost"),
        ("http://127.0.0.1:1", Url("http", "127.0.0.1", 1, "/", True), "127.0.0.1:1"),
        ("http://[::1]:65535", Url("http", "::1", 65535, "/", True), "[::1]:65535"),
    ],
)  # fmt: skip
def test_urls_in_parts(text: str, expected: Url, authority: str) -> None:
    url = check_url(text)
    assert url == expected
    assert url.authority == authority
    assert check_url(str(url)) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "//example.com",
        "https:example.com",
        "https:/example.com",
        "ftp://example.com",
        "file:///etc/passwd",
        "gopher://x",
        "javascript:alert(1)",
        " https://example.com",
        "https://",
        "https:///path",
        "https://?x",
        "https://user@example.com",
        "https://user:password@example.com",
        "https://@example.com",
        "https://example.com\\@evil.com",
        "https://evil.com\\.example.com/",
        "https://example.com#f",
        "https://example.com/#",
        "https://example.com:",
        "https://example.com:0",
        "https://example.com:65536",
        "https://example.com:99999999999",
        "https://example.com:-1",
        "https://example.com:+80",
        "https://example.com: 80",
        "https://example.com:8 0",
        "https://example.com:\uff18\uff10",
        "https://example.com:80:90",
        "https://exa mple.com",
        "https://exa\tmple.com",
        "https://exa\nmple.com",
        "https://example.com\r\nHost: x",
        "https://example.com/a b",
        "https://example.com/a\nb",
        "https://example.com/\x00",
        "https://example.com/\u00e9",
        "https://example.com/a\\b",
        "https://%6c%6fcalhost/",
        "https://exa..mple.com",
        "https://.example.com",
        "https://-example.com",
        "https://example-.com",
        "https://" + "a" * 64 + ".com",
        "https://" + "a." * 127 + "com",
        "https://*.example.com",
        "https://a,b",
        "https://[::1",
        "https://::1/",
        "https://[fe80::1%25eth0]/",
        "https://[fe80::1%eth0]/",
        "https://[127.0.0.1]/",
        "https://[v1.x]/",
        "https://[::1]x/",
        "https://[]/",
        "https://\u2100.com",  # one character that becomes a/c
        "https://\ud800.com",
        "https://xn--\u00e9.com",
        "https://example.com/" + "x" * 2048,
    ],
)  # fmt: skip
def test_urls_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        check_url(text, insecure_http=True)
    assert "password" not in caught.value.message.replace("user name or password", "")
    assert len(str(caught.value)) < 250


def test_a_secret_in_the_path_is_not_shown() -> None:
    with pytest.raises(AddressRefused) as caught:
        check_url("http://hooks.example.com/services/T00/hunter2")
    assert "hunter2" not in str(caught.value)
    assert "http://hooks.example.com is cleartext" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["http://example.com", "http://10.0.0.1", "http://[fc00::1]", "http://127.1", "http://2130706433",
     "http://localhost.example.com", "http://notlocalhost"],
)  # fmt: skip
def test_cleartext_beyond_loopback_needs_the_flag(text: str) -> None:
    with pytest.raises(AddressRefused, match="--insecure-http to ureg target add"):
        check_url(text)
    assert not check_url(text, insecure_http=True).loopback_only


def test_cleartext_to_localhost_is_held_to_loopback_when_connecting() -> None:
    url = check_url("http://localhost:9000/")
    check_peer(url, "127.0.0.1", Policy.LOOPBACK)
    check_peer(url, "::1", Policy.LOOPBACK)
    with pytest.raises(AddressRefused, match="network loopback"):
        check_peer(url, "127.0.0.1", Policy.PRIVATE)
    with pytest.raises(AddressRefused, match="cleartext beyond this machine"):
        check_peer(url, "10.0.0.1", Policy.LOOPBACK)
    check_peer(check_url("http://x.example", insecure_http=True), "8.8.8.8", Policy.PUBLIC)
    check_peer(check_url("https://x.example"), "8.8.8.8", Policy.PUBLIC)


def test_an_address_in_the_url_can_be_judged_early() -> None:
    assert check_url("https://[::ffff:127.0.0.1]/").address == ipaddress.ip_address("::ffff:127.0.0.1")
    assert check_url("https://example.com/").address is None


@pytest.mark.parametrize("host", ["127.1", "0x7f.1", "2130706433", "0177.0.0.1", "127.0.1", "0x7f000001"])
def test_short_forms_of_loopback_are_not_said_to_be_beyond_this_machine(host: str) -> None:
    with pytest.raises(AddressRefused) as caught:
        check_url(f"http://{host}:9000/")
    assert caught.value.message == f"{host} is a short form of 127.0.0.1"
    assert "beyond this machine" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "meaning"),
    [("169.254.169.254", "cloud metadata"), ("2852039166", "cloud metadata"), ("0.0.0.0", "unspecified"),
     ("0", "unspecified"), ("[fd00:ec2::254]", "cloud metadata"), ("224.0.0.1", "multicast")],
)  # fmt: skip
def test_an_address_that_is_never_connected_to_is_told_before_the_cleartext(host: str, meaning: str) -> None:
    with pytest.raises(AddressRefused, match=meaning) as caught:
        check_url(f"http://{host}/")
    assert "insecure" not in str(caught.value)


@pytest.mark.parametrize("host", ["10.1", "1.2.3.4.5", "08.1", "256.1", "0x1.example", "4294967296", "9" * 11])
def test_what_is_no_short_form_of_loopback_is_plain_cleartext(host: str) -> None:
    with pytest.raises(AddressRefused, match="cleartext beyond this machine"):
        check_url(f"http://{host}/")
