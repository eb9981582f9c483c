"""``common.codec``"""

from __future__ import annotations

import json
import traceback
from typing import Any, NoReturn, Optional

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common import characters, codec, errors, framing
from common.catalogue import CATALOGUE, Row

from .samples import arguments_for

# ---- Reading ----


def test_a_line_is_read_as_a_name_and_its_arguments() -> None:
    assert codec.decode(b'{"__name__": "echo", "a": [1, 2.5, "x", null, true], "b": {}}') == (
        "echo",
        {"a": [1, 2.5, "x", None, True], "b": {}},
    )


def test_the_name_may_stand_anywhere() -> None:
    assert codec.decode(b'{"a": 1, "__name__": "echo"}') == ("echo", {"a": 1})


@pytest.mark.parametrize("line", [b'{"__name__":"echo"}\r', b' \t{ "__name__" :\r"echo" } \t\r\r'])
def test_white_space_around_tokens_and_carriage_returns_at_the_end_are_none_of_the_message(line: bytes) -> None:
    assert codec.decode(line) == ("echo", {})


def test_of_equal_members_the_last_one_counts() -> None:
    assert codec.decode(b'{"__name__": "a", "x": 1, "x": 2, "__name__": "b"}') == ("b", {"x": 2})


def test_bytes_that_are_no_utf_8_are_replaced() -> None:
    assert codec.decode(b'{"__name__": "echo", "a": "\xff\xc3", "b": "\xc3\xa9"}')[1] == {"a": "��", "b": "é"}


def test_forbidden_characters_are_replaced_in_every_string_and_key_after_decoding() -> None:
    line = rb'{"__name__": "ec\u0000ho", "k\u0007": ["\ud800", {"\uffff": "\u0085\u009f"}], "pair": "\ud83d\ude00"}'
    assert codec.decode(line) == (
        "ec\ufffdho",
        {"k\ufffd": ["\ufffd", {"\ufffd": "\x85\ufffd"}], "pair": "\U0001f600"},
    )


def test_an_integer_of_any_size_that_the_interpreter_reads_is_exact() -> None:
    assert codec.decode(b'{"__name__": "echo", "a": 1180591620717411303424}')[1] == {"a": 2**70}


@pytest.mark.parametrize(
    "line",
    [b"", b" ", b"[]", b'"text"', b"1", b"null", b"{}", b'{"a": 1}']
    + [b'{"__name__": %s}' % name for name in (b"null", b"1", b"true", b'""', b'["x"]', b'{"x": 1}')],
)
def test_a_line_that_is_no_object_with_a_name_is_malformed(line: bytes) -> None:
    with pytest.raises(errors.MalformedLine) as caught:
        codec.decode(line)
    assert caught.value.evidence == line


#: What is no JSON, as the value of an argument.
NO_JSON = [
    *["NaN", "Infinity", "-Infinity", "nan", "inf", "1e400", "-1e400", "-", "--1", "+1", "01", "-01", "00", "1.", "-1."],
    *[
        ".5",
        "-.5",
        "1.e5",
        "1e",
        "1e+",
        "1E-",
        "1e5.5",
        "0x10",
        "1_0",
        "٣",
        "True",
        "None",
        "nul",
        "tru",
        "undefined",
        "'a'",
    ],
    *["[1,]", "[,1]", "[1 2]", "[", "]", "[}", '{"a":1,}', '{"a"}', '{"a":}', "{a:1}", "{1:1}", "{,}", "1 1", "/**/1"],
    *["1//", '"a', '"\x00"', '"\x01"', '"\t"', '"\x1f"', '"\\x41"', '"\\"', '"\\u12"', '"\\u12G4"', '"\\u+123"', '"\\\'"'],
    *["\x001", "1\x00", "\x0b1", "\x0c1", "\xa01", "\ufeff1", "\u20281", "9" * 5000, ""],
]


@pytest.mark.parametrize("value", NO_JSON, ids=lambda value: ascii(value[:20]))
def test_what_is_no_json_is_malformed_however_lenient_the_parser(value: str) -> None:
    with pytest.raises(errors.MalformedLine, match=r"^not JSON: "):
        codec.decode(f'{{"__name__": "echo", "a": {value}}}'.encode())


@pytest.mark.parametrize(
    ("before", "behind"), [(b"\xef\xbb\xbf", b""), (b"x", b""), (b"", b"x"), (b"", b"\x00"), (b"", b"{}")]
)
def test_nothing_may_stand_before_or_behind_the_object(before: bytes, behind: bytes) -> None:
    line = before + b'{"__name__": "echo"}' + behind
    with pytest.raises(errors.MalformedLine, match=r"^not JSON: "):
        codec.decode(line)


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "01", "1.", '"\t"'])
def test_what_is_no_json_is_malformed_even_where_an_equal_member_hides_it(value: str) -> None:
    with pytest.raises(errors.MalformedLine, match=r"^not JSON: "):
        codec.decode(f'{{"__name__": "echo", "a": {value}, "a": 1}}'.encode())


