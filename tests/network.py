"""A network of tests: hosts in network namespaces of their own on one bridge, whose cables are pulled, lose packets, or
carry nothing one way. Packets are dropped by the kernel (BPF classifiers), where TCP feels it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from ipaddress import IPv4Address

import pytest

_NET = "10.213.7"
_PASS, _DROP = 0xFFFFFFFF, 2
_RANDOM = 0xFFFFF000 + 56
"""Where a classifier finds a random word (SKF_AD_OFF + SKF_AD_RANDOM)."""
_LOAD, _IS_AT_LEAST, _IS_EQUAL, _RETURN = 0x20, 0x35, 0x15, 0x06
_TO_ADDRESS = 30
"""Of the destination, in an Ethernet frame with an IPv4 packet."""


class Network:
    """`count` hosts, numbered from 1. Skips the test where this machine cannot."""

    def __init__(self, count: int) -> None:
        if shutil.which("ip") is None or shutil.which("tc") is None or os.geteuid():
            pytest.skip("network namespaces need root, ip and tc")
        self._prefix = f"ureg{os.getpid()}"
        self._hub = f"{self._prefix}hub"
        self.count = count
        _can("ip", "netns", "add", self._hub)
        try:
            _can("ip", "-n", self._hub, "link", "add", "bridge", "type", "bridge")
            _run("ip", "-n", self._hub, "link", "set", "bridge", "up")
            for number in self.hosts:
                self._add(number)
            self._blocked: dict[int, set[int]] = {number: set() for number in self.hosts}
            self._losing: dict[int, int] = dict.fromkeys(self.hosts, 0)
            self.lose(1, 50)
            self.lose(1, 0)
        except BaseException:
            self.close()
            raise

    @property
    def hosts(self) -> range:
        return range(1, self.count + 1)

    def _add(self, number: int) -> None:
        name = self._name(number)
        _can("ip", "netns", "add", name)
        _can(
            "ip", "link", "add", "cable", "netns", name, "type", "veth", "peer", "name", f"port{number}",
            "netns", self._hub,
        )  # fmt: skip
        _run("ip", "-n", self._hub, "link", "set", f"port{number}", "master", "bridge", "up")
        _run("ip", "-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "cable")
        _run("ip", "-n", name, "link", "set", "cable", "up")
        _run("ip", "-n", name, "link", "set", "lo", "up")

    def _name(self, number: int) -> str:
        return f"{self._prefix}h{number}"

    def address(self, number: int) -> str:
        """The host's IPv4 address."""
        return f"{_NET}.{number}"

    def on(self, number: int, *command: str) -> tuple[str, ...]:
        """The command, run on that host."""
        return ("ip", "netns", "exec", self._name(number), *command)

    # --- what goes wrong -----------------------------------------------------------------------------------------

    def pull(self, number: int) -> None:
        """Its cable is out."""
        _run("ip", "-n", self._hub, "link", "set", f"port{number}", "down")

    def block(self, source: int, *sinks: int) -> None:
        """What one host sends to some others is lost; what they send arrives."""
        self._blocked[source] |= set(sinks)
        self._classify(source)

    def lose(self, number: int, percent: int) -> None:
        """So many of a hundred packets that a host sends are lost."""
        self._losing[number] = percent
        self._classify(number)

    def lost(self, number: int) -> int:
        """How many packets of a host were dropped since its classifiers were set."""
        told = subprocess.run(
            ["tc", "-n", self._name(number), "-s", "-j", "qdisc", "show", "dev", "cable"],
            capture_output=True, check=True,
        )  # fmt: skip
        return sum(each.get("drops", 0) for each in json.loads(told.stdout) if each["kind"] == "clsact")

    def mend(self, *numbers: int) -> None:
        """All is well again, at these hosts or everywhere."""
        for number in numbers or self.hosts:
            _run("ip", "-n", self._hub, "link", "set", f"port{number}", "up")
            self._blocked[number], self._losing[number] = set(), 0
            self._classify(number)

    def _classify(self, number: int) -> None:
        at = ("-n", self._name(number))
        subprocess.run(["tc", *at, "qdisc", "del", "dev", "cable", "clsact"], capture_output=True, check=False)
        wanted = [_when(_TO_ADDRESS, _IS_EQUAL, int(IPv4Address(self.address(sink)))) for sink in self._blocked[number]]
        if percent := self._losing[number]:
            wanted.append(_when(_RANDOM, _IS_AT_LEAST, (1 << 32) * (100 - percent) // 100))
        if not wanted:
            return
        _can("tc", *at, "qdisc", "add", "dev", "cable", "clsact")
        for code in wanted:
            _can("tc", *at, "filter", "add", "dev", "cable", "egress", "bpf", "da", "bytecode", code)

    def close(self) -> None:
        for name in (self._hub, *map(self._name, self.hosts)):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _when(where: int, test: int, word: int) -> str:
    """Drop a packet whose word there passes the test."""
    steps = ((_LOAD, 0, 0, where), (test, 0, 1, word), (_RETURN, 0, 0, _DROP), (_RETURN, 0, 0, _PASS))
    return ",".join([str(len(steps)), *(" ".join(map(str, step)) for step in steps)])


def _run(*command: str) -> None:
    subprocess.run(command, capture_output=True, check=True)


def _can(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no such network here: {' '.join(command[:4])}: {done.stderr.strip()[:200]}")
