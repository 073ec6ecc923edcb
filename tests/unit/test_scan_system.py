"""What the readers make of a system tree: accounts, packages, commands, links, hosts, services, units, sockets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from universal_registry.scan import Found, Machine, Skipped, read_all


def put(root: Path, path: str, text: str | bytes, mode: int = 0o644) -> None:
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(text.encode() if isinstance(text, str) else text)
    target.chmod(mode)


def link(root: Path, path: str, target: str) -> None:
    (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    (root / path.lstrip("/")).symlink_to(target)


def scan(root: Path, *readers: str, path: str = "") -> tuple[dict[str, Found], list[Skipped]]:
    machine = Machine(root, Path("/home/ada"), "box", {"PATH": path}, (), "linux")
    items = [item for _, item in read_all(machine, readers)]
    found = {item.name: item for item in items if isinstance(item, Found)}
    assert len(found) == sum(isinstance(item, Found) for item in items)
    return found, [item for item in items if isinstance(item, Skipped)]


def test_users_and_groups_share_a_kind_but_no_name(tmp_path: Path) -> None:
    put(
        tmp_path,
        "/etc/passwd",
        "root:x:0:0:root:/root:/bin/bash\ndaemon:$6$old$hash:1:1::/usr/sbin:/usr/sbin/nologin\n"
        "ada:x:1000:1000:Ada L,,,:/home/ada:/bin/zsh\nada:x:1001:1001::/x:/bin/sh\n+::::::\nbroken:line\n"
        "huge:x:99999999999999999999:1::/:/bin/sh\n",
    )
    put(tmp_path, "/etc/group", "root:x:0:\nwheel:x:10:root,ada\n")
    found, skipped = scan(tmp_path, "users", "groups")
    assert {name: item.classification for name, item in found.items()} == {
        "root": "HumanUser",
        "daemon": "ServiceAccount",
        "ada": "HumanUser",
        "group:root": "Team",
        "group:wheel": "Team",
    }
    assert found["ada"].spec == {
        "login": "ada",
        "uid_number": 1000,
        "gid": 1000,
        "home": "/home/ada",
        "shell": "/bin/zsh",
        "full_name": "Ada L",
    }
    assert found["daemon"].spec["locked"] is True
    assert found["group:wheel"].spec == {"gid": 10, "members": ["root", "ada"]}
    assert "hash" not in repr(found)
    assert [s.reason for s in skipped] == [
        "line 4 repeats 'ada'",
        "line 6 has 2 fields instead of 7",
        "user 'huge' has no usable uid and gid",
    ]


DPKG = """Package: dpkg
Status: install ok installed
Architecture: amd64
Version: 1.22
Installed-Size: 10

Package: g++
Status: install ok installed
Architecture: amd64
Version: 4:12.2.0-3
Installed-Size: 13
Description: GNU C++ compiler
 Long text: with
 Version: not this

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36

Package: libc6
Status: install ok installed
Architecture: i386
Version: 2.36

Package: tzdata
Status: hold ok config-files
Architecture: all
Version: 2024a

Package: gone
Status: purge ok not-installed
Architecture: amd64

Status: install ok installed