def _nested(levels: int) -> bytes:
    """A message whose object and lists nest so deep in all."""
    return b'{"__name__": "echo", "a": ' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_nesting_up_to_the_limit_is_read() -> None:
    codec.decode(_nested(codec.DEPTH_LIMIT))


@pytest.mark.parametrize("levels", [codec.DEPTH_LIMIT + 1, 1000, 1100, 200_000])
def test_nesting_beyond_the_limit_is_malformed(levels: int) -> None:
    with pytest.raises(errors.MalformedLine, match=r"^not JSON: "):
        codec.decode(_nested(levels))


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_nesting_that_never_closes_is_malformed(opening: bytes) -> None:
    with pytest.raises(errors.MalformedLine, match=r"^not JSON: "):
        codec.decode(opening * 200_000)


@pytest.mark.parametrize(
    "line",
    [
        b'{"__name__": "login", "password": "hunter2',
        b'{"__name__": "login", "password": hunter2}',
        b'{"__name__": "login", "password": "\\hunter2"}',
        b'{"__name__": "login", "password" hunter2: 1}',
        b'{"__name__": "login"} hunter2',
        b'{"password": "hunter2"}',
        b'["hunter2"]',
    ],
)
def test_an_error_quotes_nothing_of_the_line(line: bytes) -> None:
    with pytest.raises(errors.MalformedLine) as caught:
        codec.decode(line)
    error = caught.value
    assert "unter2" not in f"{error} {error!r} " + "".join(traceback.format_exception(None, error, error.__traceback__))


# ---- Writing ----


def test_a_message_is_written_as_one_line() -> None:
    assert codec.encode("echo", {"a": [1, "x\ny"], "b": None}) == b'{"__name__":"echo","a":[1,"x\\ny"],"b":null}\n'


def test_a_line_is_ascii_so_that_no_peer_has_to_know_utf_8() -> None:
    assert codec.encode("echo", {"a": "é/\U0001f600"}) == b'{"__name__":"echo","a":"\\u00e9/\\ud83d\\ude00"}\n'


def test_no_argument_can_take_the_place_of_the_name() -> None:
    assert codec.decode(codec.encode("echo", {"__name__": "login", "a": 1})) == ("echo", {"a": 1})


def test_forbidden_characters_are_replaced_before_writing() -> None:
    assert codec.decode(codec.encode("echo", {"k\x00": ["\ud800", ("\x7f",)]})) == ("echo", {"k�": ["�", ["�"]]})


_ENDLESS: list[Any] = []
_ENDLESS.append(_ENDLESS)


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), float("-inf"), b"bytes", {1, 2}, object(), {1: "key"}, {None: 1}, _ENDLESS, 10**5000],
    ids=["nan", "inf", "-inf", "bytes", "set", "object", "number as key", "null as key", "endless", "too many digits"],
)
def test_a_value_that_json_does_not_have_cannot_be_written(value: Any) -> None:
    with pytest.raises(errors.EncodingError, match=r"^echo: a value has no JSON form, or is nested too deep$"):
        codec.encode("echo", {"a": [value]})


def test_an_error_in_writing_quotes_no_value() -> None:
    password = b"hunter2"
    with pytest.raises(errors.EncodingError) as caught:
        codec.encode("login", {"password": password})
    error = caught.value
    assert "hunter2" not in "".join(traceback.format_exception(None, error, error.__traceback__))


def test_what_is_too_deep_for_the_peer_is_not_written() -> None:
    deep: Any = 1
    for _ in range(codec.DEPTH_LIMIT - 1):
        deep = [deep]
    codec.decode(codec.encode("echo", {"a": deep}).rstrip(b"\n"))
    with pytest.raises(errors.EncodingError):
        codec.encode("echo", {"a": [deep]})


def test_a_line_stays_below_the_limit_at_which_the_peer_drops_it() -> None:
    room = framing.LINE_LIMIT - len(codec.encode("echo", {"a": ""}))
    line = codec.encode("echo", {"a": "x" * room})
    assert list(framing.LineSplitter().feed(line)) == [line.rstrip(b"\n")]
    with pytest.raises(errors.EncodingError, match=r"^echo: 1048576 bytes, a line must stay below 1048576$"):
        codec.encode("echo", {"a": "x" * (room + 1)})


# ---- Whatever comes ----

