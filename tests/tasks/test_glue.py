"""GLUE: its official files with their known pitfalls, scores, averages and submissions."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from bertjax.errors import UserError
from bertjax.tasks import glue, submission
from bertjax.tasks.examples import TextExample
from bertjax.tasks.registry import open_task

QUOTE = 'He said " twice, and \u2028 once'  # an unmatched quotation mark, and a line end only to str.splitlines

MNLI_HEAD = "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
STSB_HEAD = "index genre filename year old_index source1 source2 sentence1 sentence2"


def tsv(*lines: str) -> str:
    """Returns lines with tabs for |."""
    return "".join(line.replace("|", "\t") + "\n" for line in lines)


def spaced(head: str) -> str:
    return head.replace(" ", "|")


MNLI_TEST = tsv(
    f"{spaced(MNLI_HEAD)}|sentence1|sentence2", f"0|p|q|fiction|b|b|b|b|{QUOTE}|two", "1|p|q|fiction|b|b|b|b|a|b"
)
MNLI_DEV = tsv(
    f"{spaced(MNLI_HEAD)}|sentence1|sentence2|label1|label2|label3|label4|label5|gold_label",
    f"0|p|q|fiction|b|b|b|b|{QUOTE}|two|neutral|entailment|neutral|neutral|neutral|contradiction",
    "1|p|q|fiction|b|b|b|b|one|two|neutral|entailment|neutral|neutral|contradiction|-",
)
# Official folder and file name → content.
FILES = {
    "CoLA/train.tsv": tsv(f"gj04|1||{QUOTE}", "cj99|0|*|The more."),
    "CoLA/dev.tsv": tsv("gj04|0|*|x y", "gj04|1||z"),
    "CoLA/test.tsv": tsv("index|sentence", f"0|{QUOTE}", "1|b"),
    "SST-2/train.tsv": tsv("sentence|label", f"{QUOTE} |0", "good |1"),
    "SST-2/dev.tsv": tsv("sentence|label", "bad|0"),
    "SST-2/test.tsv": tsv("index|sentence", f"0|{QUOTE}"),
    "STS-B/train.tsv": tsv(f"{spaced(STSB_HEAD)}|score", f"0|g|f|2012|1|s|s|{QUOTE}|two|3.250"),
    "STS-B/dev.tsv": tsv(f"{spaced(STSB_HEAD)}|score", "0|g|f|2012|1|s|s|one|two|0.0"),
    "STS-B/test.tsv": tsv(spaced(STSB_HEAD), "0|g|f|2012|1|s|s|one|two"),
    "QQP/train.tsv": tsv("id|qid1|qid2|question1|question2|is_duplicate", f"5|1|2|{QUOTE}|two|1", "6|1|2|cut", "7|1"),
    "QQP/dev.tsv": tsv("id|qid1|qid2|question1|question2|is_duplicate", "9|1|2|one|two|0"),
    "QQP/test.tsv": tsv("id|question1|question2", "0|one|two", "1|cut"),
    "MNLI/train.tsv": tsv(
        f"{spaced(MNLI_HEAD)}|sentence1|sentence2|label1|gold_label",
        f"0|p|q|fiction|b|b|b|b|{QUOTE}|two|entailment|neutral",
    ),
    **{f"MNLI/dev_{half}.tsv": MNLI_DEV for half in ("matched", "mismatched")},
    **{f"MNLI/test_{half}.tsv": MNLI_TEST for half in ("matched", "mismatched")},
    "QNLI/train.tsv": tsv("index|question|sentence|label", f"0|{QUOTE}|s|not_entailment"),
    "QNLI/test.tsv": tsv("index|question|sentence", "0|q|s"),
    "RTE/train.tsv": tsv("index|sentence1|sentence2|label", f"3|{QUOTE}|two|entailment"),
    "RTE/test.tsv": tsv("index|sentence1|sentence2", "0|q|s"),
    "WNLI/train.tsv": tsv("index|sentence1|sentence2|label", f"3|{QUOTE}|two|1"),
    "WNLI/test.tsv": tsv("index|sentence1|sentence2", "0|q|s"),
    "diagnostic/diagnostic.tsv": tsv("index|sentence1|sentence2", f"0|{QUOTE}|two"),
}
MRPC_HEAD = "Quality|#1 ID|#2 ID|#1 String|#2 String"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("glue")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    (folder / "MRPC").mkdir()
    (folder / "MRPC/train.tsv").write_text(tsv(MRPC_HEAD, f"1|11|12|{QUOTE}|two"), encoding="utf-8-sig")
    (folder / "MRPC/test.tsv").write_text(tsv("index|#1 ID|#2 ID|#1 String|#2 String", "0|1|2|one|two"))
    return folder


@pytest.mark.parametrize(
    ("name", "split", "examples"),
    [
        ("cola", "train", [("0", QUOTE, None, "acceptable"), ("1", "The more.", None, "unacceptable")]),
        ("cola", "test", [("0", QUOTE, None, None), ("1", "b", None, None)]),
        ("sst2", "train", [("0", f"{QUOTE} ", None, "negative"), ("1", "good ", None, "positive")]),
        ("sst2", "test", [("0", QUOTE, None, None)]),
        ("mrpc", "train", [("0", QUOTE, "two", "equivalent")]),
        ("mrpc", "test", [("0", "one", "two", None)]),
        ("stsb", "train", [("0", QUOTE, "two", 3.25)]),
        ("stsb", "test", [("0", "one", "two", None)]),
        ("qqp", "train", [("5", QUOTE, "two", "duplicate")]),
        ("qqp", "test", [("0", "one", "two", None), ("1", "cut", "", None)]),
        ("mnli", "train", [("0", QUOTE, "two", "neutral")]),
        ("mnli", "dev_mismatched", [("0", QUOTE, "two", "contradiction")]),
        ("mnli", "test_matched", [("0", QUOTE, "two", None), ("1", "a", "b", None)]),
        ("qnli", "train", [("0", QUOTE, "s", "not_entailment")]),
        ("rte", "train", [("3", QUOTE, "two", "entailment")]),
        ("wnli", "train", [("3", QUOTE, "two", "entailment")]),
        ("ax", "test", [("0", QUOTE, "two", None)]),
    ],
)
def test_official_files_are_read(folder, name, split, examples):
    task = open_task(f"glue/{name}", str(folder))
    read = [
        (
            example.id,
            example.text,
            example.text_pair,
            task.labels[example.label] if isinstance(example.label, int) else example.label,
        )
        for example in task.read(split)
    ]
    assert read == examples


def test_skipped_lines_are_counted(folder, messages):
    messages.clear()
    open_task("glue/qqp", str(folder / "QQP")).read("train")
    open_task("glue/mnli", str(folder)).read("dev_matched")
    assert messages == [
        f"{folder}/QQP/train.tsv: skipped 2 lines with missing cells and 0 without an agreed label",
        f"{folder}/MNLI/dev_matched.tsv: skipped 0 lines with missing cells and 1 without an agreed label",
    ]


def test_mrpc_is_split_from_the_original_files(tmp_path):
    train = tsv(MRPC_HEAD, "1|11|12|one|two", "0|21|22|three|four", "1|11|22|five|six")
    (tmp_path / "msr_paraphrase_train.txt").write_text(train.replace("\n", "\r\n"), encoding="utf-8-sig")
    (tmp_path / "msr_paraphrase_test.txt").write_text(tsv(MRPC_HEAD, "1|1|2|seven|eight"), encoding="utf-8-sig")
    task = open_task("glue/mrpc", str(tmp_path))
    with pytest.raises(UserError, match=r"dev_ids\.tsv"):
        task.read("dev")
    (tmp_path / "dev_ids.tsv").write_text(tsv("21|22"))
    assert [(example.text_pair, example.label) for example in task.read("train")] == [("two", 1), ("six", 1)]
    assert [(example.text_pair, example.label) for example in task.read("dev")] == [("four", 0)]
    assert [(example.id, example.text_pair, example.label) for example in task.read("test")] == [("0", "eight", None)]


def test_labels_follow_the_order_of_a_model(folder):
    """Imported models may use Google's order of MNLI."""
    google = ["contradiction", "entailment", "neutral"]
    task = open_task("glue/mnli", str(folder), labels=google)
    assert task.labels == tuple(google)
    assert [example.label for example in task.read("dev_matched")] == [0]
    with pytest.raises(
        UserError,
        match="glue/rte: the task has the labels entailment, not_entailment, but the model has the labels LABEL_0",
    ):
        open_task("glue/rte", str(folder), labels=["LABEL_0", "LABEL_1"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tsv("sentence|lable", "a|1"), r"no column 'label' \(found: 'sentence', 'lable'\)"),
        (tsv("sentence|label", "a|1", "b|2"), "line 3: label '2' is none of 0, 1"),
        (tsv("sentence|label", "a"), "line 2: 1 cells missing"),
        (tsv("sentence|label"), "no examples"),
        ("", "the file is empty"),
    ],
)
def test_other_files_are_rejected(tmp_path, content, message):
    (tmp_path / "dev.tsv").write_text(content)
    with pytest.raises(UserError, match=message):
        open_task("glue/sst2", str(tmp_path)).read("dev")
    with pytest.raises(UserError, match=r"no file train\.tsv; set data_dir to the folder SST-2"):
        open_task("glue/sst2", str(tmp_path)).read("train")
    with pytest.raises(
        UserError, match="glue/ax: no split train; use one of test"
    ):  # AX is predicted with a model of MNLI
        open_task("glue/ax", str(tmp_path)).read("train")
    (tmp_path / "test.tsv").write_text(tsv("index|sentence", "x7|a"))
    with pytest.raises(UserError, match="line 2: the index 'x7' is not a number"):
        open_task("glue/sst2", str(tmp_path)).read("test")
    with pytest.raises(UserError, match="did you mean 'glue/sst2'"):
        open_task("glue/sst-2", str(tmp_path))


