"""The user's own files."""

import gzip
import itertools
import json
from pathlib import Path

import pytest

from bertjax.config.finetuning import Table
from bertjax.errors import UserError
from bertjax.tasks.registry import open_task


def write(folder: Path, **files: str) -> Table:
    """Writes train, dev and test files, whose kind is that of their content's first line; returns their Table."""
    names = {}
    for split, content in files.items():
        first = content.split("\n")[0]
        names[split] = f"{split}{'.jsonl' if first.startswith('{') else '.tsv' if chr(9) in first else '.csv'}"
        (folder / names[split]).write_text(content, encoding="utf-8")
    return Table(**names)


def test_csv_with_quotes_line_ends_and_a_byte_order_mark(tmp_path):
    """As spreadsheets write it."""
    table = write(
        tmp_path,
        train='\ufefflabel,note,text\nspam,x,"Win ""now"",\ncall\u2028us"\n\nham,,See you\n',
        dev="text,label\nhello,ham\n",
        test="text,label\nhello,\n",
    )
    task = open_task("table/classification", str(tmp_path), table)
    assert task.labels == ("ham", "spam") and task.dev == ("dev",) and task.test == ("test",)
    spam, ham = task.read("train")
    assert (spam.text, spam.label) == ('Win "now",\ncall\u2028us', 1)
    assert (ham.text, ham.label, ham.where) == ("See you", 0, f"{tmp_path / 'train.csv'}, row 4")
    assert task.read("test")[0].label is None
    scores = task.score([spam, ham, ham, ham], [1, 0, 0, 1])
    assert scores == pytest.approx({"accuracy": 75.0, "f1_macro": (80 + 200 / 3) / 2})


