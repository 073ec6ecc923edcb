from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest

from universal_registry import environment
from universal_registry.environment import child_environment, load, load_settings, parse_listen, runtime_dir
from universal_registry.kernel.errors import SettingError
from universal_registry.kernel.settings import (
    EncryptionSettings,
    HistorySettings,
    PostgresSettings,
    RetrySettings,
    Settings,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def loaded(home: Path, *, config: str | None = None, flags: dict[str, object] | None = None, **environ: str):
    home.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (home / "config.py").write_text(config, encoding="utf-8")
    return load({"home": home, **(flags or {})}, environ)


def refused(home: Path, **given) -> str:
    with pytest.raises(SettingError) as caught:
        loaded(home, **given)
    return str(caught.value)


# --- layers ---------------------------------------------------------------------------------------------------------


def test_each_layer_wins_over_the_one_before_and_says_where_it_came_from(home: Path) -> None:
    config = "RETRY_CONFIG = {\n  'max_retries': 1,\n  'max_delay_seconds': 100,\n  'jitter_factor': 0.5,\n}\n"
    found = loaded(
        home,
        config=config,
        flags={"retry.jitter_factor": 0.2},
        REGISTRY_RETRY_MAX_DELAY_SECONDS="200",
        REGISTRY_RETRY_JITTER_FACTOR="0.3",
    )
    retry = found.settings.retry
    assert (retry.base_delay_seconds, found.origins["retry.base_delay_seconds"]) == (1.0, "default")
    assert (retry.max_retries, found.origins["retry.max_retries"]) == (1, "config.py:2")
    assert (retry.max_delay_seconds, found.origins["retry.max_delay_seconds"]) == (
        200.0,
        "REGISTRY_RETRY_MAX_DELAY_SECONDS",
    )
    assert (retry.jitter_factor, found.origins["retry.jitter_factor"]) == (0.2, "--retry-jitter-factor")
    assert found.warnings == ()


def test_every_setting_can_come_from_the_environment(home: Path) -> None:
    given = {
        "REGISTRY_LISTEN": "127.0.0.1:9999",
        "REGISTRY_SOCKET": "/run/u.sock",
        "REGISTRY_TLS_CERT": "/tls/cert.pem",
        "REGISTRY_TLS_KEY": "/tls/key.pem",
        "REGISTRY_TLS_CLIENT_CA": "/tls/ca.pem",
        "REGISTRY_STREAM_ORIGINS": "https://A.example, http://b.example:8080",
        "REGISTRY_MAX_STREAMS": "50",
        "REGISTRY_LOG_LEVEL": "Debug",
        "REGISTRY_HEALTH_INTERVAL": "7",
        "REGISTRY_METRICS_INTERVAL": "1.5",
        "REGISTRY_MAX_IN_FLIGHT": "11",
        "REGISTRY_MAX_IN_FLIGHT_PER_TARGET": "3",
        "REGISTRY_ROWS_PER_LANE": "5",
        "REGISTRY_LOCK_WAIT": "0",
        "REGISTRY_DRAIN_TIMEOUT": "2",
        "REGISTRY_BACKUP_FOLDER": "/backups",
        "REGISTRY_BACKUP_INTERVAL_HOURS": "6",
        "REGISTRY_BACKUP_KEEP": "3",
        "REGISTRY_RETRY_ENABLED": "no",
        "REGISTRY_RETRY_MAX_RETRIES": "9",
        "REGISTRY_RETRY_BASE_DELAY_SECONDS": "2",
        "REGISTRY_RETRY_MAX_DELAY_SECONDS": "20",
        "REGISTRY_RETRY_BACKOFF_MULTIPLIER": "3",
        "REGISTRY_RETRY_JITTER_ENABLED": "off",
        "REGISTRY_RETRY_JITTER_FACTOR": "0.2",
        "REGISTRY_RETRY_JITTER": "Full",
        "REGISTRY_RETRY_SLOW_PHASE": "0",
        "REGISTRY_RETRY_MAX_AGE_SECONDS": "86400",
        "REGISTRY_RETRY_BUDGET": "3",
        "REGISTRY_RETRY_BUDGET_REFILL_SECONDS": "5",
        "REGISTRY_RETRY_CIRCUIT_BREAKER_ENABLED": "false",
        "REGISTRY_RETRY_CIRCUIT_BREAKER_THRESHOLD": "6",
        "REGISTRY_RETRY_CIRCUIT_BREAKER_TIMEOUT_SECONDS": "61",
        "REGISTRY_RETRY_AUTO_DISABLE_DAYS": "0",
        "REGISTRY_RETRY_AUTO_DISABLE_DEAD": "7",
        "REGISTRY_RETRY_TIMEOUT_SECONDS": "31",
        "REGISTRY_ENCRYPTION_ENABLED": "no",
        "REGISTRY_ENCRYPTION_ALGORITHM": "fernet",
        "REGISTRY_ENCRYPTION_KEY_ROTATION_INTERVAL_DAYS": "30",
        "REGISTRY_ENCRYPTION_ROTATION_ENABLED": "no",
        "REGISTRY_ENCRYPTION_ENCRYPT_PAYLOADS": "no",
        "REGISTRY_ENCRYPTION_ENCRYPT_LOGS": "yes",
        "REGISTRY_ENCRYPTION_ENCRYPT_METRICS": "yes",
        "REGISTRY_ENCRYPTION_KEY_PATH": "keys//mine.key",
        "REGISTRY_ENCRYPTION_KEY_FILE": "/run/secrets/key",
        "REGISTRY_HISTORY_COMPACT": "no",
        "REGISTRY_HISTORY_VALUE_DAYS": "0.5",
        "REGISTRY_HISTORY_VALUE_REVISIONS": "1000",
        "REGISTRY_HISTORY_LINE_DAYS": "7",
        "REGISTRY_HISTORY_LINE_REVISIONS": "5000",
    }
    found = loaded(home, **given)
    assert found.warnings == ()
    assert set(given) == {found.origins[name] for name in found.origins} - {"--home"}
    assert found.settings == Settings(
        home=home,
        listen="127.0.0.1:9999",
        socket=Path("/run/u.sock"),
        tls_cert=Path("/tls/cert.pem"),
        tls_key=Path("/tls/key.pem"),
        tls_client_ca=Path("/tls/ca.pem"),
        stream_origins="https://a.example,http://b.example:8080",
        max_streams=50,
        log_level="debug",
        health_interval=7.0,
        metrics_interval=1.5,
        max_in_flight=11,
        max_in_flight_per_target=3,
        rows_per_lane=5,
        lock_wait=0.0,
        drain_timeout=2.0,
        backup_folder=Path("/backups"),
        backup_interval_hours=6.0,
        backup_keep=3,
        retry=RetrySettings(
            enabled=False,
            max_retries=9,
            base_delay_seconds=2.0,
            max_delay_seconds=20.0,
            backoff_multiplier=3.0,
            jitter_enabled=False,
            jitter_factor=0.2,
            jitter="full",
            slow_phase=False,
            max_age_seconds=86400.0,
            budget=3.0,
            budget_refill_seconds=5.0,
            circuit_breaker_enabled=False,
            circuit_breaker_threshold=6,
            circuit_breaker_timeout_seconds=61.0,
            auto_disable_days=0.0,
            auto_disable_dead=7,
            timeout_seconds=31.0,
        ),
        encryption=EncryptionSettings(
            enabled=False,
            key_rotation_interval_days=30,
            rotation_enabled=False,
            encrypt_payloads=False,
            encrypt_logs=True,
            encrypt_metrics=True,
            key_path="keys/mine.key",
            key_file="/run/secrets/key",
        ),
        history=HistorySettings(
            compact=False, value_days=0.5, value_revisions=1000, line_days=7.0, line_revisions=5000
        ),
    )


def test_a_flag_of_none_was_not_given_and_an_empty_variable_is_unset(home: Path) -> None:
    found = loaded(home, flags={"listen": None}, REGISTRY_LOG_LEVEL="", REGISTRY_SOCKET="")
    assert found.settings == Settings(home=home)


def test_an_empty_listen_is_a_choice(home: Path) -> None:
    assert loaded(home, REGISTRY_LISTEN="").settings.listen == ""


def test_unknown_names_are_warned_of_with_what_was_meant(home: Path) -> None:
    config = "RETRY_CONFIG = {'max_retrys': 3}\nENCRYPTION_CONFIG = {'enabld': True}\n"
    found = loaded(home, config=config, flags={"listn": "x"}, REGISTRY_LISTN="x", REGISTRY_RETRY_MAX_RETRIS="3")
    text = "\n".join(found.warnings)
    for meant in (
        "config.py:1: RETRY_CONFIG has no key max_retrys; did you mean max_retries?",
        "config.py:2: ENCRYPTION_CONFIG has no key enabld; did you mean enabled?",
        "REGISTRY_LISTN: no setting is called so; did you mean REGISTRY_LISTEN?",
        "REGISTRY_RETRY_MAX_RETRIS: no setting is called so; did you mean REGISTRY_RETRY_MAX_RETRIES?",
        "--listn: no setting is called listn; did you mean listen?",
    ):
        assert meant in text
    assert found.settings == Settings(home=home)


# --- bad values -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("REGISTRY_HEALTH_INTERVAL", "soon", "health_interval is 'soon' (give a number from 0.01 to 86400)"),
        ("REGISTRY_HEALTH_INTERVAL", "0", "health_interval is '0'"),
        ("REGISTRY_HEALTH_INTERVAL", "nan", "health_interval is 'nan'"),
        ("REGISTRY_HEALTH_INTERVAL", "inf", "health_interval is 'inf'"),
        ("REGISTRY_MAX_IN_FLIGHT", "1.5", "max_in_flight is '1.5' (give a whole number from 1 to 10000)"),
        ("REGISTRY_MAX_IN_FLIGHT", "٣", "max_in_flight is '٣'"),
        ("REGISTRY_MAX_IN_FLIGHT", "9" * 5000, "(give a whole number from 1 to 10000)"),
        ("REGISTRY_RETRY_ENABLED", "perhaps", "retry.enabled is 'perhaps' (give true or false)"),
        ("REGISTRY_LOG_LEVEL", "loud", "log_level is 'loud' (give one of debug, info, warning, error)"),
        ("REGISTRY_LISTEN", "8080", "listen is '8080' (give HOST:PORT"),
        ("REGISTRY_LISTEN", "127.0.0.1:65536", "give HOST:PORT"),
        ("REGISTRY_LISTEN", "0.0.0.0:80", "set tls_cert"),
        ("REGISTRY_STREAM_ORIGINS", "a.example", "origins with commas"),
        ("REGISTRY_STREAM_ORIGINS", "https://a.example/path", "origins with commas"),
        ("REGISTRY_MAX_STREAMS", "0", "from 1 to 1000000"),
        ("REGISTRY_LISTEN", "[::]:80", "set tls_cert"),
        ("REGISTRY_LISTEN", "example.org:80", "set tls_cert"),
    ],
)
def test_a_bad_value_names_setting_value_origin_and_range(home: Path, variable: str, value: str, said: str) -> None:
    message = refused(home, **{variable: value})
    assert message.startswith(variable + ": ")
    assert said in message
    assert len(message) < 400


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("RETRY_CONFIG = {'max_retries': '5x'}", "config.py:1: retry.max_retries is '5x'"),
        ("RETRY_CONFIG = {'max_retries': True}", "config.py:1: retry.max_retries is True"),
        ("RETRY_CONFIG = {'max_retries': 2.0}", "config.py:1: retry.max_retries is 2.0"),
        ("RETRY_CONFIG = {'enabled': 1}", "config.py:1: retry.enabled is 1 (give true or false)"),
        ("RETRY_CONFIG = {'max_retries': open('x')}", "RETRY_CONFIG in config.py:1 is not written out as a literal"),
        ("RETRY_CONFIG = {**other}", "RETRY_CONFIG in config.py:1 is not written out as a literal"),
        ("x = 1\nRETRY_CONFIG = dict(max_retries=3)", "RETRY_CONFIG in config.py:2 is not"),
        ("RETRY_CONFIG = {'max_retries': 1,\n 'max_retries': 2}", "config.py:2 gives max_retries a second time"),
        ("RETRY_CONFIG = {1: 2}", "RETRY_CONFIG in config.py:1 is not written out as a literal"),
        ("ENCRYPTION_CONFIG = {'enabled': 'perhaps'}", "config.py:1: encryption.enabled is 'perhaps'"),
        ("ENCRYPTION_CONFIG = {'algorithm': 'ROT13'}", "config.py:1: encryption.algorithm is 'ROT13' (give Fernet"),
        ("ENCRYPTION_CONFIG = {'key_rotation_interval_days': 0}", "is 0 (give a whole number from 1 to 36500)"),
        ("ENCRYPTION_CONFIG = {'key_path': 3}", "config.py:1: encryption.key_path is 3 (give a path)"),
        ("RETRY_CONFIG = {", "config.py:1 is not Python"),
        ("RETRY_CONFIG = \0", "is not Python"),
    ],
)
def test_a_bad_config_names_the_line_and_is_never_run(home: Path, config: str, said: str) -> None:
    assert said in refused(home, config=config)


