"""Documents from files and folders: found in order, recognised, refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from universal_registry.cli.documents import gather, read_documents
from universal_registry.kernel.errors import Malformed, NotFound, RegistryError, TooLarge, UsageError


def write(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "a: 1\n---\na: 2\n"),
        ("a.YML", "- a: 1\n- a: 2\n"),
        ("a.json", '[{"a": 1}, {"a": 2}]'),
        ("a.ndjson", '{"a": 1}\n\n{"a": 2}\n'),
        ("a.txt", '{"a": 1}\n{"a": 2}\n'),
        ("b.txt", '[{"a": 1},\n {"a": 2}]'),
        ("c", "a: 1\n---\na: 2\n"),
    ],
)
def test_every_language(tmp_path: Path, name: str, text: str) -> None:
    assert read_documents(write(tmp_path / name, text)) == [{"a": 1}, {"a": 2}]


def test_json_over_several_lines_is_one_document(tmp_path: Path) -> None:
    assert read_documents(write(tmp_path / "a", '{"a":\n 1}\n')) == [{"a": 1}]


def test_a_folder_is_read_in_order_without_what_is_hidden_or_foreign(tmp_path: Path) -> None:
    for name in ("b/2.yaml", "a/1.yml", "z.json", ".hidden.yaml", ".git/x.yaml", "README.md"):
        write(tmp_path / name, f'{{"n": "{name}"}}')
    assert [each.value["n"] for each in gather((str(tmp_path),))] == ["z.json", "a/1.yml", "b/2.yaml"]


def test_each_document_knows_its_place(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "a: 1\n---\na: 2\n")
    assert [each.place for each in gather((path,))] == [f"{path}, document 1", f"{path}, document 2"]


def test_errors_name_the_file(tmp_path: Path) -> None:
    broken = write(tmp_path / "broken.json", '{"a": 1, "a": 2}')
    with pytest.raises(Malformed, match=r"broken\.json: key"):
        gather((broken,))
    with pytest.raises(NotFound, match="nothing"):
        gather((str(tmp_path / "nothing.yaml"),))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(NotFound, match="no documents"):
        gather((str(empty),))
    with pytest.raises(UsageError):
        read_documents(str(tmp_path))
    with pytest.raises(RegistryError):
        gather(("a\0b",))


def test_there_is_a_limit(tmp_path: Path) -> None:
    many = write(tmp_path / "many.ndjson", "{}\n" * 10_001)
    with pytest.raises(TooLarge):
        gather((many,))
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        os.ftruncate(file.fileno(), (16 << 20) + 1)
    with pytest.raises(TooLarge):
        gather((str(large),))


def test_what_is_no_plain_file_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    """Opening a FIFO waits for a writer that never comes."""
    (tmp_path / "a.yaml").write_text("kind: alias\nname: gs\nspec: {command: x}\n")
    os.mkfifo(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").symlink_to(tmp_path / "nowhere.yaml")
    assert [placed.value["name"] for placed in gather((str(tmp_path),))] == ["gs"]
