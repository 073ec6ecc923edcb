"""The machine itself: one `host` record named by the host name.

Left out: load, free memory, uptime, temporary addresses.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

from universal_registry.scan.base import Found, Source, SourceReader, always, whole

_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
_CONTAINER = ("/.dockerenv", "/run/.containerenv")
_NET = "/sys/class/net"
_IPV6_TEMPORARY = 0x01
_HEX = re.compile("[0-9a-fA-F]{1,4}")


_where = always(_RELEASE[0], "/proc/cpuinfo", "/proc/meminfo", "/proc/net", _NET)


def _find(source: Source) -> Iterator[Found]:
    interfaces = _interfaces(source)
    cpuinfo = source.text("/proc/cpuinfo") or ""
    model = re.search(r"^model name\s*:(.*)$", cpuinfo, re.MULTILINE)
    spec = {
        "hostname": source.machine.hostname,
        "os": _release(source),
        "kernel": _kernel(source),
        "arch": os.uname().machine if _is_here(source) else None,
        "cpus": len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or None,
        "cpu_model": model[1].strip() if model else None,
        "memory_bytes": _memory(source),
        "interfaces": interfaces,
        "addresses": _addresses(interfaces, source),
    }
    yield from source.found("host", source.machine.hostname, _classification(source, cpuinfo), spec)


def _is_here(source: Source) -> bool:
    return os.fspath(source.machine.root) == "/"


def _classification(source: Source, cpuinfo: str) -> str:
    if any(source.stat(path) for path in _CONTAINER):
        return "ContainerHost"
    return "VirtualHost" if re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE) else "PhysicalHost"


def _release(source: Source) -> str:
    for path in _RELEASE:
        text = source.text(path)
        if text and (match := re.search(r"^PRETTY_NAME=(.*)$", text, re.MULTILINE)):
            return match[1].strip().strip("\"'")
    return source.machine.platform


def _kernel(source: Source) -> str | None:
    release = (source.text("/proc/sys/kernel/osrelease") or "").strip()
    if release:
        return release
    return os.uname().release if _is_here(source) else None


def _memory(source: Source) -> int | None:
    match = re.search(r"^MemTotal:\s*(\d{1,15}) kB", source.text("/proc/meminfo") or "", re.MULTILINE)
    kibibytes = whole(match[1], 2**43) if match else None
    return None if kibibytes is None else kibibytes * 1024


def _interfaces(source: Source) -> list[dict[str, Any]]:
    ipv6 = _ipv6(source)
    ipv4 = _ipv4(source)
    found = []
    for name in source.names(_NET):
        if source.link(f"{_NET}/{name}") is None and not source.stat(f"{_NET}/{name}/address"):
            continue  # bonding_masters and the like
        mac = (source.text(f"{_NET}/{name}/address") or "").strip()
        found.append(
            {
                "name": name,
                "mac": mac if mac.strip("0:") else None,
                "addresses": sorted(ipv4.get(name, [])) + sorted(ipv6.get(name, [])),
            }
        )
    return found


def _addresses(interfaces: list[dict[str, Any]], source: Source) -> list[str]:
    everything = {address.partition("/")[0] for interface in interfaces for address in interface["addresses"]}
    everything.update(_local_ipv4(source))
    useful = [ipaddress.ip_address(text) for text in everything]
    ordered = sorted(useful, key=lambda address: (address.version, int(address)))
    return [str(address) for address in ordered if not (address.is_loopback or address.is_link_local)]


def _ipv6(source: Source) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (source.text("/proc/net/if_inet6") or "").splitlines():
        words = line.split()
        if (
            len(words) != 6
            or not re.fullmatch("[0-9a-fA-F]{32}", words[0])
            or not all(_HEX.fullmatch(words[i]) for i in (2, 4))
        ):
            continue
        if not int(words[4], 16) & _IPV6_TEMPORARY:
            found.setdefault(words[5], []).append(f"{ipaddress.IPv6Address(int(words[0], 16))}/{int(words[2], 16)}")
    return found


def _local_ipv4(source: Source) -> list[str]:
    """The addresses of this machine, from the kernel's local routes."""
    found: dict[str, None] = {}
    last = ""
    for line in (source.text("/proc/net/fib_trie") or "").splitlines():
        if match := re.search(r"\|-- (\d{1,3}(?:\.\d{1,3}){3})$", line):
            last = match[1]
        elif last and "/32 host LOCAL" in line:
            try:
                found[str(ipaddress.IPv4Address(last))] = None
            except ValueError:
                continue
    return list(found)


def _ipv4(source: Source) -> dict[str, list[str]]:
    """Addresses by interface: the one whose connected network holds the address (longest prefix wins)."""
    networks = [(ipaddress.IPv4Network("127.0.0.0/8"), "lo"), *_connected(source)]
    networks.sort(key=lambda pair: -pair[0].prefixlen)
    found: dict[str, list[str]] = {}
    for text in _local_ipv4(source):
        address = ipaddress.IPv4Address(text)
        for network, name in networks:
            if address in network:
                found.setdefault(name, []).append(f"{text}/{network.prefixlen}")
                break
    return found


def _connected(source: Source) -> Iterator[tuple[ipaddress.IPv4Network, str]]:
    for line in (source.text("/proc/net/route") or "").splitlines()[1:]:
        words = line.split()
        hexadecimal = all(re.fullmatch("[0-9A-F]{8}", words[i]) for i in (1, 2, 7)) if len(words) >= 8 else False
        if not hexadecimal or int(words[2], 16) or not int(words[7], 16):
            continue
        number, mask = (int.from_bytes(bytes.fromhex(words[i]), sys.byteorder) for i in (1, 7))
        try:
            yield ipaddress.IPv4Network(f"{ipaddress.IPv4Address(number)}/{ipaddress.IPv4Address(mask)}"), words[0]
        except ValueError:
            continue


READER = SourceReader(
    "host", "this machine: system, processors, memory, interfaces and addresses", ("host",), _where, _find
)