def scores(folder: Path, name: str, gold: list, predictions: list) -> dict[str, float]:
    examples = [TextExample(str(place), "here", "text", None, label) for place, label in enumerate(gold)]
    return open_task(f"glue/{name}", str(folder)).score(examples, predictions)


def test_scores_are_in_percent(folder):
    """Computed by hand: 3 true positives, 1 false positive, 2 false negatives, 2 true negatives."""
    gold, predicted = [1, 1, 1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 1, 0, 0]
    both = scores(folder, "mrpc", gold, predicted)
    assert both == pytest.approx({"accuracy": 62.5, "f1": 200 / 3, "score": (62.5 + 200 / 3) / 2})
    assert scores(folder, "qqp", gold, predicted) == both
    # The same for a model with the classes in reverse order.
    reverse = open_task("glue/mrpc", str(folder), labels=["equivalent", "not_equivalent"])
    examples = [TextExample("0", "here", "text", None, 1 - label) for label in gold]
    assert reverse.score(examples, [1 - label for label in predicted]) == both
    matthews = 100 * (3 * 2 - 1 * 2) / np.sqrt(4 * 5 * 3 * 4)
    assert scores(folder, "cola", gold, predicted) == pytest.approx({"matthews": matthews, "accuracy": 62.5})
    assert scores(folder, "mnli", [0, 1, 2, 2], [0, 2, 2, 2]) == {"accuracy": 75.0}
    # The ranks of 1 2 6 and 1 4 3 differ by 0, 1, 1, so Spearman is 1 - 6 * 2 / 24 = 0.5. The deviations from the means
    # 3 and 8/3 are -2 -1 3 and -5/3 4/3 1/3, so Pearson is (10 - 4 + 3) / 3 over the root of 14 * 42 / 9.
    similar, pearson = scores(folder, "stsb", [1.0, 2.0, 6.0], [1.0, 4.0, 3.0]), 100 * 3 / np.sqrt(14 * 42 / 9)
    assert similar == pytest.approx({"pearson": pearson, "spearman": 50.0, "score": (pearson + 50) / 2})


