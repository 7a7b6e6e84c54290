"""Damaged task files raise a UserError of one line with the file, the place in it and a remedy."""

import copy
import json
import tracemalloc
from pathlib import Path

import pytest

from bertjax.config.finetuning import TableConfig
from bertjax.errors import UserError
from bertjax.tasks.registry import open_task
from bertjax.text import readers

DEEP = "[" * 100_000


def error_message(read) -> str:
    """Returns the message of the UserError that `read` raises."""
    with pytest.raises(UserError) as error:
        read()
    message = str(error.value)
    assert len(message.splitlines()) == 1 and len(message) < 1000
    assert "; " in message, "the message lacks a remedy"
    return message


def read_table(folder: Path, kind: str, name: str, content: str | bytes, **columns: str):
    """Reads a file as the train split of a table."""
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_task(f"table/{kind}", str(folder), TableConfig(train=name, **columns)).read("train")


SQUAD = {
    "data": [
        {"paragraphs": []},
        {
            "title": "t",
            "paragraphs": [
                {
                    "context": "Paris, Rome",
                    "qas": [
                        {"id": "a", "question": "?", "answers": []},
                        {"id": "b", "question": "?", "answers": [{"text": "Rome", "answer_start": 7}]},
                    ],
                }
            ],
        },
    ]
}
ANSWER = ("data", 1, "paragraphs", 0, "qas", 1, "answers", 0)


def changed(path: tuple, value: object) -> str:
    """Returns SQUAD as JSON with another value at a path; `...` deletes it."""
    content = copy.deepcopy(SQUAD)
    inner = content
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return json.dumps(content)


def read_squad(folder: Path, content: str | bytes, split: str = "train"):
    (folder / f"{split}-v2.0.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    return open_task("squad/v2.0", str(folder)).read(split)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            changed((*ANSWER, "answer_start"), "7"),
            r"data[1].paragraphs[0].qas[1].answers[0].answer_start: Expected `int`, got `str`",
        ),
        (changed((*ANSWER, "answer_start"), 7.5), "answers[0].answer_start: Expected `int`, got `float`"),
        (changed((*ANSWER, "answer_start"), 10**30), "answers[0].answer_start: Expected `int`"),
        (changed((*ANSWER, "answer_start"), -2), "answers[0].answer_start: Expected `int` >= -1"),
        (changed((*ANSWER, "text"), ...), "qas[1].answers[0]: Object missing required field `text`"),
        (changed(ANSWER, None), "qas[1].answers[0]: Expected `object`, got `null`"),
        (changed(("data", 1, "paragraphs", 0, "qas", 0, "id"), 7), "qas[0].id: Expected `str`, got `int`"),
        (changed(("data", 1, "paragraphs", 0, "qas", 0, "id"), "a" * 5000), "qas[0].id: Expected `str` of length"),
        (changed(("data", 1, "paragraphs", 0, "context"), []), "paragraphs[0].context: Expected `str`, got `array`"),
        (changed(("data", 0, "paragraphs"), ...), "data[0]: Object missing required field `paragraphs`"),
        (changed(("data",), ...), "Object missing required field `data`"),
        (changed(("data", 0, "paragraphs"), "\ud800"), "invalid text: unpaired surrogate"),
        ("[]", "Expected `object`, got `array`"),
        (json.dumps(SQUAD)[:-5], "not JSON"),
        (DEEP, "not JSON"),
        ('{"data": ' + "[" * 50 + "]" * 50 + "}", "nested more than 32 levels deep"),
        (b'{"data": "\xff"}', "not JSON"),
        (b"", "not JSON"),
    ],
)
def test_squad_errors_name_the_path_in_the_file(tmp_path, content, problem):
    message = error_message(lambda: read_squad(tmp_path, content))
    assert message.startswith(f"{tmp_path / 'train-v2.0.json'}: not valid (") and problem in message
    assert message.endswith("; download SQuAD's original file again, or restore it from a copy")


