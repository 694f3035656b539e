"""JSON is read in one way only, or not at all."""

import copy
import json

import pytest

from controller.core import strict_json
from controller.errors import ContractViolation


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


GOOD = {
    "a body": '{"id": "/a", "properties": {"list": [1, 1.5, true, null, "\\u00fc", "ü"]}}',
    "whole pairs": '"\\ud83d\\ude00"',
    "one key at two places": '{"a": {"a": 1}, "b": {"a": 1}}',
    "numbers of many digits": "9" * 4000,
    "the deepest": nested(strict_json.MAX_DEPTH),
}


@pytest.mark.parametrize("name", GOOD)
def test_json_is_read_and_can_be_written_again(name: str) -> None:
    """What is read has a text that reads the same, and survives a copy."""
    value = strict_json.loads(GOOD[name].encode(), "the reply")
    assert value == json.loads(GOOD[name])
    assert strict_json.loads(json.dumps(copy.deepcopy(value)), "the reply") == value


def test_halves_are_read_where_they_are_ours() -> None:
    """Content that agents wrote may hold half a pair, because the text of an error may."""
    assert strict_json.loads('{"\\udc00": "\\ud800"}', "x", halves=True) == {"\udc00": "\ud800"}


def test_a_byte_order_mark_is_skipped() -> None:
    """A body may begin with a byte order mark, as some proxies send it."""
    assert strict_json.loads(b'\xef\xbb\xbf{"a": 1}', "the reply") == {"a": 1}


BAD: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "Expecting value"),
    "half": (b'{"a": ', "Expecting value"),
    "a key twice": (b'{"Events": [1], "Events": []}', "the key 'Events' comes twice"),
    "a key twice below": (b'[{"a": {"id": 1, "b": 2, "id": 1}}]', "the key 'id' comes twice"),
    "a long key twice": (b'{"%s": 1, "%s": 1}' % (b"x" * 9000, b"x" * 9000), "comes twice"),
    "NaN": (b'{"a": NaN}', "a number that no other reader takes"),
    "infinite": (b"[-Infinity]", "a number that no other reader takes"),
    "beyond every float": (b"[1e400]", "a number that no other reader takes"),
    "beyond every int": (b"9" * 5000, "digits"),
    "half a pair": (b'"\\ud800"', "surrogates not allowed"),
    "half a pair as key": (b'{"\\udc00": 1}', "surrogates not allowed"),
    "half a pair in UTF-8": (b'"\xed\xa0\x80"', "invalid continuation byte"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "can't decode byte"),
    "no text": (b"\x00\xff", "can't decode byte"),
    "too deep": (nested(strict_json.MAX_DEPTH + 1).encode(), "nested too deeply"),
    "much too deep": (nested(100_000).encode(), "nested too deeply"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_could_be_read_in_two_ways_is_refused(name: str) -> None:
    """Whatever another reader would take for something else is refused, in few words."""
    body, reason = BAD[name]
    with pytest.raises(ContractViolation) as caught:
        strict_json.loads(body, "the reply")
    assert reason in str(caught.value)
    assert str(caught.value).startswith("the reply is not JSON: ")
    assert len(str(caught.value)) < 200


def test_how_deep_is_too_deep() -> None:
    """Sixty-four levels are read, one more is refused."""
    assert strict_json.loads("[" * 64 + "]" * 64, "it") is not None
    with pytest.raises(ContractViolation, match="nested too deeply"):
        strict_json.loads("[" * 65 + "]" * 65, "it")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing"),
        (True, "true or false"),
        ({}, "an object"),
        ([], "a list"),
        ("", "text"),
        (1, "a number"),
        (1.5, "a number"),
    ],
)
def test_the_kind_of_a_value_in_words(value: object, words: str) -> None:
    """People read what JSON has, not the names of classes."""
    assert strict_json.kind_of(value) == words