#: Characters of every sort that is treated in its own way; not all there are, for a table of these takes seconds to make.
_CHARACTERS = st.sampled_from(
    'abz019 "\\/-.,:[]{}\x00\t\n\r\x1f\x7f\x85\x9f\xa0é\u07ff\u0800\u2028\ud800\udfff\ufeff\ufffd\uffff\U0001f600\U0010ffff'
)
_TEXTS = st.text(_CHARACTERS)
_NAMES = st.text(_CHARACTERS, min_size=1)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=20,
)


def _cleaned(value: Any) -> Any:
    """What the character filter makes of a value."""
    if isinstance(value, str):
        return characters.clean(value)
    if isinstance(value, list):
        return [_cleaned(member) for member in value]
    if isinstance(value, dict):
        return {characters.clean(key): _cleaned(member) for key, member in value.items()}
    return value


@given(_NAMES, st.dictionaries(_TEXTS, _VALUES, max_size=5))
def test_what_is_written_is_read_back(name: str, arguments: dict[str, Any]) -> None:
    arguments.pop(codec.NAME, None)
    line = codec.encode(name, arguments)
    assert line.count(b"\n") == 1
    assert repr(codec.decode(line.rstrip(b"\n"))) == repr((characters.clean(name), _cleaned(arguments)))


@given(st.binary())
def test_reading_arbitrary_bytes_raises_nothing_but_malformed_line(data: bytes) -> None:
    _try_decode(data)


def _try_decode(line: bytes) -> Optional[tuple[str, dict[str, Any]]]:
    try:
        return codec.decode(line)
    except errors.MalformedLine:
        return None


def _strictly(text: str) -> Optional[tuple[str, dict[str, Any]]]:
    """What the standard library makes of *text* under the same rules as ours."""
    try:
        value = json.loads(text.rstrip("\r"), parse_constant=_no_constant, parse_float=_finite)
    except ValueError:
        return None
    if not isinstance(value, dict):
        return None
    value = _cleaned(value)
    name = value.pop(codec.NAME, None)
    return (name, value) if isinstance(name, str) and name else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _finite(text: str) -> float:
    if float(text) in (float("inf"), float("-inf")):
        raise ValueError(text)
    return float(text)


#: Pieces of which JSON is made, and its near misses.
_TOKENS = st.sampled_from(
    [
        *'[]{},:"-+.01eE \t\r\x00\x1f\x7f\xa0\ufeff\u2028\ufffe',
        *"'/*#_xnIt",
        *["true", "false", "null", "NaN", "Infinity", "Inf", "nul", "1e400", "12345678901234567890", '"a"', '"a":'],
        *["\\u", "\\ud83d", "\\ude00", "\\u0000", "\\n", "\\/", "\\x", "0041"],
    ]
)
_NEAR_NUMBERS = st.text("-+.0123456789eEx_", max_size=12)
_NEAR_STRINGS = st.lists(_TOKENS | _CHARACTERS, max_size=6).map(lambda parts: f'"{"".join(parts)}"')
_NEAR_VALUES = _NEAR_NUMBERS | _NEAR_STRINGS | st.lists(_TOKENS, max_size=10).map("".join) | _VALUES.map(json.dumps)
_NEAR_MESSAGES = st.tuples(_NEAR_STRINGS | st.just('"echo"'), _NEAR_VALUES).map(
    lambda parts: f'{{"__name__":{parts[0]},"a":{parts[1]}}}'
)


@given(st.lists(_TOKENS, max_size=12).map("".join) | _NEAR_MESSAGES)
@example('{"__name__":"a","x":"-"}')
@example('{"__name__":"a","x":"01 1. NaN -"}')
@example('{"__name__":"a","x":1e-01}')
def test_a_line_is_read_exactly_when_and_as_the_strict_parser_reads_it(text: str) -> None:
    line = text.encode("utf-8", "replace")
    assert repr(_try_decode(line)) == repr(_strictly(line.decode("utf-8")))


#: What is of interest to whoever only looks at a line's bytes: nothing that must be replaced, and numbers in every place.
_PLAIN_TOKENS = st.sampled_from(
    [
        *'[]{},:" -+.01259eE',
        *["true", "false", "null", "NaN", "Infinity", "0e1", "9e9", "10e", "00", "-0", "1e400", "12345678901234567890"],
        *['"a"', '"a":', '"NaN"', '"-"', '"0.1e5"', "[0", "[ 0", '{"b":0', '{"b": 0', ', "c":[{}]', "[[[["],
    ]
)
_PLAIN_VALUES = st.lists(_PLAIN_TOKENS, max_size=6).map("".join) | _VALUES.map(json.dumps)
_PLAIN_OBJECTS = st.lists(st.tuples(st.sampled_from(["a", "b", "0", "-", "N"]), _PLAIN_VALUES), max_size=4).map(
    lambda members: "".join(f',"{name}":{value}' for name, value in members)
)
_PLAIN_LINES = _PLAIN_OBJECTS.map(lambda members: f'{{"__name__":"echo"{members}}}')