def test_two_texts_from_zipped_json_lines_and_a_long_one(tmp_path):
    """And the labels, where they are numbers, in the order of numbers."""
    long = "word " * 100_000
    lines = [
        {"a": "one", "b": long, "stars": 10},
        {"a": "two", "b": "x", "stars": 9},
        {"a": "two", "b": "x", "stars": 1},
    ]
    with gzip.open(tmp_path / "train.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "test.tsv").write_text(f"a\tb\tstars\none\t{long}\t9\n")
    table = Table(train="train.jsonl.gz", test="test.tsv", text="a", second="b", label="stars")
    task = open_task("table/classification", str(tmp_path), table)
    assert task.labels == ("1", "9", "10") and task.dev == ("test",), "a test file with labels can be scored"
    assert [(example.text, example.label) for example in task.read("train")] == [("one", 2), ("two", 1), ("two", 0)]
    assert task.read("test")[0].text_pair == long
    # A checkpoint knows its labels, in its own order, and needs no training file.
    later = open_task(
        "table/classification", str(tmp_path), Table(test="test.tsv", text="a", label="stars"), ["9", "x"]
    )
    assert later.read("test")[0].label == 0 and later.read("test")[0].text_pair is None


def test_several_labels_at_a_time(tmp_path):
    csv = 'text,label\na,red|blue\nb,"[""green"", ""red""]"\nc,\n'
    task = open_task("table/multi_label", str(tmp_path), write(tmp_path, train=csv, dev=csv))
    assert task.labels == ("blue", "green", "red")
    assert [example.label for example in task.read("train")] == [(0, 2), (1, 2), ()]
    jsonl = "".join(
        json.dumps({"text": text, "label": label}) + "\n" for text, label in (("a", ["red", "blue"]), ("c", []))
    )
    again = open_task("table/multi_label", str(tmp_path), write(tmp_path, train=jsonl))
    assert [example.label for example in again.read("train")] == [(0, 1), ()]
    # Of 4 labels that hold and 4 predicted 3 are right: blue and green 1 of 1, red 1 of 2 with one missed.
    scores = task.score(task.read("dev"), [(0, 2), (1,), (2,)])
    assert scores == pytest.approx({"f1_micro": 75.0, "f1_macro": 250 / 3, "accuracy": 100 / 3})


def test_rows_of_a_test_file_may_have_none_of_several_labels(tmp_path):
    csv = "text,label\na,red\nc,\n"
    task = open_task("table/multi_label", str(tmp_path), write(tmp_path, train=csv, test=csv))
    assert task.dev == ("test",) and [example.label for example in task.read("test")] == [(0,), ()]


def test_classes_stand_in_one_order(tmp_path):
    """As numbers only where all of them are: "nan" compares with nothing."""
    for cells, expected in ((["10", "9", "1.5"], ("1.5", "9", "10")), (["nan", "10", "9"], ("10", "9", "nan"))):
        for order in itertools.permutations(cells):
            csv = "text,label\n" + "".join(f"a,{label}\n" for label in order)
            assert open_task("table/classification", str(tmp_path), write(tmp_path, train=csv)).labels == expected


def test_numbers(tmp_path):
    csv = "text,label\na,1.5\nb,-2e3\n"
    task = open_task("table/regression", str(tmp_path), write(tmp_path, train=csv, dev=csv))
    assert [example.label for example in task.read("dev")] == [1.5, -2000.0] and task.labels == ()
    assert task.score(task.read("dev"), [2.0, 1.0])["pearson"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "train.jsonl",
            '{"text": ["New", "York", "is"], "label": ["B-LOC", "I-LOC", "O"]}\n{"text": "big", "label": "O"}\n',
        ),
        ("train.tsv", "text\tlabel\nNew York is\tB-LOC I-LOC O\nbig\tO\n"),
        ("train.conll", "-DOCSTART- O\n\nNew B-LOC\nYork\tI-LOC\nis O\n\n\nbig O\n"),
    ],
)
def test_tags_of_words(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    task = open_task("table/tagging", str(tmp_path), Table(train=name, dev=name))
    assert [(example.words, example.labels) for example in task.read("train")] == [
        (("New", "York", "is"), (0, 1, 2)),
        (("big",), (2,)),
    ]
    assert task.metric == "f1" and task.score(task.read("dev"), [(0, 2, 2), (2,)])["f1"] == 0
    (tmp_path / "test.txt").write_text("New\nYork\n")
    [example] = open_task("table/tagging", str(tmp_path), Table(test="test.txt"), task.labels).read("test")
    assert example.words == ("New", "York") and example.labels is None
    (tmp_path / "space.txt").write_text("5\u00a0000\tO\nYork B-LOC\n")
    [example] = open_task("table/tagging", str(tmp_path), Table(dev="space.txt"), task.labels).read("dev")
    assert example.words == ("5\u00a0000", "York")
    (tmp_path / "other.conll").write_text("go VERB\n\non ADP\n")
    assert open_task("table/tagging", str(tmp_path), Table(train="other.conll")).metric == "accuracy"


GOOD = "text,label\na,x\nb,y\n"


@pytest.mark.parametrize(
    ("kind", "name", "content", "message"),
    [
        (
            "classification",
            "f.csv",
            "txt,label\na,x\n",
            r"f\.csv: no column 'text' \(found: 'txt', 'label'\); give table\.text",
        ),
        ("classification", "f.csv", "text,class\na,x\n", r"no column 'label' .*give table\.label"),
        (
            "classification",
            "f.csv",
            "text,label\na,x\nb,z\n",
            r"f\.csv, row 3: unknown label 'z'; those that are known: x, y",
        ),
        ("classification", "f.csv", "text,label\n  ,x\n", "row 2: the text is empty"),
        ("classification", "f.csv", "text,label\na,\n", "row 2: there is no label"),
        (
            "classification",
            "f.csv",
            "text,label\na, and b,x\n",
            "row 2: 3 cells where the header has 2; put text with a comma in quotes",
        ),
        ("classification", "f.csv", 'text,label\na,x\n"b,y\nc,x\n', "row 3: quotes do not match"),
        ("classification", "f.csv", "", "the file is empty"),
        ("classification", "f.csv", "text,label\n", "there are no examples"),
        ("classification", "f.csv", b"text,label\nM\xfcnchen,x\n", "broken UTF-8 in line 2"),
        (
            "classification",
            "f.jsonl",
            '{"text": "a", "label": "x"}\n{"text": ',
            r"jsonl, row 2: not valid \(not JSON",
        ),
        ("classification", "f.jsonl", '["a", "x"]', "row 1: not valid .Expected `object`, got `array`"),
        (
            "classification",
            "f.jsonl",
            '{"tekst": "a", "label": "x"}',
            r"row 1: no field 'text' \(found: 'tekst', 'label'\)",
        ),
        ("classification", "f.jsonl", '{"text": 7, "label": "x"}', "row 1: not valid .text: Expected `str`, got `int`"),
        ("classification", "f.jsonl", '{"text": "a", "label": null}', "row 1: there is no label"),
        ("classification", "f.jsonl", '{"text": "\\ud800", "label": "x"}', "row 1: not valid .broken text"),
        ("classification", "f.json", "{}", r"unknown kind of file; give one of \.csv \.tsv \.jsonl"),
        (
            "multi_label",
            "f.csv",
            'text,label\na,"[1, "\n',
            "row 2, the labels: not valid .not JSON.*; write a",
        ),
        ("regression", "f.csv", "text,label\na,1\nb,four\n", "row 3: the label 'four' is no finite number"),
        ("regression", "f.csv", "text,label\na,nan\n", "row 2: the label 'nan' is no finite number"),
        ("regression", "f.jsonl", '{"text": "a", "label": NaN}', "row 1: the label nan is no finite number"),
        ("tagging", "f.tsv", "text\tlabel\na b\tx\n", "row 2: 2 words but 1 labels"),
        ("tagging", "f.jsonl", '{"text": ["a", ""], "label": ["x", "y"]}', "row 1: a word is empty"),
        (
            "tagging",
            "f.jsonl",
            '{"text": null, "label": ["x"]}',
            "row 1: not valid .text: Expected .*got `null`",
        ),
        ("tagging", "f.conll", "a x\nb\n", "row 2: 1 columns instead of 2"),
        ("tagging", "f.conll", "a\nb\n", "row 1: 1 columns instead of 2"),
    ],
)
def test_bad_input_is_named_with_its_row(tmp_path, kind, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    task = open_task(f"table/{kind}", str(tmp_path), Table(dev=name), labels=["x", "y"])
    with pytest.raises(UserError, match=message) as error:
        task.read("dev")
    assert name in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_test_file_has_labels_or_has_none(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"text": "a"}\n{"text": "b", "label": "y"}\n')
    task = open_task("table/classification", str(tmp_path), Table(test="test.jsonl"), labels=["x", "y"])
    with pytest.raises(UserError, match=r"test\.jsonl, row 1: there is no label, while other rows have one"):
        task.read("test")


def test_files_that_are_not_there_and_labels_that_are_too_few(tmp_path):
    with pytest.raises(UserError, match=r"give table\.train"):
        open_task("table/classification", str(tmp_path))
    with pytest.raises(UserError, match=r"no file for train; give table\.train"):
        open_task("table/classification", str(tmp_path), Table(dev="dev.csv"))
    with pytest.raises(UserError, match=r"train\.csv: cannot be read \(No such file"):
        open_task("table/classification", str(tmp_path), Table(train="train.csv"))
    table = write(tmp_path, train="text,label\na,x\n")
    with pytest.raises(UserError, match=r"1 different labels, too few to learn; check table\.label"):
        open_task("table/classification", str(tmp_path), table)
    with pytest.raises(UserError, match="needs its data"):
        open_task("glue/cola", "")
