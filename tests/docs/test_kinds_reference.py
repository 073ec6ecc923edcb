from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from universal_registry.kernel.loader import load_yaml
from universal_registry.registry import reference
from universal_registry.registry.catalogue import load_catalogue
from universal_registry.registry.reference import PAGE, main, render

CATALOGUE = load_catalogue()


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(CATALOGUE), "run make docs"


def test_the_page_names_every_kind_field_classification_and_older_word() -> None:
    page = render(CATALOGUE)
    for kind in CATALOGUE.kinds.values():
        section = page.split(f"\n## {kind.name}\n")[1].split("\n## ")[0]
        assert f"`{kind.plural}`" in section
        for field in kind.all_fields():
            assert f"`{field.name}`" in section
        for each in kind.classifications:
            assert f"| {each.name} |" in section
    for word in (*CATALOGUE.aliases, *CATALOGUE.legacy_tables):
        assert f"| {word} |" in page


def test_the_examples_on_the_page_are_the_catalogues() -> None:
    blocks = render(CATALOGUE).split("```yaml\n")[1:]
    shown = [load_yaml(block.split("```")[0])[0] for block in blocks]
    assert shown == [kind.example for kind in CATALOGUE.kinds.values()]


def test_the_check_tells_a_stale_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(reference, "PAGE", tmp_path / "deep" / "kinds.md")
    assert main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert main([]) == 0
    assert main(["--check"]) == 0
    assert main(["--nonsense"]) == 2
