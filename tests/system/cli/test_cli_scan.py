"""`ureg scan` on this machine: written once, unchanged the second time, what vanished only listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SOURCES = ("users", "hosts", "aliases", "environment")


def scan(ureg: Any, *words: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(ureg("scan", *SOURCES, "-n", "box", "-o", "json", *words).stdout)
    return found


def total(found: dict[str, Any], word: str) -> int:
    return sum(row[word] for row in found["sources"])


def test_a_second_scan_changes_nothing(ureg: Any) -> None:
    home = Path(ureg.environ["HOME"])
    home.joinpath(".zshrc").write_text("alias gs='git status -sb'\nalias gone=x\n")
    ureg.environ["API_TOKEN"] = "hush-hush-hush-0123456789"
    dry = scan(ureg, "--dry-run")
    assert ureg.json("status")["records"] == 0
    first = scan(ureg)
    assert total(first, "created") == total(dry, "created") == total(first, "found") > 5
    assert ureg.json("get", "alias", "gs")["spec"]["command"] == "git status -sb"
    passwd = len(Path("/etc/passwd").read_text().splitlines())
    assert len(ureg.json("get", "principal", "-n", "box")) == passwd
    assert "hush" not in ureg("get", "env_var", "-o", "json").stdout
    assert ureg.json("get", "env_var", "API_TOKEN")["spec"]["secret_value"] == {"$secret": "kept"}
    for again in (scan(ureg, "--dry-run"), scan(ureg)):
        assert (total(again, "created"), total(again, "changed"), again["vanished"]) == (0, 0, [])
        assert total(again, "unchanged") == total(first, "found")
    assert ureg.json("status")["revision"] == first["revision"]


def test_what_people_added_stays_and_what_vanished_is_theirs_to_delete(ureg: Any) -> None:
    rc = Path(ureg.environ["HOME"], ".zshrc")
    rc.write_text("alias gs='git status -sb'\nalias gone=x\n")
    scan(ureg)
    ureg("set", "alias", "gs", "-n", "box", "labels.mine=yes", "description=my note")
    ureg("set", "alias", "own", "-n", "box", "command=y")
    rc.write_text("# moved down\nalias gs='git status'\n")
    changed = scan(ureg)
    assert (total(changed, "changed"), changed["vanished"]) == (1, ["alias/gone"])
    kept = ureg.json("get", "alias", "gs", "-n", "box")
    assert (kept["spec"]["command"], kept["labels"]["mine"], kept["description"]) == ("git status", "yes", "my note")
    assert ureg("get", "alias", "-o", "name").stdout.split() == ["alias/gone", "alias/gs", "alias/own"]
    assert "scan --prune" in ureg("scan", "aliases", "-n", "box").stderr
    assert scan(ureg, "--prune", "--dry-run")["pruned"] == 0
    assert scan(ureg, "--prune")["pruned"] == 1
    assert ureg("get", "alias", "-o", "name").stdout.split() == ["alias/gs", "alias/own"]


def test_sources_are_printed_first_and_words_are_checked(offline: Any) -> None:
    done = offline("scan", "hosts", "-n", "box")
    assert done.stderr.splitlines()[0].split() == ["hosts", "/etc/hosts"]
    assert done.stdout.splitlines()[0].split()[:3] == ["SOURCE", "KIND", "FOUND"]
    assert "did you mean 'aliases'" in offline("scan", "alias", code=2).stderr
    offline("scan", "hosts", "-n", "Not A Namespace", code=6)
    offline("scan", "git", "--folder", "/no/such/folder", code=3)


def test_repositories_of_folders_not_looked_through_have_not_vanished(offline: Any, tmp_path: Path) -> None:
    for name in ("one", "two"):
        git = tmp_path / name / "repo" / ".git"
        git.mkdir(parents=True)
        git.joinpath("HEAD").write_text("ref: refs/heads/main\n")
        git.joinpath("config").write_text('[remote "origin"]\n\turl = https://example.com/x.git\n')
        git.joinpath("refs").mkdir()
        git.joinpath("objects").mkdir()
    found = offline.json("scan", "git", "--folder", str(tmp_path / "one"), "--folder", str(tmp_path / "two"))
    assert total(found, "created") == 2
    assert offline.json("scan", "git")["vanished"] == []
    git.joinpath("HEAD").unlink()
    git.joinpath("config").unlink()
    assert offline.json("scan", "git", "--folder", str(tmp_path / "one"))["vanished"] == []
    gone = offline.json("scan", "git", "--folder", str(tmp_path / "two"))["vanished"]
    assert gone == [f"repository/{tmp_path / 'two' / 'repo'}"]


def test_prune_leaves_what_another_person_of_this_machine_has(offline: Any, tmp_path: Path) -> None:
    for who in ("ada", "bob"):
        (tmp_path / who).mkdir()
        (tmp_path / who / ".zshrc").write_text(f"alias of-{who}=x\nalias pw-{who}='mysql -pSECRET'\n")
        done = offline("scan", "aliases", "-n", "box", "--prune", HOME=str(tmp_path / who))
        assert f"alias 'pw-{who}' seems to hold a secret" in done.stderr
        assert "SECRET" not in done.stdout + done.stderr
    assert offline("get", "alias", "-o", "name").stdout.split() == ["alias/of-ada", "alias/of-bob"]
    (tmp_path / "bob" / ".zshrc").write_text("alias other=x\n")
    offline("scan", "aliases", "-n", "box", "--prune", HOME=str(tmp_path / "bob"))
    assert offline("get", "alias", "-o", "name").stdout.split() == ["alias/of-ada", "alias/other"]