@given(_PLAIN_LINES | st.lists(_PLAIN_TOKENS, max_size=12).map("".join) | _NEAR_MESSAGES)
@example(_nested(codec.DEPTH_LIMIT).decode())
@example(_nested(codec.DEPTH_LIMIT + 1).decode())
@example('{"__name__":"echo","a":"}{[" ,"b":"\\" 00 [0"}')
@example('{"__name__":"echo" ,"a" : 1e5 , "b":[0]}')
@example('{"__name__":"echo","a":1,"a":01}')
def test_the_short_way_reads_a_line_exactly_as_the_long_way_does_or_both_refuse_it(text: str) -> None:
    line = text.encode("utf-8", "replace")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_is_plain", lambda _: False)
        with_care = _try_decode(line)
    assert repr(_try_decode(line)) == repr(with_care)
    if codec._is_plain(line):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(codec, "_read_with_care", _never)
            assert repr(_try_decode(line)) == repr(with_care)


def _never(_: object) -> NoReturn:
    raise AssertionError("a plain line was read with care")


@pytest.mark.parametrize("row", CATALOGUE.rows, ids=lambda row: f"{row.name} {row.direction.value}")
def test_what_good_peers_say_is_plain(row: Row) -> None:
    line = codec.encode(row.name, arguments_for(row)).rstrip()
    negative = row.name in ("number-of-cpus", "timezone")
    assert codec._is_plain(line) is not negative


@pytest.mark.parametrize(
    "line",
    [
        b'{"__name__":"echo","a":"-1.5E3 NaN Infinity 01 {[{[{[{[{[{[{[{[{[{[{[{[{[{[{[{[{[{["}',
        b'{"__name__":"echo","a":[1,20,305,true,false,null,{"b":"c"}]}',
        b'{ "__name__" : "echo" , "a" : [ 1 , 2 ] }',
        b'{"__name__":"0","-":10}',
    ],
)
def test_a_line_is_plain_whatever_stands_in_its_strings(line: bytes) -> None:
    assert codec._is_plain(line)


@pytest.mark.parametrize(
    "value",
    [
        *[
            "-1",
            "1.5",
            "1E5",
            "1e5",
            "0e5",
            "NaN",
            "Infinity",
            "01",
            " 01",
            "[01]",
            "[1,01]",
            "[1, 02]",
            "00",
            '"\\n"',
            '"\x7f"',
            '"é"',
            '"\t"',
        ],
        *["\t1", "[" * 32 + "]" * 32, '{"b":' * 32 + "1" + "}" * 32],
    ],
    ids=ascii,
)
def test_what_has_to_be_looked_at_is_not_plain(value: str) -> None:
    assert not codec._is_plain(f'{{"__name__":"echo","a":{value}}}'.encode())


@pytest.mark.parametrize("byte", sorted({*range(256)} - {*range(0x20, 0x7F)} | {0x5C}))
def test_a_byte_that_may_have_to_be_replaced_is_never_plain(byte: int) -> None:
    assert not codec._is_plain(b'{"__name__":"echo","a":"' + bytes([byte]) + b'"}')


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_every_short_spelling_of_a_number_is_read_exactly_as_the_strict_parser_reads_it(length: int) -> None:
    for text in _words("-+.01eE", length):
        line = f'{{"__name__":"a","x":{text}}}'
        assert repr(_try_decode(line.encode())) == repr(_strictly(line)), text


def _words(alphabet: str, length: int) -> list[str]:
    words = [""]
    for _ in range(length):
        words = [word + letter for word in words for letter in alphabet]
    return words


def test_a_line_of_nothing_but_members_is_refused_before_it_is_read() -> None:
    few = codec.encode("echo", {"x": [0] * (codec.MEMBERS_LIMIT - 1)})
    assert len(codec.decode(few)[1]["x"]) == codec.MEMBERS_LIMIT - 1
    many = codec.encode("echo", {"x": [0] * (codec.MEMBERS_LIMIT + 2)})
    with pytest.raises(errors.MalformedLine, match="more than 20000 members"):
        codec.decode(many)


@pytest.mark.parametrize("text", [",", '",', '\\",', "\\,", "\\\\,", '","', "ü,\n"])
def test_what_stands_in_a_text_is_no_member(text: str) -> None:
    said = {"x": text * (codec.MEMBERS_LIMIT + 2)}
    assert codec.decode(codec.encode("echo", said)) == ("echo", said)
    with pytest.raises(errors.MalformedLine, match="more than 20000 members"):
        codec.decode(codec.encode("echo", {**said, "y": [0] * (codec.MEMBERS_LIMIT + 2)}))