def test_scores_of_constant_predictions(folder):
    assert scores(folder, "cola", [1, 0, 1], [1, 1, 1])["matthews"] == 0
    assert scores(folder, "mrpc", [1, 0, 1], [0, 0, 0])["f1"] == 0
    assert np.isnan(scores(folder, "stsb", [1.0, 2.0, 3.0], [2.0, 2.0, 2.0])["pearson"])
    with pytest.raises(UserError, match="no label to score against"):
        scores(folder, "cola", [1, None], [1, 1])


def test_averages_equal_the_published_ones():
    base, large = (glue.averages(glue.PUBLISHED[name]) for name in ("BERT-Base", "BERT-Large"))
    assert round(base["9 columns"], 1) == 79.6 and round(large["9 columns"], 1) in (82.0, 82.1)
    assert base["8 tasks"] == pytest.approx((84.0 + 71.2 + 90.5 + 93.5 + 52.1 + 85.8 + 88.9 + 66.4) / 8)
    assert np.isnan(glue.averages({"RTE": 66.0})["9 columns"])


def test_submissions_have_the_names_headers_and_lines_that_the_server_expects(folder, tmp_path):
    def submit(name: str, split: str, predictions: list, **options) -> str:
        task = open_task(f"glue/{name}", str(folder), **options)
        examples = task.read(split)[::-1]  # the server expects them sorted by index
        return submission.write(task, split, examples, predictions, tmp_path).name

    assert submit("mnli", "test_mismatched", [2, 0]) == "MNLI-mm.tsv"
    assert (tmp_path / "MNLI-mm.tsv").read_text() == "index\tprediction\n0\tentailment\n1\tcontradiction\n"
    submit("cola", "test", [1, 0], labels=["acceptable", "unacceptable"])
    assert (tmp_path / "CoLA.tsv").read_text() == "index\tprediction\n0\t1\n1\t0\n"
    written = {name: submit(name, "test", [1]) for name in ("sst2", "mrpc", "qnli", "rte", "wnli", "ax")}
    written["qqp"] = submit("qqp", "test", [1, 0])
    assert written == {
        "sst2": "SST-2.tsv",
        "mrpc": "MRPC.tsv",
        "qnli": "QNLI.tsv",
        "rte": "RTE.tsv",
        "wnli": "WNLI.tsv",
        "ax": "AX.tsv",
        "qqp": "QQP.tsv",
    }
    lines = {name: (tmp_path / file).read_text().splitlines()[1] for name, file in written.items()}
    assert lines["sst2"] == "0\t1" and lines["rte"] == "0\tnot_entailment" and lines["ax"] == "0\tneutral"
    assert submit("stsb", "test", [5.21]) == "STS-B.tsv"
    assert (tmp_path / "STS-B.tsv").read_text() == "index\tprediction\n0\t5.000\n"

    path, missing = submission.archive(tmp_path)
    assert missing == ["MNLI-m.tsv"]
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 10 and archive.read("STS-B.tsv") == (tmp_path / "STS-B.tsv").read_bytes()
    with pytest.raises(UserError, match="glue/rte, split dev: not accepted by the GLUE server"):
        submission.write(open_task("glue/rte", str(folder)), "dev", [], [], tmp_path)