def test_config_is_read_not_run(home: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    config = f"open({str(mark)!r}, 'w')\nRETRY_CONFIG: dict = {{'max_retries': 2}}\ndef f(): raise SystemExit\nf()\n"
    assert loaded(home, config=config).settings.retry.max_retries == 2
    assert not mark.exists()


def test_the_documented_literals_are_what_is_read(home: Path) -> None:
    config = """
ENCRYPTION_CONFIG = {
    "enabled": True, "algorithm": "Fernet", "key_rotation_interval_days": 90, "encrypt_payloads": False
}
RETRY_CONFIG = {
    "enabled": True, "max_retries": 5, "base_delay_seconds": 1, "max_delay_seconds": 300, "backoff_multiplier": 2.0,
    "jitter_enabled": True, "circuit_breaker_enabled": True, "circuit_breaker_threshold": 5,
    "circuit_breaker_timeout_seconds": 60
}
"""
    found = loaded(home, config=config)
    assert found.settings == Settings(home=home, encryption=EncryptionSettings(encrypt_payloads=False))
    assert found.origins["retry.max_retries"] == "config.py:6"
    assert found.origins["encryption.encrypt_payloads"] == "config.py:3"
    assert not found.settings.encryption.seal_wire
    assert found.warnings == ()


def test_the_key_is_read_from_the_home_from_elsewhere_or_from_a_credential(home: Path, tmp_path: Path) -> None:
    assert loaded(home).settings.key_file == home / "config" / "encryption.key"
    config = "ENCRYPTION_CONFIG = {'key_path': 'elsewhere/my.key'}"
    assert loaded(home, config=config).settings.key_file == home / "elsewhere" / "my.key"
    assert loaded(home, REGISTRY_ENCRYPTION_KEY_FILE="/run/k").settings.key_file == Path("/run/k")
    assert loaded(home, CREDENTIALS_DIRECTORY=str(tmp_path)).settings.encryption.key_file == ""
    (tmp_path / "encryption.key").touch()
    found = loaded(home, CREDENTIALS_DIRECTORY=str(tmp_path))
    assert found.settings.key_file == tmp_path / "encryption.key"
    assert found.origins["encryption.key_file"] == "CREDENTIALS_DIRECTORY"


def test_a_config_that_cannot_be_read_is_not_passed_over(home: Path) -> None:
    (home / "config.py").mkdir(parents=True)
    assert "cannot be read" in refused(home)


# --- PostgreSQL -----------------------------------------------------------------------------------------------------


def test_a_host_alone_asks_for_postgresql_and_nothing_for_sqlite(home: Path) -> None:
    assert load_settings(environ={"REGISTRY_HOME": str(home), "REGISTRY_DB_HOST": ""}).database is None
    found = load(environ={"REGISTRY_HOME": str(home), "REGISTRY_DB_HOST": "db.lan"})
    assert found.settings.database == PostgresSettings(
        host="db.lan", name="universal_registry", user="registry", password=None, port=5432
    )
    assert found.origins["database"] == "REGISTRY_DB_HOST"
    assert not found.warnings


def test_the_password_of_postgresql_is_taken_as_it_is_and_never_shown(home: Path) -> None:
    words = {"HOST": "/run/pg", "NAME": "n", "USER": "u", "PASSWORD": " hunter2 'x' ", "PORT": "6543"}
    environ = {"REGISTRY_HOME": str(home), **{f"REGISTRY_DB_{name}": text for name, text in words.items()}}
    found = load(environ=environ)
    assert found.settings.database == PostgresSettings(
        host="/run/pg", name="n", user="u", password=" hunter2 'x' ", port=6543
    )
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize("given", ["NAME", "USER", "PASSWORD", "PORT"])
def test_half_of_a_postgresql_address_says_what_is_missing(home: Path, given: str) -> None:
    message = refused(home, **{f"REGISTRY_DB_{given}": "hunter2"})
    assert f"REGISTRY_DB_{given} asks for PostgreSQL, but REGISTRY_DB_HOST is missing" in message
    assert "hunter2" not in message


@pytest.mark.parametrize("port", ["0", "65536", "x", "-1", "٣", "1" * 5000])
def test_a_port_of_postgresql_is_a_port(home: Path, port: str) -> None:
    assert "REGISTRY_DB_PORT" in refused(home, REGISTRY_DB_HOST="db", REGISTRY_DB_PORT=port)


# --- places ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The package stands in a folder without a checkout's marks."""
    folder = tmp_path / "site" / "universal_registry"
    folder.mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(folder / "environment.py"))
    return folder.parent


