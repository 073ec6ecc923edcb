"""What the readers make of a person's files: ssh, environment, repositories, certificates, looks. No secret leaves."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from universal_registry.scan import Found, Machine, Skipped, read_all
from universal_registry.scan.environment import VOLATILE
from universal_registry.scan.secrets import (
    command_holds_secret,
    holds_secret,
    secret_name,
    secret_value,
    without_credentials,
)


def put(root: Path, path: str, text: str) -> None:
    target = root / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def scan(
    root: Path, *readers: str, environ: dict[str, str] | None = None, folders: tuple[str, ...] = ()
) -> tuple[dict[str, Found], list[Skipped]]:
    machine = Machine(root, Path("/home/ada"), "box", environ or {}, tuple(map(Path, folders)), "linux")
    items = [item for _, item in read_all(machine, readers)]
    found = {f"{item.kind}/{item.name}": item for item in items if isinstance(item, Found)}
    return found, [item for item in items if isinstance(item, Skipped)]


# --- ssh ------------------------------------------------------------------------------------------------------------

SSH = """# comment
Host web1 web2 *.internal
    HostName %h.example
    User deploy
    Port=2222
    IdentityFile "~/.ssh/id with space"
host bastion !nothing
  hostname 192.0.2.9
  ProxyCommand nc --password hunter2 %h
  ForwardAgent yes
Include conf.d/*.conf missing
Match exec "touch ran"
  User never
Host web1
  User later
  Port 99999
Host *
  User everyone
  Compression yes
"""


def test_ssh_takes_the_first_value_of_each_option(tmp_path: Path) -> None:
    put(tmp_path, "/home/ada/.ssh/config", SSH)
    put(tmp_path, "/home/ada/.ssh/conf.d/10.conf", "Host included\n  HostName 192.0.2.1\n")
    put(tmp_path, "/home/ada/.ssh/conf.d/skipped.txt", "Host not-included\n")
    put(tmp_path, "/home/ada/.ssh/id_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----\nkey material\n")
    put(tmp_path, "/etc/ssh/ssh_config", "Host *\n  Port 2\n")
    found, skipped = scan(tmp_path, "ssh")
    assert set(found) == {f"host_alias/{name}" for name in ("web1", "web2", "bastion", "included")}
    assert found["host_alias/web1"].spec == {
        "hostname": "web1.example",
        "port": 2222,
        "user": "deploy",
        "identity_file": "~/.ssh/id with space",
        "file": "/home/ada/.ssh/config",
        "options": {"compression": "yes"},
    }
    assert found["host_alias/bastion"].spec == {
        "hostname": "192.0.2.9",
        "port": 2,
        "user": "everyone",
        "file": "/home/ada/.ssh/config",
        "options": {"compression": "yes", "forwardagent": "yes"},
    }
    assert [s.reason for s in skipped] == ["the Match block at line 12 is not evaluated"]
    assert "hunter2" not in repr(found)
    assert "key material" not in repr(found)


def test_ssh_includes_are_bounded(tmp_path: Path) -> None:
    put(tmp_path, "/home/ada/.ssh/config", "Host a\nInclude config\nInclude config\nInclude /home/*/x\nHost b\n")
    found, skipped = scan(tmp_path, "ssh")
    assert set(found) == {"host_alias/a", "host_alias/b"}
    assert any("too many files" in s.reason for s in skipped)
    assert len(skipped) < 2000


def test_an_ssh_pattern_cannot_stall(tmp_path: Path) -> None:
    put(tmp_path, "/home/ada/.ssh/config", f"Host {'*a' * 2000}b*\n User x\nHost {'a' * 200} [b]\n User y\n")
    found, _ = scan(tmp_path, "ssh")
    assert {name: item.spec["user"] for name, item in found.items()} == {
        f"host_alias/{'a' * 200}": "y",
        "host_alias/[b]": "y",
    }


# --- environment and secrets ----------------------------------------------------------------------------------------