"""


def test_dpkg_keeps_plain_names_and_lists_what_dpkg_query_lists(tmp_path: Path) -> None:
    put(tmp_path, "/var/lib/dpkg/status", DPKG)
    found, skipped = scan(tmp_path, "dpkg")
    assert set(found) == {"dpkg", "g++", "libc6", "libc6:i386", "tzdata"}
    assert found["g++"].title == "GNU C++ compiler"
    assert found["g++"].spec == {
        "version": "4:12.2.0-3",
        "architecture": "amd64",
        "manager": "dpkg",
        "installed_size": 13 * 1024,
    }
    assert found["tzdata"].spec["state"] == "config-files"
    assert [s.reason for s in skipped] == ["an entry without a Package field"]


def test_pip_and_npm_names_do_not_depend_on_what_else_is_installed(tmp_path: Path) -> None:
    site = "/usr/lib/python3/dist-packages"
    own = "/home/ada/.pyenv/versions/3.12.1/lib/python3.12/site-packages"
    metadata = "Metadata-Version: 2.1\nName: Py_YAML\nVersion: 6.0\nSummary: YAML\n\nName: not this\n"
    put(tmp_path, f"{site}/PyYAML-6.0.dist-info/METADATA", metadata)
    put(tmp_path, f"{site}/old.egg-info", "Name: old\nVersion: 1\n")
    put(tmp_path, f"{site}/older.egg-info/PKG-INFO", "Name: older\nVersion: 2\n")
    put(tmp_path, f"{site}/broken.dist-info/METADATA", b"\xff\xfe")
    alone, skipped = scan(tmp_path, "pip", path="/usr/bin")
    assert set(alone) == {f"pip:{name}@{site}" for name in ("py-yaml", "old", "older")}
    assert alone[f"pip:py-yaml@{site}"].spec == {"version": "6.0", "manager": "pip", "location": site}
    assert [s.reason for s in skipped] == ["no name in the metadata of a distribution"]
    put(tmp_path, f"{own}/PyYAML-6.1.dist-info/METADATA", metadata)
    both, _ = scan(tmp_path, "pip", path="/usr/bin:/home/ada/.pyenv/shims")
    assert {name: both[name] for name in alone} == alone
    assert set(both) - set(alone) == {f"pip:py-yaml@{own}"}


def test_npm_reads_scopes_and_refuses_what_is_no_object(tmp_path: Path) -> None:
    modules = "/usr/lib/node_modules"
    put(tmp_path, f"{modules}/@scope/pkg/package.json", '{"name": "x", "version": "1.2.3", "description": "A\\nB"}')
    put(tmp_path, f"{modules}/odd/package.json", '{"version": 7}')
    put(tmp_path, f"{modules}/list/package.json", "[]")
    put(tmp_path, f"{modules}/deep/package.json", "[" * 100_000)
    put(tmp_path, f"{modules}/bytes/package.json", b"\xff")
    put(tmp_path, f"{modules}/.bin/package.json", "{}")
    found, skipped = scan(tmp_path, "npm", path="/usr/bin:/bin")
    assert set(found) == {f"npm:@scope/pkg@{modules}", f"npm:odd@{modules}"}
    assert found[f"npm:@scope/pkg@{modules}"].title == "A B"
    assert found[f"npm:odd@{modules}"].spec == {"manager": "npm", "location": modules}
    assert [s.path for s in skipped] == [f"{modules}/{name}/package.json" for name in ("bytes", "deep", "list")]


def test_commands_are_named_by_their_real_path_once(tmp_path: Path) -> None:
    put(tmp_path, "/usr/bin/tool", "#!/usr/bin/env python3 -u\nx", 0o755)
    put(tmp_path, "/usr/bin/g++", b"\x7fELF", 0o4755)
    put(tmp_path, "/usr/bin/plain.txt", "text")
    put(tmp_path, "/usr/local/bin/tool", "#!/bin/sh", 0o755)
    link(tmp_path, "/bin", "usr/bin")
    link(tmp_path, "/usr/bin/loop", "loop")
    found, skipped = scan(tmp_path, "commands", path="/usr/local/bin:/usr/bin:/bin:/nowhere:relative")
    assert set(found) == {"/usr/local/bin/tool", "/usr/bin/tool", "/usr/bin/g++"}
    assert found["/usr/bin/tool"].spec == {
        "path": "/usr/bin/tool",
        "interpreter": "/usr/bin/env python3 -u",
        "size": 27,
        "mode": "0755",
    }
    assert (found["/usr/bin/tool"].classification, found["/usr/bin/g++"].classification) == ("ScriptCommand", None)
    assert found["/usr/bin/g++"].spec["mode"] == "4755"
    assert [s.reason for s in skipped] == ["a loop of symbolic links"]
    entries, _ = scan(tmp_path, "path", path="/usr/local/bin:/bin:/nowhere:/bin")
    assert [(e.name, e.spec["priority"], e.spec["exists"]) for e in entries.values()] == [
        ("/usr/local/bin", 1, True),
        ("/bin", 2, True),
        ("/nowhere", 3, False),
    ]


def test_links_say_where_they_lead_and_whether_it_is_there(tmp_path: Path) -> None:
    put(tmp_path, "/usr/bin/vim", "")
    put(tmp_path, "/etc/alternatives/README", "not a link")
    link(tmp_path, "/etc/alternatives/editor", "/usr/bin/vim")
    link(tmp_path, "/etc/alternatives/editor.1.gz", "/usr/share/man/vim.1.gz")
    link(tmp_path, "/home/ada/.zshrc", "dotfiles/zshrc")
    link(tmp_path, "/home/ada/visible", "dotfiles")
    link(tmp_path, "/home/ada/.config/nvim", "../dotfiles/nvim")
    found, _ = scan(tmp_path, "symlinks")
    assert {name: (f.classification, f.spec["target"], f.spec["exists"]) for name, f in found.items()} == {
        "/etc/alternatives/editor": ("BinarySymlink", "/usr/bin/vim", True),
        "/etc/alternatives/editor.1.gz": ("DataSymlink", "/usr/share/man/vim.1.gz", False),
        "/home/ada/.zshrc": ("DotfileSymlink", "dotfiles/zshrc", False),
        "/home/ada/.config/nvim": ("DotfileSymlink", "../dotfiles/nvim", False),
    }


def test_hosts_and_services_files(tmp_path: Path) -> None:
    put(
        tmp_path,
        "/etc/hosts",
        "127.0.0.1 localhost\n::1\tlocalhost ip6-localhost # note\n192.0.2.7 web.example web\n192.0.2.7 web.example w\n"
        "nonsense here\n192.0.2.8\n",
    )
    put(
        tmp_path,
        "/etc/services",
        "# x\nssh\t22/tcp\t# SSH\ndomain 53/tcp\ndomain 53/udp ns\nssh 2222/tcp\nbad 70000/tcp\nworse\n",
    )
    found, skipped = scan(tmp_path, "hosts")
    assert {name: item.spec.get("aliases") for name, item in found.items()} == {
        "localhost@127.0.0.1": None,
        "localhost@::1": ["ip6-localhost"],
        "web.example@192.0.2.7": ["web", "w"],
    }
    assert len(skipped) == 2
    found, skipped = scan(tmp_path, "services")
    assert {name: item.spec["port"] for name, item in found.items()} == {
        "ssh/tcp": 22,
        "domain/tcp": 53,
        "domain/udp": 53,
    }
    assert found["ssh/tcp"].title == "SSH"
    assert len(skipped) == 3


def test_units_come_from_the_first_folder_and_never_run(tmp_path: Path) -> None:
    lib, etc = "/usr/lib/systemd/system", "/etc/systemd/system"
    put(
        tmp_path,
        f"{lib}/ssh.service",
        "[Unit]\nDescription=OpenSSH\n[Service]\nExecStart=/usr/sbin/sshd \\\n  -D\n[Install]\nWantedBy=x\n",
    )
    put(tmp_path, f"{lib}/ssh.socket", "[Socket]\nListenStream=22\nListenStream=[::]:22\n")
    put(tmp_path, f"{lib}/over.service", "[Service]\nExecStart=/bin/old\n")
    put(tmp_path, f"{etc}/over.service", "[Service]\nExecStart=/bin/first\nExecStart=\nExecStart=/bin/new\n")
    put(tmp_path, f"{lib}/getty@.service", "[Service]\nExecStart=/sbin/agetty\n[Install]\nWantedBy=x\n")
    put(tmp_path, f"{lib}/off.service", "[Install]\nWantedBy=x\n")
    put(tmp_path, f"{lib}/key.service", "[Service]\nExecStart=/bin/x --url https://me:hunter2@host/\n")
    put(tmp_path, f"{lib}/note.timer", "")
    link(tmp_path, f"{etc}/masked.service", "/dev/null")
    link(tmp_path, f"{etc}/sshd.service", f"{lib}/ssh.service")
    link(tmp_path, f"{etc}/multi-user.target.wants/ssh.service", f"{lib}/ssh.service")
    link(tmp_path, f"{etc}/getty.target.wants/getty@tty1.service", f"{lib}/getty@.service")
    link(tmp_path, "/lib", "usr/lib")
    found, skipped = scan(tmp_path, "systemd")
    assert {name: (item.spec["state"], item.spec.get("command")) for name, item in found.items()} == {
        "ssh.service": ("enabled", "/usr/sbin/sshd    -D"),
        "over.service": ("static", "/bin/new"),
        "getty@.service": ("enabled", "/sbin/agetty"),
        "off.service": ("disabled", None),
        "key.service": ("static", None),
        "masked.service": ("masked", None),
    }
    assert found["ssh.service"].spec["listens"] == ["22", "[::]:22"]
    assert "hunter2" not in repr(found) + repr(skipped)


def proc_row(local: str, remote: str, state: str, inode: int) -> str:
    return f"   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0 100 0\n"


def kernel_hex(*words: int) -> str:
    return "".join(f"{int.from_bytes(word.to_bytes(4, 'big'), sys.byteorder):08X}" for word in words)


def test_listening_sockets_with_their_program(tmp_path: Path) -> None:
    anyone, v6 = kernel_hex(0) + ":0000", kernel_hex(0, 0, 0, 0) + ":0000"
    tcp = proc_row(f"{kernel_hex(0x7F000001)}:1F90", anyone, "0A", 11) + proc_row(
        f"{kernel_hex(0x7F000001)}:1F90", anyone, "0A", 12
    )
    tcp += proc_row(f"{kernel_hex(0x7F000001)}:9999", f"{kernel_hex(1)}:0050", "01", 13) + "garbage\n"
    put(tmp_path, "/proc/net/tcp", "head\n" + tcp)
    put(tmp_path, "/proc/net/tcp6", "head\n" + proc_row(f"{kernel_hex(0, 0, 0, 1)}:0016", v6, "0A", 14))
    udp = proc_row(f"{kernel_hex(0)}:0035", anyone, "07", 15) + proc_row(
        f"{kernel_hex(0)}:0036", f"{kernel_hex(1)}:0001", "07", 16
    )
    put(tmp_path, "/proc/net/udp", "head\n" + udp)
    for pid, inode, name in ((5, 11, "web"), (6, 12, "web"), (7, 14, "sshd")):
        put(tmp_path, f"/proc/{pid}/comm", f"{name}\n")
        link(tmp_path, f"/proc/{pid}/fd/3", f"socket:[{inode}]")
        link(tmp_path, f"/proc/{pid}/fd/0", "/dev/null")
    found, skipped = scan(tmp_path, "sockets")
    assert {name: item.spec for name, item in found.items()} == {
        "tcp/127.0.0.1:8080": {"address": "127.0.0.1", "port": 8080, "protocol": "tcp", "process": "web"},
        "tcp/[::1]:22": {"address": "::1", "port": 22, "protocol": "tcp", "process": "sshd"},
        "udp/0.0.0.0:53": {"address": "0.0.0.0", "port": 53, "protocol": "udp"},
    }
    assert skipped == []


def host(root: Path) -> tuple[Any, Any]:
    found, skipped = scan(root, "host")
    assert skipped == []
    return found["box"].classification, found["box"].spec


def test_the_host_from_its_files(tmp_path: Path) -> None:
    put(tmp_path, "/etc/os-release", 'NAME=x\nPRETTY_NAME="Some OS 12"\n')
    put(tmp_path, "/proc/cpuinfo", "processor\t: 0\nmodel name\t: Chip\nflags\t\t: fpu hypervisor\n\nprocessor\t: 1\n")
    put(tmp_path, "/proc/meminfo", "MemTotal:       2048 kB\nMemFree:  7 kB\n")
    put(tmp_path, "/proc/sys/kernel/osrelease", "6.1.0\n")
    put(
        tmp_path,
        "/proc/net/if_inet6",
        "fe800000000000000000000000000001 02 40 20 80 eth0\n"
        "20010db8000000000000000000000001 02 40 00 80 eth0\n"
        "20010db8000000000000000000000bad 02 40 00 01 eth0\nbroken\n",
    )
    put(
        tmp_path,
        "/proc/net/fib_trie",
        "     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 192.0.2.2\n        /32 host LOCAL\n"
        "     |-- 192.0.2.255\n        /32 link BROADCAST\n     |-- 999.1.1.1\n        /32 host LOCAL\n",
    )
    put(
        tmp_path,
        "/proc/net/route",
        f"Iface\neth0\t{kernel_hex(0)}\t{kernel_hex(0xC0000201)}\t0003\t0\t0\t0\t{kernel_hex(0)}\neth0\t{kernel_hex(0xC0000200)}\t{kernel_hex(0)}\t0001\t0\t0\t0\t{kernel_hex(0xFFFFFF00)}\nx\tzz\n",
    )
    for name, mac in (("eth0", "02:00:00:00:00:01"), ("lo", "00:00:00:00:00:00")):
        put(tmp_path, f"/sys/class/net/{name}/address", mac + "\n")
    put(tmp_path, "/sys/class/net/bonding_masters", "")
    assert host(tmp_path) == (
        "VirtualHost",
        {
            "hostname": "box",
            "os": "Some OS 12",
            "kernel": "6.1.0",
            "cpus": 2,
            "cpu_model": "Chip",
            "memory_bytes": 2 << 20,
            "interfaces": [
                {
                    "name": "eth0",
                    "mac": "02:00:00:00:00:01",
                    "addresses": ["192.0.2.2/24", "2001:db8::1/64", "fe80::1/64"],
                },
                {"name": "lo", "addresses": ["127.0.0.1/8"]},
            ],
            "addresses": ["192.0.2.2", "2001:db8::1"],
        },
    )
    put(tmp_path, "/.dockerenv", "")
    put(tmp_path, "/proc/meminfo", "MemTotal:       2048 kB\nMemFree:  99 kB\n")
    assert host(tmp_path)[0] == "ContainerHost"
    assert host(tmp_path)[1]["memory_bytes"] == 2 << 20


def test_a_machine_without_linux_files_is_still_a_host(tmp_path: Path) -> None:
    assert host(tmp_path) == ("PhysicalHost", {"hostname": "box", "os": "linux", "interfaces": [], "addresses": []})


@pytest.mark.parametrize("reader", ["dpkg", "users", "hosts", "services", "sockets", "host", "ssh", "themes"])
def test_rubbish_is_survived(tmp_path: Path, reader: str) -> None:
    rubbish = bytes(range(256)) * 40 + b"\n" + b":" * 5000 + b"\n[\x00]\n"
    for path in (
        "/var/lib/dpkg/status",
        "/etc/passwd",
        "/etc/hosts",
        "/etc/services",
        "/etc/os-release",
        "/proc/net/tcp",
        "/proc/net/if_inet6",
        "/proc/net/fib_trie",
        "/proc/net/route",
        "/proc/cpuinfo",
        "/proc/meminfo",
        "/home/ada/.ssh/config",
        "/home/ada/.config/kitty/kitty.conf",
        "/home/ada/.config/alacritty/alacritty.toml",
        "/home/ada/.Xresources",
    ):
        put(tmp_path, path, rubbish)
    found, _ = scan(tmp_path, reader)
    assert "\x00" not in "".join(map(repr, found.values())).replace("\\x00", "\x00")
