from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema_rs
import pytest

from universal_registry.kernel.errors import Invalid
from universal_registry.registry import catalogue as module
from universal_registry.registry.catalogue import Field, FieldType, Kind, load_catalogue, read_catalogue
from universal_registry.registry.jsonschema import json_schema
from universal_registry.registry.record import CONTENT_FIELDS, META_FIELDS
from universal_registry.registry.validate import validate_spec
from universal_registry.registry.words import ENVELOPE, digest_of_source, near

CATALOGUE = load_catalogue()
KINDS = list(CATALOGUE.kinds.values())
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)

OLDER_CLASSIFICATIONS = (
    """
zsh config, zsh scripts, zsh functions, zsh aliases, zsh prompts, zsh themes, zsh plugins, palettes, glyphs, animations,
depth characters, particle effects, UI primitives, menu layouts, documentations, capabilities, swarm agents,
orchestrators, networks, optimizers, learners, agents, services, engines, plugins, prompts, models, embeddings, skills,
memory, APIs, webhooks, integrations, resources, assets, infrastructure, components, pipelines, datasets, knowledge,
search, event schemas, task schemas, templates, workflows, features, incidents, violations, projects, organizations,
users, tenants, widgets, notifications, communications, modality, multimodal, hot-swap components, streaming endpoints,
propagation chains
""".replace("\n", " ")
    .strip()
    .split(", ")
)

OLDER_TABLES = {
    "components",
    "palettes",
    "visuals",
    "animations",
    "aliases",
    "paths",
    "symlinks",
    "commands",
    "prompts",
    "integrations",
    "models",
    "apis",
    "webhooks",
    "services",
    "plugins",
    "resources",
    "tasks",
    "workflows",
    "projects",
    "widgets",
    "hot_swap_components",
    "streams",
    "events",
    "agents",
    "propagation_chains",
    "subregistries",
    "relationships",
    "dependencies",
    "health",
    "lifecycle",
    "documentations",
    "capabilities",
}


def all_fields(kind: Kind) -> list[tuple[str, Field]]:
    def below(fields: tuple[Field, ...], path: str) -> list[tuple[str, Field]]:
        found = []
        for field in fields:
            found.append((f"{path}{field.name}", field))
            found += below(field.fields, f"{path}{field.name}.")
            if field.items is not None:
                found += below((field.items,), f"{path}{field.name}[]")
        return found

    return below(kind.all_fields(), "")


def test_forty_two_kinds_and_their_classifications() -> None:
    assert len(KINDS) == 42
    assert sum(kind.tier == "core" for kind in KINDS) == 28
    assert sum(kind.tier == "extended" for kind in KINDS) == 14
    families = [kind.family for kind in KINDS]
    assert {family: families.count(family) for family in families} == {
        "entities": 10,
        "visuals": 6,
        "aliases": 6,
        "configs": 6,
        "extended": 14,
    }
    names = [each.name for kind in KINDS for each in kind.classifications]
    assert len(names) == len(set(names)) == 171


def test_plurals_are_unique_and_no_singular_of_another() -> None:
    words = [word for kind in KINDS for word in {kind.name, kind.plural}]
    assert len(words) == len(set(words))


@every_kind
def test_no_field_bears_the_name_of_an_envelope_column(kind: Kind) -> None:
    taken = {"kind", *ENVELOPE, *CONTENT_FIELDS, *META_FIELDS, "rowid", "oid", "_rowid_"}
    names = [field.name for field in kind.all_fields()]
    assert not taken & {name.casefold() for name in names}
    assert len(names) == len({name.casefold() for name in names})


def test_the_envelope_holds_every_part_of_a_record() -> None:
    assert set(ENVELOPE) == {*CONTENT_FIELDS, *META_FIELDS, "namespace", "name", "managers"}


@every_kind
def test_the_example_is_valid_and_conforms_to_the_schema(kind: Kind) -> None:
    example = kind.example
    assert validate_spec(kind, example["classification"], example["spec"], strict=True) == []
    schema = json_schema(kind)
    jsonschema_rs.meta.validate(schema)
    jsonschema_rs.Draft202012Validator(schema).validate(example)


