"""Tagging tasks in CoNLL formats: entities of CoNLL-2003 and parts of speech of CoNLL-U."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from bertjax.config.finetuning import TableConfig
from bertjax.errors import UserError, short_repr
from bertjax.tasks import line_formats, tfds
from bertjax.tasks.examples import WordsExample
from bertjax.tasks.kinds.tagging import Tagging
from bertjax.tasks.task_examples import TaskExamples

Sentence: TypeAlias = tuple[str, list[tuple[str, str, str]]]  # (its ID in the file or "", (location, word, label) each)


@dataclass(frozen=True)
class ConllTask:
    """A format, and the labels in one of its columns."""

    labels: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]]  # split → possible file names
    sentences: Callable[[Path], Iterator[Sentence]]
    in_tfds: bool = True  # TFDS has the task; its name is BUILDER/FEATURE


def open_conll(
    spec: ConllTask, name: str, data_dir: str, table: TableConfig | None, labels: Sequence[str] | None
) -> TaskExamples[WordsExample]:
    """Binds a task to its files or to TFDS. If `table` names any file, only the files it names are used.

    Raises:
      UserError: the labels are not the task's.
    """
    if labels is not None and sorted(labels) != sorted(spec.labels):
        raise UserError(
            f"{name}: the model has other labels than the task ({', '.join(spec.labels)}); "
            "use a model fine-tuned on this task"
        )
    order = tuple(labels or spec.labels)
    indices = {label: index for index, label in enumerate(order)}

    score, metric = Tagging().default_score(order)
    table_files = {split: getattr(table, split) for split in ("train", "dev", "test")} if table else {}

    def find_split(split: str) -> Path:
        if not any(table_files.values()):
            return line_formats.find_file([Path(data_dir)], spec.files[split])
        if not table_files[split]:
            raise line_formats.MissingFileError(f"{name}: no file for {split}; set table.{split}")
        return Path(data_dir) / table_files[split]

    def read(split: str) -> list[WordsExample]:
        if tfds.is_tfds(data_dir):
            source, sentences = data_dir, _tfds_sentences(spec, name, data_dir, split)
        else:
            source = find_split(split)
            sentences = spec.sentences(source)
        examples = [_example(identity or str(i), words, indices) for i, (identity, words) in enumerate(sentences)]
        if not examples:
            raise UserError(f"{source}: no sentences; download the file again, or restore it from a copy")
        return examples

    dev = ["dev"]
    with contextlib.suppress(line_formats.MissingFileError):
        if not tfds.is_tfds(data_dir):
            find_split("test")
        dev.append("test")
    return TaskExamples(
        name=name,
        kind=Tagging(),
        labels=order,
        read=read,
        score=score,
        metric=metric,
        dev=tuple(dev),
        test=(),
    )


def _example(identity: str, words: list[tuple[str, str, str]], indices: Mapping[str, int]) -> WordsExample:
    for where, _, label in words:
        if label not in indices:
            raise UserError(f"{where}: unknown label {short_repr(label)}; use the task's original file")
    locations, texts, labels = zip(*words, strict=True)
    return WordsExample(identity, locations[0], texts, tuple(indices[label] for label in labels))


def _conll2003(path: Path) -> Iterator[Sentence]:
    """Yields sentences from the columns `word POS chunk entity`; skips -DOCSTART- and converts IOB1 to IOB2."""
    for block in line_formats.line_blocks(path):
        words = []
        for where, line in block:
            cells = line_formats.split_columns(line)
            if cells[0] == "-DOCSTART-":
                continue
            if len(cells) != 4:
                raise UserError(
                    f"{where}: {len(cells)} columns instead of 4; download the file again, or restore it from a copy"
                )
            words.append((where, cells[0], cells[3]))
        if words:
            labels = iob2([label for *_, label in words])
            yield "", [(where, word, label) for (where, word, _), label in zip(words, labels, strict=True)]


def iob2(labels: Sequence[str]) -> list[str]:
    """Converts IOB1 labels, which use B- only between adjacent entities of one type, to IOB2; IOB2 stays as it is."""
    previous, converted = "O", []
    for label in labels:
        begins = label.startswith("I-") and previous[2:] != label[2:]
        converted.append(f"B-{label[2:]}" if begins else label)
        previous = label
    return converted


def _conllu(path: Path) -> Iterator[Sentence]:
    """Yields words with universal parts of speech; skips ranges (1-2) and empty nodes (1.1)."""
    for block in line_formats.line_blocks(path):
        identity, words = "", []
        for where, line in block:
            if line.startswith("#"):
                key, _, value = line[1:].partition("=")
                identity = value.strip() if key.strip() == "sent_id" else identity
                continue
            cells = line.split("\t")
            if len(cells) != 10:
                raise UserError(
                    f"{where}: {len(cells)} fields instead of 10; download the file again, or restore it from a copy"
                )
            if cells[0].isdigit():
                words.append((where, cells[1], cells[3]))
        if words:
            yield identity, words


def _tfds_sentences(spec: ConllTask, name: str, data_dir: str, split: str) -> Iterator[Sentence]:
    builder, feature = name.split("/")
    records, place = tfds.read(builder if spec.in_tfds else "", split, data_dir, splits={})
    names = tfds.class_names(builder, feature, data_dir)
    for index, record in enumerate(records):
        labels = iob2([names[int(label)] for label in record[feature]])
        words = zip(record["tokens"], labels, strict=True)
        if labels:
            yield str(index), [(f"{place}, example {index}", word.decode(), label) for word, label in words]


TASKS = {
    "conll2003/ner": ConllTask(
        labels=("O", *(f"{prefix}-{entity}" for entity in ("PER", "ORG", "LOC", "MISC") for prefix in "BI")),
        files={
            "train": ("train.txt", "eng.train"),
            "dev": ("valid.txt", "dev.txt", "eng.testa"),
            "test": ("test.txt", "eng.testb"),
        },
        sentences=_conll2003,
    ),
    "conllu/upos": ConllTask(
        labels=(
            *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM"),
            *("PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"),
        ),
        files={split: (f"*-ud-{split}.conllu", f"{split}.conllu") for split in ("train", "dev", "test")},
        sentences=_conllu,
        in_tfds=False,
    ),
}