def test_squad_ignores_unknown_keys_and_skips_misplaced_answers_in_training(tmp_path):
    """As in the official scripts, `answer_start` matters only for training."""
    more = json.loads(changed(ANSWER, {"text": "e", "answer_start": -1})) | {"version": "2.0", "extra": {"a": [[[1]]]}}
    content = b"\xef\xbb\xbf" + json.dumps(more).encode()
    assert [question.id for question in read_squad(tmp_path, content, "dev")] == ["a", "b"]
    assert [question.id for question in read_squad(tmp_path, content)] == ["a"]
    beyond = changed((*ANSWER, "answer_start"), 1000)
    assert [question.id for question in read_squad(tmp_path, beyond)] == ["a"]


GOOD_LINE = '{"text": "a", "second": "b", "label": "x"}\n'


@pytest.mark.parametrize("kind", ["classification", "multi_label", "regression", "tagging", "retrieval"])
@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": "a", "second": "b", "label": ', "not JSON"),
        ("7", "Expected `object`, got `int`"),
        ('{"text": 7, "second": "b", "label": "x"}', "text: Expected `"),
        ('{"text": {"a": 1}, "second": "b", "label": "x"}', "text: Expected `"),
        ('{"text": "a", "second": null, "label": "x"}', "second: Expected `str`, got `null`"),
        ('{"text": "a", "second": "b", "label": {"x": 1}}', "label: Expected `"),
        ('{"text": "\\ud800", "second": "b", "label": "x"}', "invalid text: unpaired surrogate"),
        (f'{{"text": {"1" * 5000}, "second": "b", "label": "x"}}', "not JSON"),
        ('{"text": ' + DEEP, "not JSON"),
        ('{"text": ' + "[" * 50 + "]" * 50 + "}", "nested more than 32 levels deep"),
    ],
)
def test_json_lines_errors_name_the_line_and_the_column(tmp_path, kind, line, problem):
    columns = {"second": "second"} | ({"negative": "label"} if kind == "retrieval" else {})
    content = GOOD_LINE.replace('"x"', "1" if kind == "regression" else '"x"') + line + "\n"
    message = error_message(lambda: read_table(tmp_path, kind, "a.jsonl", content, **columns))
    assert message.startswith(f"{tmp_path / 'a.jsonl'}, line 2: not valid (") and problem in message
    assert message.endswith("; correct the line")


def test_a_column_may_have_any_name_and_be_both_texts(tmp_path):
    content = '{"my text": "a", "class": 1, "x": NaN}\n{"my text": "b", "class": 2}\n'
    columns = {"text": "my text", "second": "my text", "label": "class"}
    first, _ = read_table(tmp_path, "classification", "a.jsonl", content, **columns)
    assert (first.text, first.text_pair, first.label) == ("a", "a", 0)
    message = error_message(lambda: read_table(tmp_path, "classification", "a.jsonl", '{"my text": 3}', **columns))
    assert "line 1: not valid (my text: Expected `str`, got `int`)" in message
    many = json.dumps({f"key {number} {'x' * 500}": 0 for number in range(1000)})
    assert "no field 'my text' (found: 'key 0 " in error_message(
        lambda: read_table(tmp_path, "classification", "a.jsonl", many, **columns)
    )


