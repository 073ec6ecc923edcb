from __future__ import annotations

import json
import time

import pytest

from universal_registry.kernel.errors import Malformed, RegistryError, TooLarge
from universal_registry.kernel.loader import DEFAULT_LIMITS, Limits, load_json, load_ndjson, load_yaml


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "null",
        "true",
        '""',
        "0",
        "-0",
        "-0.0",
        "9007199254740992",
        "-9007199254740992",
        "1e300",
        "1.7976931348623157e308",
        "1e-400",
        '{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}',
        '{"a\\"":"x\\":y","":"\\": "}',
        '{"url":"https://example.com:8080/a","note":"\\"quoted\\": text"}',
        '"\\ud83d\\ude00 \\u00e9 \\\\u0000"',
        ' \r\n\t{ "k" : [ 1 , 2.5 , "x" ] } \n',
        '{"brackets":"' + "[{" * 200 + '","escaped":"\\\\\\"[[["}',
        '{"emoji":"' + "\U0001f600" * 63 + '"}',
    ],
)
def test_json_reads_what_json_reads(text: str) -> None:
    expected = json.loads(text)
    for data in (text, text.encode()):
        value = load_json(data)
        assert value == expected
        assert repr(value) == repr(expected)  # also types, signs of zero, order of keys


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'{"a":1,"a":2}', 'key "a" appears twice'),
        (b'{"a":1,"\\u0061":2}', 'key "a" appears twice'),
        (b'{"x":[{"b":1,"c":2,"b":3}]}', 'key "b" appears twice'),
        (b'{"":1,"":1}', "appears twice"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b"[Infinity]", "Infinity is not JSON"),
        (b"-Infinity", "-Infinity is not JSON"),
        (b"1e400", "number 1e400 does not fit"),
        (b"[-1e0400]", "does not fit"),
        (b"9007199254740993", "integer 9007199254740993 is beyond"),
        (b'{"n":[-9007199254740993]}', "is beyond"),
        (b"1" * 5000, "is beyond"),
        (b"18446744073709551616", "is beyond"),
        (b'"\\ud800"', "lone surrogate \\ud800"),
        (b'{"a":["\\udc00x"]}', "the string at a[0] holds the lone surrogate"),
        (b'{"\\ud800":1}', "a key of the top object holds the lone surrogate"),
        (b'{"spec":{"env":["ok","a\\u0000b"]}}', "the string at spec.env[1] holds a NUL"),
        (b'{"a\\u0000":1}', "holds a NUL"),
        (b'"a\x00b"', "invalid control character"),
        (b'"a\nb"', "invalid control character"),
        (b'\xef\xbb\xbf{"a":1}', "byte order mark"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8: byte 0xff at line 1, byte 1"),
        (b'{\n "a": "\xed\xa0\x80"}', "not UTF-8: byte 0xed at line 2, byte 8"),
        (b'"\xc0\xaf"', "not UTF-8"),
        (b"", "empty"),
        (b" \n", "empty"),
        (b"[1,]", "line 1, column 4"),
        (b'{\n  "a": 1,\n  "b": tru\n}', "line 3, column 8"),
        (b"{'a':1}", 'found "\'"'),
        (b'{"a":1} x', "extra data"),
        (b'{"a":1}{"b":1}', "extra data"),
        (b"01", "extra data"),
        (b"+1", "not JSON"),
        (b".5", "not JSON"),
        (b"nul", "not JSON"),
        (b'{"a":1', "the text ends"),
        (b'"abc', "unterminated string"),
        (b"[1 2]", "not JSON"),
        (b"\x0c1", "found U+000C"),
        ("\uff11".encode(), "not JSON"),  # a full-width digit is no digit
    ],
)
def test_json_refuses(data: bytes, said: str) -> None:
    with pytest.raises(Malformed) as caught:
        load_json(data)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300


def test_json_refuses_a_str_that_is_not_text() -> None:
    with pytest.raises(Malformed, match="lone surrogate"):
        load_json('"\ud800"')


