"""Every function that the scripts of the older registry call, in the forms in which they call it, in one zsh: what each
prints, and its exit code."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator

import pytest
from fronts import ROOT, Home

FUNCTIONS = ROOT / "universal_registry" / "shell" / "zsh" / "functions"
NAMES = """
register_entity query_entities_by_classification
universal_registry_init universal_registry_with_propagation_init universal_registry_status
universal_registry_show_tables universal_registry_query universal_registry_register_entity
universal_registry_query_entity universal_registry_register_palette universal_registry_register_visual
universal_registry_register_animation universal_registry_register_alias universal_registry_register_path
universal_registry_register_symlink universal_registry_register_command universal_registry_register_prompt
universal_registry_register_zsh_config universal_registry_register_documentation
universal_registry_register_capability universal_registry_register_dependency
universal_registry_register_relationship universal_registry_query_documentation universal_registry_query_capability
universal_registry_add_dependency universal_registry_add_relationship universal_registry_list_dependencies
universal_registry_set_health universal_registry_get_health universal_registry_record_lifecycle
universal_registry_dispatch_webhook universal_registry_export_json universal_registry_export_yaml
universal_registry_demo registry_propagation_init registry_propagation_unidirectional
registry_propagation_bidirectional registry_propagation_multicast registry_propagation_broadcast
registry_propagation_chaining registry_propagation_mesh registry_propagation_fanout registry_propagation_status
registry_propagation_events registry_propagation_health registry_propagation_diagnostics
registry_stream_send registry_stream_receive registry_stream_status
registry_sync_with_nexus registry_enable_nexus_streaming registry_nexus_sync_history
"""
RECORD = r"\t\w+\t\d+\t\d+\t\S+Z\t"  # behind the name: classification, generation, revision, updated_at; then the spec
SESSION = r"[0-9a-f]{32}"
CALLS = rf"""
universal_registry_init => (created .*\n)*registry .*
universal_registry_with_propagation_init => registry .* there already.*\ndaemon started: .*
universal_registry_status => store\tsqlite\n(.*\n)*streams.messages\t0
universal_registry_show_tables => (\w+\t\d+\n){{41}}\w+\t\d+
universal_registry_query widgets =>
universal_registry_register_entity service pay '{{"port": 8443}}' => service/default/pay created, revision \d+
universal_registry_register_entity resources ram '{{}}' => component/default/ram created, revision \d+
universal_registry_query_entity service => pay{RECORD}\{{"port":8443\}}
universal_registry_query_entity service 'p%' => pay{RECORD}\{{"port":8443\}}
universal_registry_query_entity service 'x%' =>
universal_registry_query services 'p%' => pay{RECORD}\{{"port":8443\}}
universal_registry_query hot_swap_components =>
universal_registry_register_palette light '#ffffff' => palette/default/light created, revision \d+
universal_registry_query palettes => light{RECORD}\{{"value":"\#ffffff"\}}
universal_registry_register_visual star '*' => glyph/default/star created, revision \d+
universal_registry_register_visual moon o 'the moon' => glyph/default/moon created, revision \d+
universal_registry_query visuals 'm%' => moon{RECORD}\{{"glyph":"o"\}}
universal_registry_register_animation spin '["-","|"]' => animation/default/spin created, revision \d+
universal_registry_register_animation turn '-,|' 12 'a spinner' => animation/default/turn created, revision \d+
universal_registry_register_alias gs 'git status -sb' => alias/default/gs created, revision \d+
universal_registry_register_path /usr/bin /usr/bin => path/default//usr/bin created, revision \d+
universal_registry_register_path '~/bin' /home/me/bin tools 5 => path/default/~/bin created, revision \d+
universal_registry_register_symlink /usr/bin/vi /usr/bin/vim => symlink/default//usr/bin/vi created, revision \d+
universal_registry_register_symlink /bin/ex /bin/vim active => symlink/default//bin/ex created, revision \d+
universal_registry_register_command deploy 'make deploy' => command/default/deploy created, revision \d+
universal_registry_register_command build make 'all of it' => command/default/build created, revision \d+
universal_registry_register_prompt hello 'Say hello to {{name}}' => prompt/default/hello created, revision \d+
universal_registry_register_zsh_config opts '{{"autocd": true}}' => config_file/default/opts created, revision \d+
universal_registry_register_documentation guide 'A guide' 'Read.' => document/default/guide created, revision \d+
universal_registry_register_documentation other 'A guide' '# Read.' markdown => document/default/other created.*
universal_registry_query_documentation => guide{RECORD}\{{.*\}}\nother{RECORD}\{{.*"format":"markdown"\}}
universal_registry_query_documentation 'o%' => other{RECORD}.*
universal_registry_register_capability look 'looks around' => tool/default/look created, revision \d+
universal_registry_register_capability see 'sees' 'a,b' active => tool/default/see created, revision \d+
universal_registry_query_capability => look{RECORD}.*\nsee{RECORD}\{{"features":\["a","b"\],"status":"active"\}}
universal_registry_query_capability 'x%' =>
universal_registry_register_dependency pay db => setting/default/dependency:pay:depends-on:db created, .*
universal_registry_add_dependency pay mq needs '{{"why":"x"}}' => setting/default/dependency:pay:needs:mq created, .*
universal_registry_register_relationship pay shop => setting/default/relationship:pay:related-to:shop created, .*
universal_registry_add_relationship pay me owned-by => setting/default/relationship:pay:owned-by:me created, .*
universal_registry_list_dependencies => pay\tdb\tdepends-on\t\npay\tmq\tneeds\t\{{"why":"x"\}}
universal_registry_list_dependencies nobody =>
universal_registry_set_health pay passing => service/default/pay updated, revision \d+
universal_registry_set_health service/pay warning 'a bit slow' => service/default/pay updated, revision \d+
universal_registry_get_health pay => service\tdefault\tpay\twarning\ta bit slow
universal_registry_get_health => (\w+\tdefault\t\S+\t\w*\t.*\n)+\w+\tdefault\t\S+\t\w*\t.*
universal_registry_record_lifecycle pay deployed => service/default/pay updated, revision \d+
universal_registry_record_lifecycle pay deployed active v1 => service/default/pay updated, revision \d+
universal_registry_dispatch_webhook hook => {SESSION}
universal_registry_dispatch_webhook hook '{{"a": 1}}' => {SESSION}
universal_registry_export_json => \[\n(\{{.*\}},?\n)+\]
universal_registry_export_json out.json =>
universal_registry_export_yaml => classification: (.*\n)+.*
universal_registry_export_yaml out.yaml =>
register_entity myapp AppService '{{"version":"1.0"}}' => service/default/myapp created, revision \d+
query_entities_by_classification AppService => myapp{RECORD}.*\npay{RECORD}.*
query_entities_by_classification TerminalTheme =>
registry_propagation_init => registry .*\n?.*
registry_propagation_unidirectional myapp remote.service '' => {SESSION}
registry_propagation_unidirectional myapp remote.service '{{"a": 1}}' => {SESSION}
registry_propagation_unidirectional myapp remote.service '{{"a": 1}}' http => {SESSION}
registry_propagation_bidirectional a b '' => {SESSION}
registry_propagation_bidirectional a b '{{"n": 1}}' http => {SESSION}
registry_propagation_multicast hub s1 s2 '{{"n": 1}}' => {SESSION}
registry_propagation_broadcast pub '{{"n": 1}}' => {SESSION}
registry_propagation_chaining entry t1 t2 => {SESSION}
registry_propagation_mesh n1 n2 => {SESSION}
registry_propagation_fanout src t1 t2 => {SESSION}
registry_propagation_status => ({SESSION}\t\w+\t\w+\t\S+\t\["\S+:\w+"\]\t(true|false)\n?)+
registry_propagation_events => (\S+\t\d+\t[\w.]+\t\w+\t\d+\t.*\t.*\tdlv_\w+\n?)+
registry_propagation_health => status\tok\n(.*\n)+.*
registry_propagation_diagnostics => ([\w.]+\t\w+\t\w+\t\d+\t\d+\t\d+\t\d+\t.*\t.*\n?)+
_universal_registry_ureg enable-stream room websocket => .*\n?.*
registry_stream_send room '{{"a": 1}}' => sent to room at revision \d+
registry_stream_receive room --from beginning --count 1 => \{{"a":1\}}
registry_stream_status => room\twebsocket(\t\d+){{5}}
registry_stream_status room => room\twebsocket(\t\d+){{5}}
registry_sync_with_nexus alias/gs c-7 => put\tc-7\talias/default/gs\t\d+\tbidirectional
registry_sync_with_nexus alias/gs c-7 unidirectional => put\tc-7\talias/default/gs\t\d+\tunidirectional
registry_enable_nexus_streaming alias/gs c-7 websocket => \S+\tnexus\talias/default/gs\tc-7\tunidirectional\twebsocket
registry_nexus_sync_history => (alias/default/gs\tc-7\t\w+\tpull\t\d+\texecuted\t\w+\t\S+Z\n?){{2}}
registry_nexus_sync_history alias/gs => (alias/default/gs\tc-7\t\w+\tpull\t\d+\texecuted\t\w+\t\S+Z\n?){{2}}
"""
TABLE = [line.split(" =>") for line in CALLS.strip().splitlines()]

pytestmark = pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh here")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[int, str]]]:
    """What each call came to, all made by one shell in their order."""
    home = Home(tmp_path_factory.mktemp("vocabulary"))
    lines = [f"print -r -- {quoted(call)}; {call}; print -r -- \x02$?\x01" for call, _ in TABLE]
    script = "\n".join((f"source {ROOT}/universal_registry_integration.zsh", *lines))
    done = home.run("zsh", "-f", "-c", script)
    found = {}
    for each in done.out.split("\x01\n")[:-1]:
        told, _, code = each.rpartition("\x02")
        call, _, text = told.partition("\n")
        found[call] = (int(code), text.rstrip("\n"))
    yield found
    assert home.ureg("down").code == 0


def quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


@pytest.mark.parametrize(("call", "pattern"), TABLE, ids=[call[:70] for call, _ in TABLE])
def test_a_call_of_an_older_script(said: dict[str, tuple[int, str]], call: str, pattern: str) -> None:
    code, text = said[call]
    assert code == 0, text
    assert re.fullmatch(pattern.removeprefix(" "), text), text


def test_each_name_is_a_function_and_is_called_here() -> None:
    names = set(NAMES.split())
    assert {path.name for path in FUNCTIONS.iterdir()} >= names
    called = {call.split()[0] for call, _ in TABLE}
    assert names - called == {"universal_registry_demo"}, "`ureg demo` has tests of its own"