@every_kind
def test_every_field_is_documented_and_its_references_exist(kind: Kind) -> None:
    assert kind.doc
    assert all(each.doc for each in kind.classifications)
    for path, field in all_fields(kind):
        assert field.doc or path.endswith("]"), path
        assert all(ref in CATALOGUE.kinds for ref in field.refs), path


@every_kind
def test_secret_paths_are_exactly_the_secret_fields_and_none_is_indexed(kind: Kind) -> None:
    secrets = [path for path, field in all_fields(kind) if field.secret]
    assert [".".join(path) for path in kind.secret_paths] == secrets
    assert not any(field.index for _, field in all_fields(kind) if field.holds_secret)
    assert not {path[0] for path in kind.secret_paths} & set(kind.columns)


@every_kind
def test_indexes_are_few(kind: Kind) -> None:
    assert sum(field.index for field in kind.all_fields()) <= 2


def test_what_the_other_parts_read_is_there() -> None:
    wanted = {
        "endpoint": "url protocol port host address process health_url delivery",
        "policy": "rules propagation",
        "host": "hostname os kernel arch cpus memory_bytes interfaces addresses",
        "principal": "uid_number gid home shell members login",
        "package": "version architecture manager installed_size location",
        "command": "path interpreter size mode command",
        "symlink": "source target exists",
        "host_alias": "address aliases hostname port user identity_file options",
        "service": "port protocol unit state version host command listens",
        "env_var": "value secret_value exported scope",
        "alias": "command shell file line global",
        "function": "body shell file line",
        "repository": "url path branch commit dirty remotes",
        "certificate": "subject issuer serial not_before not_after fingerprint_sha256 path",
        "theme": "surface palette font background foreground settings",
        "path": "path category priority exists",
    }
    for name, fields in wanted.items():
        assert set(fields.split()) <= set(CATALOGUE.kinds[name].by_name), name
    secrets = ("credential", "secret", "previous_secret", "seal_key", "previous_seal_key")
    assert CATALOGUE.kinds["endpoint"].secret_paths == tuple(("delivery", name) for name in secrets)
    assert CATALOGUE.kinds["service"].by_name["host"].refs == ("host",)
    interface = CATALOGUE.kinds["host"].by_name["interfaces"].items
    assert interface is not None
    assert interface.by_name.keys() == {"name", "mac", "addresses"}


@every_kind
def test_a_kind_answers_to_singular_and_plural_in_any_spelling(kind: Kind) -> None:
    for word in (kind.name, kind.plural):
        for spelling in (word, word.upper(), word.replace("_", "-"), word.replace("_", " ").title()):
            assert CATALOGUE.kind(spelling) is kind


def test_an_unknown_kind_is_met_with_the_nearest() -> None:
    with pytest.raises(Invalid, match=r"unknown kind 'servce' \(did you mean 'service'\?\)") as caught:
        CATALOGUE.kind("servce")
    assert caught.value.data["did_you_mean"] == ["service"]
    with pytest.raises(Invalid, match="lists them") as caught:
        CATALOGUE.kind("xyzzy")
    assert caught.value.data["did_you_mean"] == []


def test_a_long_unknown_word_is_shortened() -> None:
    with pytest.raises(Invalid) as caught:
        CATALOGUE.kind("x" * 100_000)
    assert len(caught.value.message) < 120


def test_nothing_is_near_a_very_long_word() -> None:
    assert near("x" * 64, ("x" * 64,)) == ["x" * 64]
    assert near("x" * 65, ("x" * 65,)) == []


@pytest.mark.parametrize(("word", "kind"), [("webhook", "endpoint"), ("visuals", "glyph"), ("capability", "tool")])
def test_the_name_of_an_older_table_leads_to_its_kind(word: str, kind: str) -> None:
    with pytest.raises(Invalid) as caught:
        CATALOGUE.kind(word)
    assert caught.value.data["did_you_mean"] == [kind]


def test_classifications_are_found_in_any_spelling() -> None:
    for word in ("AppService", "appservice", "app-service", "APP_SERVICE", "App Service"):
        assert CATALOGUE.classification(word).name == "AppService"
    with pytest.raises(Invalid, match="unknown classification 'AppServise'") as caught:
        CATALOGUE.classification("AppServise")
    assert caught.value.data["did_you_mean"][0] == "AppService"


