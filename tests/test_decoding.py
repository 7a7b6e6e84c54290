"""JSON files are read into typed values, or refused with the place of the problem."""

import dataclasses
import json
from collections.abc import Mapping
from typing import TypedDict

import msgspec
import pytest

from bertjax.decoding import DecodingError, columns_type, convert, decode, parse


@dataclasses.dataclass(frozen=True)
class Part:
    name: str
    size: int
    share: float | None = None


class Parts(TypedDict, total=False):
    first: tuple[Part, ...]
    second: tuple[Part, ...]


@dataclasses.dataclass(frozen=True)
class Whole:
    parts: Parts
    notes: Mapping[str, object] = dataclasses.field(default_factory=dict)
    best: Part | None = None


def decoded(text: str) -> Whole:
    return convert(parse(text.encode(), "a.json", "create it again"), Whole, "a.json", "create it again")


def test_dataclasses_are_read_with_their_defaults():
    text = '{"parts": {"first": [{"name": "a", "size": 1, "share": 2}]}, "notes": {"of": [{"any": null}, NaN]}}'
    whole = decoded(text)
    assert whole.parts == {"first": (Part("a", 1, 2.0),)} and whole.best is None
    assert isinstance(whole.parts["first"][0].share, float) and whole.notes["of"][0] == {"any": None}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"parts": {"second": [{"name": "a", "size": "1"}]}}', "parts.second[0].size: Expected `int`, got `str`"),
        ('{"parts": {"second": [{"name": "a", "size": 1.5}]}}', "parts.second[0].size: Expected `int`, got `float`"),
        ('{"parts": {"second": [{"name": "a", "size": true}]}}', "parts.second[0].size: Expected `int`, got `bool`"),
        ('{"parts": {"first": [{"size": 1}]}}', "parts.first[0]: Object missing required field `name`"),
        ("{}", "Object missing required field `parts`"),
        ("[]", "Expected `object`, got `array`"),
        ('{"parts": {}, "best": {"name": "a", "size": 1, "sizes": 2}}', "unknown key best.sizes"),
        ('{"parts": {"third": []}}', "unknown key parts.third"),
        ('{"parts": {"first": [{"name": "a", "size": 1}, {"name": "a", "size": 1, "": 0}]}}', "key parts.first[1]."),
        ('{"parts": {},\n "notes"', "not JSON: Expecting ':' delimiter: line 2"),
        ('{"parts": {}, "notes": ' + "[" * 100_000, "not JSON: maximum recursion depth"),
    ],
)
def test_invalid_content_is_refused_in_one_line_with_file_place_and_remedy(text, problem):
    with pytest.raises(DecodingError) as error:
        decoded(text)
    message = str(error.value)
    assert problem in error.value.problem and error.value.problem in message
    assert message.startswith("a.json: ") and message.endswith("; create it again") and "\n" not in message


def test_broken_utf8_is_refused():
    with pytest.raises(DecodingError, match="not JSON"):
        parse(b'{"a": "\xff"}', "a.json", "create it again")


@pytest.mark.parametrize(
    "number",
    ["0", "-0", "-0.0", "1e400", "NaN", "Infinity", "1e22", "0.1", "5e-324", "1.0", "true", "9" * 19, "9" * 30],
)
def test_decode_returns_the_values_of_the_json_module(number):
    """On both decoding paths; the last of duplicate keys wins."""
    text = f'{{"a b": 1, "other": [[NaN]], "a b": {number}}}'
    schema = columns_type({"value": ("a b", str | bool | int | float), "none": ("c", str)})
    for data in (text, text.encode()):
        record = decode(data, schema, "a.jsonl, line 1", "correct it")
        assert repr(record.value) == repr(json.loads(text)["a b"]) and record.none is msgspec.UNSET


def test_records_are_refused_with_line_and_column():
    for text, problem in (('{"a b": [1]}', "a b: Expected `str`, got `array`"), ('{"a b": "x"', "not JSON: ")):
        with pytest.raises(DecodingError, match=r"^a\.jsonl, line 1: not valid .* correct it$") as error:
            decode(text, columns_type({"value": ("a b", str)}), "a.jsonl, line 1", "correct it")
        assert error.value.problem.startswith(problem)