def test_home_in_order_of_precedence(installed: Path, tmp_path: Path) -> None:
    environ = {"HOME": "/home/u", "XDG_DATA_HOME": "/data", "REGISTRY_HOME": "/r"}

    def found(flags: dict[str, object], **without: str) -> tuple[str, str]:
        given = load(flags, {key: value for key, value in environ.items() if key not in without.values()})
        return str(given.settings.home), given.origins["home"]

    assert found({"home": "/flag"}) == ("/flag", "--home")
    assert found({}) == ("/r", "REGISTRY_HOME")
    assert found({}, a="REGISTRY_HOME") == ("/data/universal-registry", "XDG_DATA_HOME")
    assert found({}, a="REGISTRY_HOME", b="XDG_DATA_HOME") == ("/home/u/.local/share/universal-registry", "default")
    (installed / "run_registry.sh").touch()
    assert found({}, a="REGISTRY_HOME") == ("/data/universal-registry", "XDG_DATA_HOME")
    (installed / "config.py").touch()
    assert found({}, a="REGISTRY_HOME") == (str(installed), "the checkout")
    assert found({}) == ("/r", "REGISTRY_HOME")


def test_a_relative_xdg_folder_does_not_count(installed: Path) -> None:
    found = load({}, {"HOME": "/home/u", "XDG_DATA_HOME": "data"})
    assert found.settings.home == Path("/home/u/.local/share/universal-registry")