def test_every_older_classification_has_a_home() -> None:
    assert len(OLDER_CLASSIFICATIONS) == 60
    names = {each.name for kind in KINDS for each in kind.classifications}
    for word in OLDER_CLASSIFICATIONS:
        assert CATALOGUE.classification(word).name in names
    assert CATALOGUE.classification("ZSH_Plugins").name == "ZshPlugin"


def test_every_older_table_has_a_home() -> None:
    assert set(CATALOGUE.legacy_tables) == OLDER_TABLES
    for name in OLDER_TABLES:
        table = CATALOGUE.legacy_tables[name]
        if table.kind is None:
            assert table.becomes != "records"
            continue
        assert table.classification is None or CATALOGUE.classification(table.classification).kind == table.kind
        assert table.kind in CATALOGUE.kinds
    assert CATALOGUE.legacy_table("subregistry") is CATALOGUE.legacy_tables["subregistries"]
    assert CATALOGUE.legacy_table("no such") is None


def test_children_include_the_classification_and_all_below() -> None:
    assert CATALOGUE.children("AppService") == {"AppService", "WebService", "ApiService", "WorkerService"}
    assert CATALOGUE.children("languagemodel") == {"LanguageModel", "MultimodalModel"}
    assert CATALOGUE.children("ApiService") == {"ApiService"}
    for kind in KINDS:
        for each in kind.classifications:
            if each.parent:
                assert CATALOGUE.children(each.name) < CATALOGUE.children(each.parent)


def test_a_child_inherits_what_its_parent_adds() -> None:
    assert "hypervisor" in CATALOGUE.classification("ContainerHost").by_name


def test_the_compiled_catalogue_is_read_without_yaml_and_quickly() -> None:
    load_catalogue()
    code = (
        "import msgspec, resource, sys\n"
        "from universal_registry.registry.catalogue import load_catalogue\n"
        "used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_utime\n"
        "load_catalogue(); best = 1.0\n"
        "for _ in range(5):\n"
        "    load_catalogue.cache_clear(); before = used(); load_catalogue(); best = min(best, used() - before)\n"
        "print(best, 'ruamel.yaml' in sys.modules, 'difflib' in sys.modules)\n"
    )
    root = Path(module.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    seconds, yaml, difflib = done.stdout.split()
    assert (yaml, difflib) == ("False", "False")
    assert float(seconds) < 0.05  # 2.5 ms here; the bound allows for a busy machine


SMALL = b"""
kinds:
  thing:
    plural: things
    tier: core
    family: f
    doc: d
    fields: {size: integer}
    classifications: {Plain: p}
    example: {name: a}
aliases: {}
legacy_tables: {}
"""


def test_stale_or_absent_json_is_compiled_anew(tmp_path: Path) -> None:
    source, compiled = tmp_path / "c.yaml", tmp_path / "c.json"
    source.write_bytes(SMALL)
    assert read_catalogue(source, compiled).kind("things").name == "thing"
    assert json.loads(compiled.read_bytes())["source"] == digest_of_source(SMALL)
    first = compiled.stat()
    read_catalogue(source, compiled)
    assert compiled.stat().st_ino == first.st_ino  # current: not written again
    source.write_bytes(SMALL.replace(b"things", b"gadgets"))
    os.utime(source, (1, 1))  # older than the JSON, yet its text is other
    assert read_catalogue(source, compiled).kind("gadgets").name == "thing"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.json", "c.yaml"]


def test_json_alone_is_enough_and_nothing_is_an_error(tmp_path: Path) -> None:
    source, compiled = tmp_path / "c.yaml", tmp_path / "c.json"
    source.write_bytes(SMALL)
    read_catalogue(source, compiled)
    source.unlink()
    assert read_catalogue(source, compiled).kind("thing").plural == "things"
    compiled.unlink()
    with pytest.raises(Invalid, match="neither"):
        read_catalogue(source, compiled)


def test_a_folder_that_cannot_be_written_is_no_hindrance(tmp_path: Path) -> None:
    source = tmp_path / "c.yaml"
    source.write_bytes(SMALL)
    # A path below a file cannot be written by anyone, root included.
    assert read_catalogue(source, source / "c.json").kind("thing").plural == "things"


def test_field_types_are_the_json_types() -> None:
    assert {each.value for each in FieldType} == {"string", "integer", "number", "boolean", "object", "array", "any"}