@pytest.mark.parametrize(
    ("kind", "name", "content", "problem"),
    [
        (
            "classification",
            "a.csv",
            "text,label,label\na,x,y\n",
            "a.csv: 2 columns are named 'label'; rename",
        ),
        ("classification", "a.csv", "text,label,,\na,x,y\n", "row 2: 3 cells, but the header has 4"),
        ("classification", "a.csv", b"text,label\na\0b,x\n", "a.csv: binary data (a zero byte at byte 12)"),
        ("classification", "a.csv", "text,label\na,x\n".encode("utf-16"), "a.csv: "),
        ("classification", "a.csv", f"text,label\na,{'x' * 5000}\n", "row 2, the label: not valid (Expected `str` of"),
        ("classification", "a.csv.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\3K", "a.csv.gz: damaged or truncated"),
        ("multi_label", "a.csv", 'text,label\na,"[1, {}]"\n', "row 2, the labels: not valid ([1]: Expected"),
        ("multi_label", "a.csv", f'text,label\na,"{DEEP}"\n', "row 2, the labels: not valid (not JSON"),
        ("regression", "a.csv", f"text,label\na,{'9' * 5000}\n", "row 2: label '9999"),
        ("regression", "a.jsonl", f'{{"text": "a", "label": {"9" * 4000}}}', "line 1: label 9999"),
        ("tagging", "a.jsonl", '{"text": ["a"], "label": 3}', "line 1: not valid (label: Expected `str | array"),
        ("tagging", "a.jsonl", '{"text": ["a", 1], "label": "x y"}', "line 1: not valid (text[1]: Expected `str`"),
        ("tagging", "a.conll", b"a x\n\nb \xff\n", "a.conll: invalid UTF-8 in line 3"),
    ],
)
def test_other_table_errors_name_the_place(tmp_path, kind, name, content, problem):
    assert problem in error_message(lambda: read_table(tmp_path, kind, name, content))


@pytest.mark.parametrize(
    ("task", "name", "content", "problem"),
    [
        ("glue/rte", "test.tsv", "index\tsentence1\tsentence2\n²\ta\tb\n", "line 2: the index '²' is not a number"),
        ("glue/rte", "test.tsv", f"index\tsentence1\tsentence2\n{'1' * 5000}\ta\tb\n", "line 2: the index '1111"),
        ("glue/rte", "test.tsv", "index\tsentence1\tsentence2\n0\ta\n", "line 2: 1 cells missing at the end"),
        ("glue/rte", "test.tsv", b"index\tsentence1\tsentence2\n0\ta\0\tb\n", "test.tsv: binary data"),
        ("glue/rte", "test.tsv", b"index\tsentence1\tsentence2\n0\t\xe9\tb\n", "test.tsv: invalid UTF-8 in line 2"),
        ("conll2003/ner", "test.txt", f"a X X {'y' * 5000}\n", "line 1: unknown label 'yyyy"),
        ("conll2003/ner", "test.txt", b"a X X \xff\n", "test.txt: invalid UTF-8 in line 1"),
        ("swag", "test.csv", "sent1,sent2,ending0,ending1,ending2\na,b,c,d,e\n", "test.csv: no column 'ending3'"),
    ],
)
def test_errors_in_official_files_name_the_place(tmp_path, task, name, content, problem):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert problem in error_message(lambda: open_task(task, str(tmp_path)).read("test"))


@pytest.mark.parametrize(
    ("name", "begin", "endless", "problem"),
    [
        ("a.jsonl", '{"text": "', "x" * 999, "a.jsonl, line 1: longer than 10,000 characters"),
        ("a.csv", 'text,label\na,x\n"', "x\n" * 999, "row 3: more than 10,000 characters"),
        ("a.csv", 'text,label\na,x\n"', '","\n' * 999, "row 3: more than 10,000 characters"),
    ],
)
def test_endless_lines_and_cells_are_read_in_bounded_memory(tmp_path, monkeypatch, name, begin, endless, problem):
    monkeypatch.setattr(readers, "MAX_LINE", 10_000)
    monkeypatch.setattr(readers, "_BLOCK", 1000)
    with (tmp_path / name).open("w") as file:
        file.write(begin)
        file.writelines(endless for _ in range(5000))
    task = open_task("table/classification", str(tmp_path), TableConfig(dev=name), labels=["x", "y"])
    tracemalloc.start()
    try:
        assert problem in error_message(lambda: task.read("dev"))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