def test_homes_are_absolute_and_know_the_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings({"home": "a b/../c"}, {}).home == tmp_path / "c"
    assert load_settings({}, {"HOME": "/home/u", "REGISTRY_HOME": "~/reg"}).home == Path("/home/u/reg")
    with pytest.raises(SettingError, match="--home: home is"):
        load_settings({"home": ""}, {})
    with pytest.raises(SettingError, match="give a folder"):
        load_settings({"home": "a\0b"}, {})


def test_the_runtime_folder() -> None:
    assert runtime_dir({"REGISTRY_RUN_DIR": "/r", "XDG_RUNTIME_DIR": "/x"}) == Path("/r")
    assert runtime_dir({"XDG_RUNTIME_DIR": "/x"}) == Path("/x")
    assert runtime_dir({"XDG_RUNTIME_DIR": "relative"}) == Path("/tmp")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("127.0.0.1:8080", ("127.0.0.1", 8080)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:65535", ("::1", 65535)),
        ("127.1.2.3:1", ("127.1.2.3", 1)),
        ("", ("", 0)),
    ],
)
def test_addresses_to_listen_on(text: str, parts: tuple[str, int]) -> None:
    assert parse_listen(text) == parts


@pytest.mark.parametrize("text", [":8080", "::1:8080", "[127.0.0.1:80", "h:8 0", "localhost:", "localhost:-1", "x y:1"])
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(SettingError):
        parse_listen(text)


def test_a_daemon_that_is_started_gets_the_same_settings(home: Path) -> None:
    settings = loaded(home, flags={"listen": "127.0.0.1:0", "socket": "/s/u.sock"}).settings
    environ = child_environment(settings, {"PATH": "/bin", "REGISTRY_RETRY_MAX_RETRIES": "2"})
    again = load_settings({}, environ)
    assert (again.home, again.listen, again.socket) == (settings.home, settings.listen, settings.socket)
    assert again.retry.max_retries == 2
    assert environ["PATH"] == "/bin"


def test_nobody_else_reads_the_environment() -> None:
    root = Path(inspect.getfile(environment)).parent
    readers = [
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if "os.environ" in path.read_text(encoding="utf-8") or "getenv(" in path.read_text(encoding="utf-8")
    ]
    assert readers == ["environment.py"]
    assert load_settings({"home": "/h"}).home == Path("/h")
    assert "PATH" in os.environ


def test_a_home_whose_name_is_no_utf8_is_refused_in_one_line() -> None:
    with pytest.raises(SettingError, match="REGISTRY_HOME: home is ") as caught:
        load(environ={"REGISTRY_HOME": "/tmp/\udcff"})
    assert caught.value.hint == "give a folder whose name is UTF-8"
