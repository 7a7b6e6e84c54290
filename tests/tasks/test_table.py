"""Tables: the user's own files."""

import gzip
import itertools
import json
from pathlib import Path

import pytest

from bertjax.config.finetuning import TableConfig
from bertjax.errors import UserError
from bertjax.tasks.registry import open_task


def write(folder: Path, **files: str) -> TableConfig:
    """Writes files of splits, in the format that the first line of their content shows; returns their TableConfig."""
    names = {}
    for split, content in files.items():
        first = content.split("\n")[0]
        names[split] = f"{split}{'.jsonl' if first.startswith('{') else '.tsv' if chr(9) in first else '.csv'}"
        (folder / names[split]).write_text(content, encoding="utf-8")
    return TableConfig(**names)


def test_csv_with_quotes_line_ends_and_a_byte_order_mark(tmp_path):
    """Spreadsheets write such files."""
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


def test_pairs_from_compressed_json_lines_with_a_long_text(tmp_path):
    """Labels that are numbers are sorted as numbers."""
    long = "word " * 100_000
    lines = [
        {"a": "one", "b": long, "stars": 10},
        {"a": "two", "b": "x", "stars": 9},
        {"a": "two", "b": "x", "stars": 1},
    ]
    with gzip.open(tmp_path / "train.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "test.tsv").write_text(f"a\tb\tstars\none\t{long}\t9\n")
    table = TableConfig(train="train.jsonl.gz", test="test.tsv", text="a", second="b", label="stars")
    task = open_task("table/classification", str(tmp_path), table)
    assert task.labels == ("1", "9", "10") and task.dev == ("test",), "a test file with labels can be scored"
    assert [(example.text, example.label) for example in task.read("train")] == [("one", 2), ("two", 1), ("two", 0)]
    assert task.read("test")[0].text_pair == long
    # With the labels of a checkpoint, in its order, no training file is needed.
    later = open_task(
        "table/classification", str(tmp_path), TableConfig(test="test.tsv", text="a", label="stars"), ["9", "x"]
    )
    assert later.read("test")[0].label == 0 and later.read("test")[0].text_pair is None


def test_several_labels_per_example(tmp_path):
    csv = 'text,label\na,red|blue\nb,"[""green"", ""red""]"\nc,\n'
    task = open_task("table/multi_label", str(tmp_path), write(tmp_path, train=csv, dev=csv))
    assert task.labels == ("blue", "green", "red")
    assert [example.label for example in task.read("train")] == [(0, 2), (1, 2), ()]
    jsonl = "".join(
        json.dumps({"text": text, "label": label}) + "\n" for text, label in (("a", ["red", "blue"]), ("c", []))
    )
    again = open_task("table/multi_label", str(tmp_path), write(tmp_path, train=jsonl))
    assert [example.label for example in again.read("train")] == [(0, 1), ()]
    # 4 true and 4 predicted labels, 3 in common: blue and green 1 of 1, red 1 of 2 with one missed.
    scores = task.score(task.read("dev"), [(0, 2), (1,), (2,)])
    assert scores == pytest.approx({"f1_micro": 75.0, "f1_macro": 250 / 3, "accuracy": 100 / 3})


def test_examples_of_a_test_file_may_have_no_labels_in_multi_label(tmp_path):
    csv = "text,label\na,red\nc,\n"
    task = open_task("table/multi_label", str(tmp_path), write(tmp_path, train=csv, test=csv))
    assert task.dev == ("test",) and [example.label for example in task.read("test")] == [(0,), ()]


def test_the_order_of_classes_does_not_depend_on_the_file(tmp_path):
    """Sorted as numbers only if all are finite: "nan" has no order."""
    for cells, expected in ((["10", "9", "1.5"], ("1.5", "9", "10")), (["nan", "10", "9"], ("10", "9", "nan"))):
        for order in itertools.permutations(cells):
            csv = "text,label\n" + "".join(f"a,{label}\n" for label in order)
            assert open_task("table/classification", str(tmp_path), write(tmp_path, train=csv)).labels == expected


def test_regression_labels(tmp_path):
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
def test_labels_per_word(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    task = open_task("table/tagging", str(tmp_path), TableConfig(train=name, dev=name))
    assert [(example.words, example.labels) for example in task.read("train")] == [
        (("New", "York", "is"), (0, 1, 2)),
        (("big",), (2,)),
    ]
    assert task.metric == "f1" and task.score(task.read("dev"), [(0, 2, 2), (2,)])["f1"] == 0
    (tmp_path / "test.txt").write_text("New\nYork\n")
    [example] = open_task("table/tagging", str(tmp_path), TableConfig(test="test.txt"), task.labels).read("test")
    assert example.words == ("New", "York") and example.labels is None
    (tmp_path / "space.txt").write_text("5\u00a0000\tO\nYork B-LOC\n")
    [example] = open_task("table/tagging", str(tmp_path), TableConfig(dev="space.txt"), task.labels).read("dev")
    assert example.words == ("5\u00a0000", "York")
    (tmp_path / "other.conll").write_text("go VERB\n\non ADP\n")
    assert open_task("table/tagging", str(tmp_path), TableConfig(train="other.conll")).metric == "accuracy"


GOOD = "text,label\na,x\nb,y\n"


@pytest.mark.parametrize(
    ("kind", "name", "content", "message"),
    [
        (
            "classification",
            "f.csv",
            "txt,label\na,x\n",
            r"f\.csv: no column 'text' \(found: 'txt', 'label'\); set table\.text",
        ),
        ("classification", "f.csv", "text,class\na,x\n", r"no column 'label' .*set table\.label"),
        (
            "classification",
            "f.csv",
            "text,label\na,x\nb,z\n",
            r"f\.csv, row 3: unknown label 'z'; use one of x, y",
        ),
        ("classification", "f.csv", "text,label\n  ,x\n", "row 2: the text is empty"),
        ("classification", "f.csv", "text,label\na,\n", "row 2: no label"),
        (
            "classification",
            "f.csv",
            "text,label\na, and b,x\n",
            "row 2: 3 cells, but the header has 2; quote cells that contain commas",
        ),
        ("classification", "f.csv", 'text,label\na,x\n"b,y\nc,x\n', "row 3: unbalanced quotes"),
        ("classification", "f.csv", "", "the file is empty"),
        ("classification", "f.csv", "text,label\n", "no examples"),
        ("classification", "f.csv", b"text,label\nM\xfcnchen,x\n", "invalid UTF-8 in line 2"),
        (
            "classification",
            "f.jsonl",
            '{"text": "a", "label": "x"}\n{"text": ',
            r"jsonl, line 2: not valid \(not JSON",
        ),
        ("classification", "f.jsonl", '["a", "x"]', "line 1: not valid .Expected `object`, got `array`"),
        (
            "classification",
            "f.jsonl",
            '{"tekst": "a", "label": "x"}',
            r"line 1: no field 'text' \(found: 'tekst', 'label'\)",
        ),
        (
            "classification",
            "f.jsonl",
            '{"text": 7, "label": "x"}',
            "line 1: not valid .text: Expected `str`, got `int`",
        ),
        ("classification", "f.jsonl", '{"text": "a", "label": null}', "line 1: no label"),
        ("classification", "f.jsonl", '{"text": "\\ud800", "label": "x"}', "line 1: not valid .invalid text"),
        ("classification", "f.json", "{}", r"unknown file format; use one of \.csv \.tsv \.jsonl"),
        (
            "multi_label",
            "f.csv",
            'text,label\na,"[1, "\n',
            "row 2, the labels: not valid .not JSON.*; write a",
        ),
        ("regression", "f.csv", "text,label\na,1\nb,four\n", "row 3: label 'four' is not a finite number"),
        ("regression", "f.csv", "text,label\na,nan\n", "row 2: label 'nan' is not a finite number"),
        ("regression", "f.jsonl", '{"text": "a", "label": NaN}', "line 1: label nan is not a finite number"),
        ("tagging", "f.tsv", "text\tlabel\na b\tx\n", "row 2: 2 words but 1 labels"),
        ("tagging", "f.jsonl", '{"text": ["a", ""], "label": ["x", "y"]}', "line 1: a word is empty"),
        (
            "tagging",
            "f.jsonl",
            '{"text": null, "label": ["x"]}',
            "line 1: not valid .text: Expected .*got `null`",
        ),
        ("tagging", "f.conll", "a x\nb\n", "line 2: 1 columns instead of 2"),
        ("tagging", "f.conll", "a\nb\n", "line 1: 1 columns instead of 2"),
    ],
)
def test_errors_name_the_file_and_the_place(tmp_path, kind, name, content, message):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    task = open_task(f"table/{kind}", str(tmp_path), TableConfig(dev=name), labels=["x", "y"])
    with pytest.raises(UserError, match=message) as error:
        task.read("dev")
    assert name in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_partly_labeled_test_file_is_rejected(tmp_path):
    (tmp_path / "test.jsonl").write_text('{"text": "a"}\n{"text": "b", "label": "y"}\n')
    task = open_task("table/classification", str(tmp_path), TableConfig(test="test.jsonl"), labels=["x", "y"])
    with pytest.raises(UserError, match=r"test\.jsonl, line 1: no label, but other examples have one"):
        task.read("test")


def test_missing_files_and_too_few_labels_are_rejected(tmp_path):
    with pytest.raises(UserError, match=r"set table\.train"):
        open_task("table/classification", str(tmp_path))
    with pytest.raises(UserError, match=r"no file for train; set table\.train"):
        open_task("table/classification", str(tmp_path), TableConfig(dev="dev.csv"))
    with pytest.raises(UserError, match=r"train\.csv: cannot be read \(No such file"):
        open_task("table/classification", str(tmp_path), TableConfig(train="train.csv"))
    table = write(tmp_path, train="text,label\na,x\n")
    with pytest.raises(UserError, match=r"train\.csv: 1 distinct labels are too few to train on; check table\.label"):
        open_task("table/classification", str(tmp_path), table)
    with pytest.raises(UserError, match="glue/cola: data_dir is empty"):
        open_task("glue/cola", "")