def test_environment_seals_what_looks_secret_and_leaves_out_what_varies(tmp_path: Path) -> None:
    environ = {
        "HTTP_PROXY": "a",
        "http_proxy": "b",
        "DB_PASSWORD": "hunter2",
        "URL": "postgresql://me:hunter2@db/x",
        "EDITOR": "vim",
        "BAD\nNAME": "x",
        "EMPTY": "",
        **dict.fromkeys(VOLATILE, "varies"),
    }
    found, skipped = scan(tmp_path, "environment", environ=environ)
    assert {name.partition("/")[2]: item.spec for name, item in found.items()} == {
        "DB_PASSWORD": {"secret_value": "hunter2", "exported": True, "scope": "session"},
        "URL": {"secret_value": "postgresql://me:hunter2@db/x", "exported": True, "scope": "session"},
        "EDITOR": {"value": "vim", "exported": True, "scope": "session"},
        "HTTP_PROXY": {"value": "a", "exported": True, "scope": "session"},
        "http_proxy": {"value": "b", "exported": True, "scope": "session"},
        "EMPTY": {"value": "", "exported": True, "scope": "session"},
    }
    assert len(skipped) == 1


@pytest.mark.parametrize(
    "name",
    [
        "DB_PASSWORD",
        "GITHUB_TOKEN",
        "githubToken",
        "X_API_KEY",
        "APIKEY",
        "AWS_SECRET_ACCESS_KEY",
        "PGPASSWORD",
        "MY_PWD",
        "SENTRY_DSN",
        "REGISTRY_DB_PASSWORD",
        "npm_config__auth",
        "SESSION_COOKIE",
        "PASSPHRASE",
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert secret_name(name)


@pytest.mark.parametrize(
    "name", ["PATH", "PWD", "OLDPWD", "HOME", "KEYBOARD", "MONKEY", "AUTHOR", "EDITOR", "COMPASS", "SPATIAL"]
)
def test_names_of_no_secrets(name: str) -> None:
    assert not secret_name(name)


@pytest.mark.parametrize(
    "value",
    [
        "ghp_" + "a1B2c3D4" * 5,
        "AKIA" + "ABCDEFGH12345678",
        "-----BEGIN RSA PRIVATE KEY-----\nx",
        "https://u:p@host/",
        "redis://:pw@host:6379/0",
        "Bearer abcdefghijklmnop",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
        "glpat-" + "x" * 20,
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c",
        "kT9vQ2mZ8xR4wY7pL1nB6cD3fG5hJ0aS",
    ],
)
def test_values_that_are_secrets(value: str) -> None:
    assert secret_value(value)


@pytest.mark.parametrize(
    "text",
    [
        "mysql -u root -pSECRET",
        "mysqldump --opt -p'SECRET' shop",
        "TOKEN=SECRET run",
        "cd x && export githubToken=SECRET",
        "env DB_PASSWORD='SECRET' psql",
        "curl -u me:SECRET https://x",
        "curl -su 'me:SECRET' https://x",
        "curl -ume:SECRET https://x",
        "http -a me:SECRET x",
        "wget --user me --password=SECRET x",
        "tool --password SECRET",
        "tool --api-key SECRET",
        "tool --auth-token='SECRET'",
        "curl -H 'Authorization: Basic SECRET' x",
        'curl --header "X-Api-Key: SECRET" x',
        "sshpass -p SECRET ssh h",
        "docker login -u me -p SECRET",
        "redis-cli -a SECRET ping",
        'f "${API_TOKEN:-SECRET}"',
        "openssl rsa -passin pass:SECRET",
    ],
)
def test_commands_that_hold_a_secret(text: str) -> None:
    assert command_holds_secret(text)


@pytest.mark.parametrize(
    "text",
    [
        "git status -sb",
        "mysql -u root -p",
        "mysql -P3306 --protocol=tcp -u root",
        "TOKEN=$TOKEN run",
        'TOKEN="$(pass show x)" run',
        "export TOKEN=`cat x`",
        "TOKEN= run; unset TOKEN",
        "curl -u me:$TOKEN https://x",
        'curl -u "$USER:$TOKEN" https://x',
        'curl -H "Authorization: Bearer $TOKEN" https://x',
        "curl -H 'Accept: application/json' https://x",
        "docker run -u 1000:1000 -p 8080:80 x",
        "rsync -au host:/x /y",
        "docker login --password-stdin",
        'tool --password "$PASSWORD"',
        "tool --token-file ~/t",
        "sort --key=2 x",
        "[[ $key == x ]]",
        "SSH_KEY_PATH=~/.ssh/id ssh",
        "mkdir -p a/b",
        "PWD=/x make",
    ],
)
def test_commands_that_hold_none(text: str) -> None:
    assert not command_holds_secret(text)


@pytest.mark.parametrize("piece", ["curl -", "mysql ", "a-", "-a_", "KEY", "'-u ", ": "])
def test_long_source_is_judged_in_a_moment(piece: str) -> None:
    began = time.process_time()
    command_holds_secret(piece * (65_536 // len(piece)))
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    "value",
    [
        "/usr/local/bin:/usr/bin",
        "en_US.UTF-8",
        "xterm-256color",
        "https://host/path?x=1",
        "vim",
        "",
        "3.11.7",
        "/home/ada/.local/share/some-long-name/with1/Many2",
        "unix:path=/run/user/1000/bus",
        "this-is-a-rather-long-slug-number-1",
    ],
)
def test_values_that_are_none(value: str) -> None:
    assert not secret_value(value)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://user:token@host/a.git", "https://host/a.git"),
        ("https://token@host:8443/a?private_token=x#y", "https://host:8443/a"),
        ("https://user:pa/ss@host/a", "https://host/a"),
        ("https://user:p@ss@host/a", "https://host/a"),
        ("HTTPS://u:p@[2001:db8::1]:8/a", "HTTPS://[2001:db8::1]:8/a"),
        ("https://user:p:1/ss@host/a", "https://host/a"),
        ("https://host/@scope/pkg", "https://host/@scope/pkg"),
        ("https://user:0/ss@host/a", "https://host/a"),
        ("ssh://git:pw@host:22/a", "ssh://git@host:22/a"),
        ("git@host:team/a.git", "git@host:team/a.git"),
        ("git:pw@host:team/a.git", "git@host:team/a.git"),
        ("/srv/git/a.git", "/srv/git/a.git"),
        ("../a b", "../a b"),
        ("", ""),
    ],
)
def test_credentials_are_stripped_from_addresses(url: str, kept: str) -> None:
    assert without_credentials(url) == kept


WORD = st.text(alphabet="abcXYZ019-_.~!$&'()*+,;=%", min_size=1, max_size=12)


@given(
    WORD, st.text(alphabet="abc0@:/-_.~!$", min_size=1, max_size=12), st.sampled_from(["http", "https", "ftp", "ssh"])
)
def test_no_password_survives(user: str, password: str, scheme: str) -> None:
    secret = f"Q{password}Q"
    kept = without_credentials(f"{scheme}://{user}:{secret}@host.example/team/a.git")
    assert secret not in kept
    assert kept.endswith("host.example/team/a.git")
    assert not holds_secret(kept)


# --- git ------------------------------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def repository(root: Path, path: str, config: str = "", head: str = "ref: refs/heads/main\n") -> None:
    put(root, f"{path}/.git/HEAD", head)
    put(root, f"{path}/.git/config", config)


def test_repositories_with_their_head_and_remotes(tmp_path: Path) -> None:
    repository(
        tmp_path,
        "/src/a",
        '[core]\n\tbare = false\n[remote "origin"]\n\turl = https://me:hunter2@host/a.git ; note\n\tfetch = +x\n'
        '[remote "up \\"stream"] url = "git@host:b c.git"\n[branch "main"]\n\tremote = origin\n'
        "[http]\n\textraheader = AUTHORIZATION: hunter2\n",
    )
    put(tmp_path, "/src/a/.git/refs/heads/main", COMMIT + "\n")
    repository(tmp_path, "/src/packed", head="ref: refs/heads/topic/x\n")
    put(tmp_path, "/src/packed/.git/packed-refs", f"# pack-refs\n{COMMIT} refs/heads/topic/x\n^{COMMIT}\n")
    repository(tmp_path, "/src/deep/detached", head=COMMIT + "\n")
    repository(tmp_path, "/src/a/vendored")
    repository(tmp_path, "/src/node_modules/no")
    repository(tmp_path, "/src/1/2/3/4/5/6/too-deep")
    put(tmp_path, "/src/unborn/.git/HEAD", "ref: refs/heads/main")
    for name in ("HEAD", "config", "objects/x", "refs/x"):
        put(tmp_path, f"/src/bare.git/{name}", "ref: refs/heads/trunk\n" if name == "HEAD" else "")
    put(tmp_path, "/src/a/.git/worktrees/w/HEAD", "ref: refs/heads/side\n")
    put(tmp_path, "/src/a/.git/worktrees/w/commondir", "../..\n")
    put(tmp_path, "/src/a/.git/refs/heads/side", COMMIT + "\n")
    put(tmp_path, "/src/w/.git", "gitdir: ../a/.git/worktrees/w\n")
    put(tmp_path, "/src/odd/.git", "what is this")
    os.symlink("/src", tmp_path / "src" / "loop")
    found, skipped = scan(tmp_path, "git", folders=("/src", "/src", "/nowhere"))
    specs = {name.removeprefix("repository/"): item.spec for name, item in found.items()}
    assert specs == {
        "/src/a": {
            "path": "/src/a",
            "branch": "main",
            "commit": COMMIT,
            "url": "https://host/a.git",
            "remotes": {"origin": "https://host/a.git", 'up "stream': "git@host:b c.git"},
        },
        "/src/packed": {"path": "/src/packed", "branch": "topic/x", "commit": COMMIT},
        "/src/deep/detached": {"path": "/src/deep/detached", "commit": COMMIT},
        "/src/unborn": {"path": "/src/unborn", "branch": "main"},
        "/src/bare.git": {"path": "/src/bare.git", "branch": "trunk"},
        "/src/w": {
            "path": "/src/w",
            "branch": "side",
            "commit": COMMIT,
            "url": "https://host/a.git",
            "remotes": specs["/src/a"]["remotes"],
        },
    }
    assert [s.path for s in skipped] == ["/src/odd/.git"]
    assert "hunter2" not in repr(found) + repr(skipped)


@pytest.mark.parametrize(
    "head", ["ref: refs/../../secret", "ref: /etc/passwd", "ref: ", "ref: refs/heads/x\0y", "junk", ""]
)
def test_a_hostile_head_reads_nothing_else(tmp_path: Path, head: str) -> None:
    put(tmp_path, "/etc/passwd", COMMIT)
    put(tmp_path, "/src/a/secret", COMMIT)
    repository(tmp_path, "/src/a", head=head)
    found, _ = scan(tmp_path, "git", folders=("/src",))
    assert COMMIT not in repr(found["repository//src/a"].spec)


def test_a_fifo_in_a_repository_does_not_hang(tmp_path: Path) -> None:
    repository(tmp_path, "/src/a")
    (tmp_path / "src/a/.git/config").unlink()
    os.mkfifo(tmp_path / "src/a/.git/config")
    os.mkfifo(tmp_path / "src/a/.git/packed-refs")
    found, skipped = scan(tmp_path, "git", folders=("/src",))
    assert found["repository//src/a"].spec == {"path": "/src/a", "branch": "main"}
    assert [s.reason for s in skipped] == ["not a plain file"] * 2


# --- certificates ---------------------------------------------------------------------------------------------------


def certificate(name: str, *, ca: bool = True) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC)).not_valid_after(
        datetime(2040, 1, 1, tzinfo=UTC)
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def test_each_certificate_counts_once_and_the_bundle_only_alone(tmp_path: Path) -> None:
    one, two, leaf = certificate("One"), certificate("One"), certificate("Leaf", ca=False)
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    put(tmp_path, bundle, one + "text between\n" + two)
    found, _ = scan(tmp_path, "certificates")
    assert len(found) == 2  # the same common name, told apart by fingerprint
    assert {item.spec["path"] for item in found.values()} == {bundle}
    put(tmp_path, "/etc/ssl/certs/one.pem", one)
    put(tmp_path, "/etc/ssl/certs/again.crt", one + leaf)
    put(tmp_path, "/etc/ssl/certs/empty.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    put(tmp_path, "/etc/ssl/certs/bad.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    os.symlink("one.pem", tmp_path / "etc/ssl/certs/12345678.0")
    found, skipped = scan(tmp_path, "certificates")
    assert sorted((item.title, item.classification, item.spec["path"]) for item in found.values()) == [
        ("Leaf", "TlsCertificate", "/etc/ssl/certs/again.crt"),
        ("One", "CaCertificate", "/etc/ssl/certs/again.crt"),
    ]
    loaded = x509.load_pem_x509_certificate(one.encode())
    fingerprint = loaded.fingerprint(hashes.SHA256()).hex()
    assert found[f"certificate/One {fingerprint[:8]}"].spec == {
        "subject": "CN=One",
        "issuer": "CN=One",
        "serial": f"{loaded.serial_number:x}",
        "not_before": "2020-01-01T00:00:00Z",
        "not_after": "2040-01-01T00:00:00Z",
        "fingerprint_sha256": fingerprint,
        "path": "/etc/ssl/certs/again.crt",
    }
    assert [(s.path, s.reason) for s in skipped] == [
        ("/etc/ssl/certs/bad.pem", "a certificate that cannot be parsed"),
        ("/etc/ssl/certs/empty.pem", "no certificate in this file"),
    ]


# --- themes ---------------------------------------------------------------------------------------------------------


def test_themes_of_each_program(tmp_path: Path) -> None:
    config = "/home/ada/.config"
    put(
        tmp_path,
        f"{config}/kitty/kitty.conf",
        "# x\nfont_family  Fira Code\nfont_size 12.5\nbackground #000000\ncolor1 #ff0000\n",
    )
    put(
        tmp_path,
        f"{config}/alacritty/alacritty.toml",
        "[font]\nsize = 11.0\n"
        '[font.normal]\nfamily = "Mono"\n[colors.normal]\nred = "#f00"\n[colors.primary]\nbackground = "#111"\n',
    )
    put(tmp_path, f"{config}/ghostty/config", "theme = nord\npalette = 1=#bf616a\nfont-family = Iosevka\n")
    put(
        tmp_path,
        f"{config}/foot/foot.ini",
        "[main]\nfont=Mono:size=9\n[colors]\nregular1=ff0000\nbright1=ff5555\nbackground=000000\n",
    )
    put(tmp_path, "/home/ada/.Xresources", "! no\n*background: #222\nXTerm.vt100.faceName: Mono\n*color9: #f55\n")
    put(
        tmp_path,
        "/home/ada/.wezterm.lua",
        "config.color_scheme = 'Batman' -- color_scheme = 'no'\nconfig.font = wezterm.font('Hack')\n",
    )
    put(
        tmp_path,
        f"{config}/Code/User/settings.json",
        '{\n // note\n "workbench.colorTheme": "One // Dark", /* x */\n "editor.fontSize": 13,\n}\n',
    )
    put(tmp_path, f"{config}/VSCodium/User/settings.json", "{ not json")
    found, skipped = scan(tmp_path, "themes")
    themes = {name.removeprefix("theme/"): item.spec for name, item in found.items() if item.kind == "theme"}
    assert {name: (spec.get("font"), spec.get("palette"), spec.get("settings")) for name, spec in themes.items()} == {
        "kitty": ("Fira Code 12.5", "kitty", None),
        "alacritty": ("Mono 11", "alacritty", None),
        "ghostty": ("Iosevka", "ghostty", {"theme": "nord"}),
        "foot": ("Mono:size=9", "foot", None),
        "xresources": ("Mono", "xresources", None),
        "wezterm": ("Hack", None, {"theme": "Batman"}),
        "code": ("13", None, {"theme": "One // Dark"}),
    }
    assert found["palette/foot"].spec == {"colors": {"red": "ff0000", "bright_red": "ff5555"}, "background": "000000"}
    assert found["palette/xresources"].spec["colors"] == {"bright_red": "#f55"}
    assert [s.reason for s in skipped] == ["not what codium writes"]


def test_no_theme_files_no_themes(tmp_path: Path) -> None:
    put(tmp_path, "/home/ada/.config/kitty/kitty.conf", "# only comments\nshell zsh\n")
    assert scan(tmp_path, "themes") == ({}, [])


def test_many_ssh_hosts_are_matched_in_time(tmp_path: Path) -> None:
    text = "".join(f"Host h{i}\n  User u{i}\n" for i in range(20_000)) + "Host h* !h7\n  Port 7\n"
    put(tmp_path, "/home/ada/.ssh/config", text)
    found, skipped = scan(tmp_path, "ssh")  # the suite's time limit is the assertion
    assert len(found) == 20_000
    assert found["host_alias/h9"].spec["port"] == 7
    assert "port" not in found["host_alias/h7"].spec
    put(tmp_path, "/home/ada/.ssh/config", "Host h\n" + "Host *\n" * 501)
    found, skipped = scan(tmp_path, "ssh")
    assert found == {}
    assert [s.reason for s in skipped] == ["more than 500 Host blocks with patterns"]