def test_hints_say_what_to_do() -> None:
    for data, hint in (
        (b"9007199254740993", "send it as a string"),
        (b"{'a':1}", "double quotes"),
        (b'{"a":1} // x', "no comments"),
        (b'{"a":True}', "lower case"),
        (b"[1,]", "comma"),
    ):
        with pytest.raises(Malformed) as caught:
            load_json(data)
        assert hint in (caught.value.hint or "")


def test_depth_64_is_read_and_65_is_not() -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        assert load_json(opening * 63 + b"[]" + closing * 63) is not None
        with pytest.raises(TooLarge, match="64 levels"):
            load_json(opening * 64 + b"[]" + closing * 64)


def test_depth_counts_no_brackets_in_strings_and_no_siblings() -> None:
    assert len(load_json(b'["' + b"[" * 100 + b'","\\"' + b"{" * 100 + b'\\\\"]')) == 2
    assert len(load_json(b"[" + b",".join([b"[[]]"] * 500) + b"]")) == 500


@pytest.mark.parametrize("size", [65, 5_000, 500_000])
def test_depth_is_refused_before_parsing(size: int) -> None:
    for data in (b"[" * size, b"[" * size + b"]" * size, b'{"a":' * (size // 5 + 65), b"[[]," * size):
        with pytest.raises(TooLarge, match="nested deeper"):
            load_json(data, limits=Limits(body=10**7))


def test_limits_on_body_keys_and_strings() -> None:
    assert load_json(b" " * (DEFAULT_LIMITS.body - 1) + b"1") == 1
    with pytest.raises(TooLarge, match="1048577 bytes"):
        load_json(b" " * DEFAULT_LIMITS.body + b"1")
    assert len(load_json(json.dumps({str(i): 0 for i in range(10_000)}))) == 10_000
    for value in ({str(i): 0 for i in range(10_001)}, [{str(j): 0 for j in range(101)} for _ in range(100)]):
        with pytest.raises(TooLarge, match="10000 keys"):
            load_json(json.dumps(value))
    longest = 256 * 1024
    assert len(load_json(json.dumps("x" * longest))) == longest
    for long in ("x" * (longest + 1), {"x" * (longest + 1): 1}, ["\u00e9" * (longest // 2 + 1)]):
        with pytest.raises(TooLarge, match="256 KiB"):
            load_json(json.dumps(long, ensure_ascii=False))


def test_an_import_may_raise_the_body_limit() -> None:
    text = json.dumps(["x" * 1000] * 2000)
    with pytest.raises(TooLarge):
        load_json(text)
    assert len(load_json(text, limits=Limits(body=1 << 24))) == 2000


def test_limits_hold_on_both_readings() -> None:
    """In a text longer than a string may be, strings are looked at one by one: same result."""
    data = b'{"a":["x",{"b":1.5,"c":null}],"d":"e: f"}'
    assert load_json(data) == load_json(data, limits=Limits(string=8))
    with pytest.raises(TooLarge):
        load_json(data, limits=Limits(string=3))


@pytest.mark.parametrize("size", [10, 300_000])
def test_what_is_forbidden_is_found_at_any_size(size: int) -> None:
    padding = json.dumps(["x" * 1000] * (size // 1000))
    limits = Limits(body=1 << 24)
    assert load_json(f'{{"pad":{padding},"a":{{"b":[1,"\\u0041"]}}}}', limits=limits)["a"] == {"b": [1, "A"]}
    for bad in (
        '{"a":1,"a":2}',
        '{"a":1,"b":{"c":1,"c" :2}}',
        '{"a":9007199254740993}',
        '{"a":[1e400]}',
        '{"a":"\\u0000"}',
        '{"\\u0000":1}',
        '{"a":"\\ud800"}',
        "[" * 64 + "]" * 64,
    ):
        with pytest.raises((Malformed, TooLarge)):
            load_json(f'{{"pad":{padding},"bad":{bad}}}', limits=limits)


def test_hostile_texts_cost_little() -> None:
    size = 1 << 20
    started = time.perf_counter()
    for data in (b'"' + b'\\"' * (size // 2 - 1), b"1" * size, b"[" * size, (b"[" * 60 + b"]" * 60 + b",") * 8000):
        with pytest.raises(RegistryError):
            load_json(data)
    assert time.perf_counter() - started < 5  # quadratic reading would take minutes


# --- NDJSON ---------------------------------------------------------------------------------------------------------


def test_ndjson_reads_lines_lazily_and_names_the_bad_one() -> None:
    lines = load_ndjson(b'{"a":1}\r\n\n  \n[2]\n{"a":1,"a":2}\n3\n')
    assert next(lines) == {"a": 1}
    assert next(lines) == [2]
    with pytest.raises(Malformed, match="line 5: key") as caught:
        next(lines)
    assert caught.value.data == {"line": 5, "key": "a"}


def test_ndjson_places_syntax_errors_in_the_whole_text() -> None:
    with pytest.raises(Malformed, match="line 3, column 4"):
        list(load_ndjson("1\n2\n[3,]\n"))
    with pytest.raises(Malformed, match="not UTF-8: byte 0xff at line 2, byte 2"):
        list(load_ndjson(b'1\n"\xff"\n'))


def test_ndjson_takes_an_iterable_of_lines() -> None:
    assert list(load_ndjson(iter([b"1\n", b'"x"\n', b"\n"]))) == [1, "x"]
    assert list(load_ndjson('"\u2028"\n"\x85"\n')) == ["\u2028", "\x85"]  # only \n ends a line


def test_ndjson_limits_hold_for_each_line() -> None:
    line = b'"' + b"x" * 90 + b'"\n'
    assert len(list(load_ndjson(line * 1000, limits=Limits(body=100)))) == 1000
    with pytest.raises(TooLarge, match="line 2: the text is 12"):
        list(load_ndjson(line + b'"' + b"x" * 120 + b'"', limits=Limits(body=100)))


# --- YAML -----------------------------------------------------------------------------------------------------------


def test_yaml_core_schema() -> None:
    text = """
no: no
on: on
y: y
Yes: Yes
date: 2020-01-01
time: 12:30:45
under: 1_000
sexagesimal: 1:30
octal: 0o17
hex: 0xfF
minus: -7
plus: +7
zero: 0
real: 1.5
dot: .5
exp: 1e3
nothing:
tilde: ~
null_: Null
yes_: TRUE
quoted: "1"
single: 'true'
block: |
  a
  b
folded: >-
  a
  b
version: 1.2.3
sha: 0x
"""
    assert load_yaml(text) == [
        {
            "no": "no",
            "on": "on",
            "y": "y",
            "Yes": "Yes",
            "date": "2020-01-01",
            "time": "12:30:45",
            "under": "1_000",
            "sexagesimal": "1:30",
            "octal": 15,
            "hex": 255,
            "minus": -7,
            "plus": 7,
            "zero": 0,
            "real": 1.5,
            "dot": 0.5,
            "exp": 1000.0,
            "nothing": None,
            "tilde": None,
            "null_": None,
            "yes_": True,
            "quoted": "1",
            "single": "true",
            "block": "a\nb\n",
            "folded": "a b",
            "version": "1.2.3",
            "sha": "0x",
        }
    ]


def test_yaml_documents() -> None:
    assert load_yaml("---\na: 1\n---\nb: [2, {c: 3}]\n---\n# nothing\n---\nnull\n...\n") == [
        {"a": 1},
        {"b": [2, {"c": 3}]},
        None,
    ]
    assert load_yaml("") == []
    assert load_yaml(b"# only a comment\n") == []
    assert load_yaml("- - 1\n  - {}\n-\n  - []\n") == [[[1, {}], [[]]]]


def test_yaml_reads_json() -> None:
    text = '{"a": [1, -2.5e3, true, null, "no"], "e": "\\ud83d\\ude00\\n", "\\ud83d\\ude00": {}}'
    assert load_yaml(text) == [json.loads(text)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x 1", "anchor &x is not allowed, at line 1, column 4"),
        ("a: *x", "alias *x is not allowed"),
        ("- &a [1]\n- *a", "anchor &a"),
        ("<<: {a: 1}", "merge key << is not allowed"),
        ("a: !!str 1", "a tag (!) is not allowed, at line 1, column 4"),
        ("a: !custom {b: 1}", "a tag (!)"),
        ("! x", "a tag (!)"),
        ("!<tag:yaml.org,2002:python/object/apply:os.system> [id]", "a tag (!)"),
        ("%TAG ! tag:x,2000:\n---\na: 1", "%TAG"),
        ("%YAML 1.1\n---\na: no", "YAML 1.1 is not read"),
        ("a: 1\nb: 2\na: 3", 'key "a" appears twice in one mapping, at line 3, column 1'),
        ("{a: 1, 'a': 2}", 'key "a" appears twice'),
        ("1: x", "key 1 is not a string, at line 1, column 1 (quote it"),
        ("true: x", "key true is not a string"),
        (": x", "is not a string"),
        ("? [a, b]\n: 1", "where a key must be"),
        ("{[a]: 1}", "where a key must be"),
        ("mode: 0644", "number 0644 begins with a zero"),
        ("a: .inf", ".inf is not JSON data"),
        ("a: -.INF", "is not JSON data"),
        ("a: .nan", "is not JSON data"),
        ("a: 1e400", "does not fit"),
        ("a: 9007199254740993", "is beyond"),
        ("a: 0xffffffffffffffff", "is beyond"),
        ('a: "x\\0"', "NUL"),
        ('a: "\\ud800"', "lone surrogate"),
        ('a: "\\U00110000"', "not YAML"),
        ("a: \x01", "character U+0001"),
        ("a:\n\tb: 1", "spaces, not tabs"),
        ("a: [1", "not YAML at line"),
        ("a: b: c", "not YAML at line 1, column 5"),
        ("@a", "not YAML"),
        ("a: 'x", "not YAML"),
        ("\ufeffa: 1", "byte order mark"),
    ],
)
def test_yaml_refuses(text: str, said: str) -> None:
    with pytest.raises(Malformed) as caught:
        load_yaml(text)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300


def test_yaml_refuses_bytes_that_are_not_utf8() -> None:
    with pytest.raises(Malformed, match="not UTF-8: byte 0xff at line 2"):
        load_yaml(b"a: 1\nb: \xff")


def test_yaml_quoted_merge_key_is_a_key() -> None:
    assert load_yaml('"<<": 1') == [{"<<": 1}]


def test_yaml_limits() -> None:
    assert load_yaml("[" * 64 + "]" * 64)
    for text in ("[" * 65 + "]" * 65, "- " * 65 + "a", "[" * 100_000, "{a: " * 65):
        with pytest.raises(TooLarge, match="64 levels"):
            load_yaml(text)
    with pytest.raises(TooLarge, match="256 KiB"):
        load_yaml("a: " + "x" * (256 * 1024 + 1))
    with pytest.raises(TooLarge, match="keys, at line 6"):
        load_yaml("\n".join(f"k{i}: 1" for i in range(10)), limits=Limits(keys=5))
    with pytest.raises(TooLarge, match="the text is"):
        load_yaml("a: 1" + " " * (1 << 20))


def test_yaml_bombs_cost_little() -> None:
    started = time.perf_counter()
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{c}: &{c} [{('*' + p + ',') * 9}]\n" for p, c in zip("abcdef", "bcdefg", strict=True)
    )
    for text in (bomb, "!" * (1 << 20), "*a " * 100_000, "&" * 100_000):
        with pytest.raises(Malformed):
            load_yaml(text)
    assert time.perf_counter() - started < 10
