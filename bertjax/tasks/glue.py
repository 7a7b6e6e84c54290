"""GLUE (Wang et al. 2018, arXiv:1804.07461): its files, its scores, BERT's published scores and both averages.

Classes are in the order of `glue` in Hugging Face and TFDS.
"""

from collections.abc import Mapping
from pathlib import Path

from bertjax.tasks import line_formats, scores
from bertjax.tasks.text_task import TextTask

_MNLI_DEV = ("dev_matched", "dev_mismatched")
_MNLI_TEST = ("test_matched", "test_mismatched")
_NLI = ("entailment", "neutral", "contradiction")
_TWO_WAY = ("entailment", "not_entailment")
_INTEGERS = ("0", "1")
_SENTENCES = ("sentence1", "sentence2")


def _original_mrpc(folder: Path, split: str) -> line_formats.Sheet | None:
    """Returns MRPC in Microsoft's files; dev are the lines of the training file whose two IDs are in dev_ids.tsv."""
    test = split == "test"
    path = folder / f"msr_paraphrase_{'test' if test else 'train'}.txt"
    if not path.is_file():
        return None
    sheet = line_formats.open_unquoted(path)
    if test:
        return sheet
    remedy = "add this list of the dev lines of msr_paraphrase_train.txt, which is distributed with GLUE"
    ids = line_formats.find_file([folder], ["dev_ids.tsv", "mrpc_dev_ids.tsv"], remedy)
    dev = {tuple(cells[:2]) for _, cells in line_formats.open_unquoted(ids, columns={}).records}
    positions = [sheet.position(column, "use the original file") for column in ("#1 ID", "#2 ID")]

    def is_dev(cells: list[str]) -> bool:
        return tuple(cells[position] for position in positions if position < len(cells)) in dev

    records = ((where, cells) for where, cells in sheet.records if is_dev(cells) == (split == "dev"))
    return line_formats.Sheet(path, sheet.columns, records)


TASKS = {
    "cola": TextTask(
        folders=("CoLA",),
        headless={split: {"label": 1, "sentence": 3} for split in ("train", "dev")},
        texts=("sentence",),
        labels=("unacceptable", "acceptable"),
        codes=_INTEGERS,
        score=scores.matthews,
        metric="matthews",
    ),
    "sst2": TextTask(
        folders=("SST-2", "SST"),
        texts=("sentence",),
        labels=("negative", "positive"),
        codes=_INTEGERS,
    ),
    "mrpc": TextTask(
        folders=("MRPC",),
        original=_original_mrpc,
        texts=("#1 String", "#2 String"),
        features=_SENTENCES,
        label="Quality",
        labels=("not_equivalent", "equivalent"),
        codes=_INTEGERS,
        score=scores.accuracy_and_f1,
        metric="f1",
    ),
    "stsb": TextTask(
        folders=("STS-B", "STS"),
        texts=_SENTENCES,
        label="score",
        score=scores.correlations,
        metric="spearman",
    ),
    "qqp": TextTask(
        folders=("QQP",),
        skip_short=True,
        index="id",
        texts=("question1", "question2"),
        label="is_duplicate",
        labels=("not_duplicate", "duplicate"),
        codes=_INTEGERS,
        score=scores.accuracy_and_f1,
        metric="f1",
    ),
    "mnli": TextTask(
        folders=("MNLI",),
        files={name: (f"{name}.tsv",) for name in ("train", *_MNLI_DEV, *_MNLI_TEST)},
        texts=_SENTENCES,
        features=("premise", "hypothesis"),
        label="gold_label",
        labels=_NLI,
        undecided="-",
        dev=_MNLI_DEV,
        test=_MNLI_TEST,
    ),
    "qnli": TextTask(
        folders=("QNLI",),
        texts=("question", "sentence"),
        labels=_TWO_WAY,
    ),
    "rte": TextTask(
        folders=("RTE",),
        texts=_SENTENCES,
        labels=_TWO_WAY,
    ),
    "wnli": TextTask(
        folders=("WNLI",),
        texts=_SENTENCES,
        labels=("not_entailment", "entailment"),
        codes=_INTEGERS,
    ),
    "ax": TextTask(  # predicted with a model of MNLI
        folders=("AX", "diagnostic"),
        files={"test": ("diagnostic.tsv", "AX.tsv")},
        texts=_SENTENCES,
        features=("premise", "hypothesis"),
        labels=_NLI,
        score=scores.matthews,
        metric="matthews",
        dev=(),
    ),
}

# (task, test split) → column of the leaderboard, which is also the name of the submitted file.
COLUMNS = {
    ("glue/mnli", "test_matched"): "MNLI-m",
    ("glue/mnli", "test_mismatched"): "MNLI-mm",
    ("glue/qqp", "test"): "QQP",
    ("glue/qnli", "test"): "QNLI",
    ("glue/sst2", "test"): "SST-2",
    ("glue/cola", "test"): "CoLA",
    ("glue/stsb", "test"): "STS-B",
    ("glue/mrpc", "test"): "MRPC",
    ("glue/rte", "test"): "RTE",
    ("glue/wnli", "test"): "WNLI",
    ("glue/ax", "test"): "AX",
}
# The columns of the averages, as in BERT's Table 1.
AVERAGED = ("MNLI-m", "MNLI-mm", "QQP", "QNLI", "SST-2", "CoLA", "STS-B", "MRPC", "RTE")

# Test server (arXiv:1810.04805, Table 1): F1 for QQP and MRPC, Spearman for STS-B, Matthews for CoLA, else accuracy.
PUBLISHED = {
    "BERT-Base": dict(zip(AVERAGED, (84.6, 83.4, 71.2, 90.5, 93.5, 52.1, 85.8, 88.9, 66.4), strict=True)),
    "BERT-Large": dict(zip(AVERAGED, (86.7, 85.9, 72.1, 92.7, 94.9, 60.5, 86.5, 89.3, 70.1), strict=True)),
}


def averages(scores_by_column: Mapping[str, float]) -> dict[str, float]:
    """Returns both common averages: over BERT's 9 columns, and over 8 tasks with MNLI as the mean of its two columns.

    Neither includes WNLI and AX. An average is NaN if a column is missing.
    """
    nine = [scores_by_column.get(name, float("nan")) for name in AVERAGED]
    eight = [(nine[0] + nine[1]) / 2, *nine[2:]]
    return {"9 columns": sum(nine) / 9, "8 tasks": sum(eight) / 8}
