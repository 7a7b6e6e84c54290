"""Tagging in the formats of CoNLL: entities of CoNLL-2003 and parts of speech of CoNLL-U."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertjax.config.finetuning import Table
from bertjax.errors import UserError, shown
from bertjax.tasks import line_formats, tfds
from bertjax.tasks.examples import WordsExample
from bertjax.tasks.kinds.tagging import Tagging
from bertjax.tasks.task_examples import TaskExamples

Sentence = tuple[str, list[tuple[str, str, str]]]  # (its name in the file or "", (place, word, label) of each word)


@dataclass(frozen=True)
class ConllTask:
    """A format, and the labels of one of its columns."""

    labels: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]]  # split → possible names of its file
    sentences: Callable[[Path], Iterator[Sentence]]
    in_tfds: bool = True  # whether TFDS has it too: the task's name is BUILDER/FEATURE


def open_conll(
    spec: ConllTask, name: str, data_dir: str, table: Table | None, labels: Sequence[str] | None
) -> TaskExamples:
    """Binds a task to its files, to those that `table` names (and to no others then), or to TFDS.

    Raises:
      UserError: the labels are not the task's.
    """
    if labels is not None and sorted(labels) != sorted(spec.labels):
        raise UserError(
            f"the model's labels are not {name}'s ({', '.join(spec.labels)}); take a model fine-tuned on it"
        )
    order = tuple(labels or spec.labels)
    positions = {label: place for place, label in enumerate(order)}

    score, metric = Tagging().default_score(order)
    named = {split: getattr(table, split) for split in ("train", "dev", "test")} if table else {}

    def find(split: str) -> Path:
        if not any(named.values()):
            return line_formats.find([Path(data_dir)], spec.files[split])
        if not named[split]:
            raise line_formats.MissingFileError(f"{name}: there is no file for {split}; give table.{split}")
        return Path(data_dir) / named[split]

    def read(split: str) -> list[WordsExample]:
        path = data_dir if tfds.named(data_dir) else find(split)
        sentences = _tfds_sentences(spec, name, data_dir, split) if tfds.named(data_dir) else spec.sentences(path)
        examples = [_example(known or str(count), words, positions) for count, (known, words) in enumerate(sentences)]
        if not examples:
            raise UserError(f"{path}: there are no sentences in it; get the file again")
        return examples

    scored = ["dev"]
    with contextlib.suppress(line_formats.MissingFileError):
        if not tfds.named(data_dir):
            find("test")
        scored.append("test")
    return TaskExamples(
        name=name,
        kind=Tagging(),
        labels=order,
        read=read,
        score=score,
        metric=metric,
        dev=tuple(scored),
        test=(),
    )


def _example(identity: str, words: list[tuple[str, str, str]], positions: Mapping[str, int]) -> WordsExample:
    for where, _, label in words:
        if label not in positions:
            raise UserError(f"{where}: unknown label {shown(label)}; is this the task's own file?")
    places, texts, labels = zip(*words, strict=True)
    return WordsExample(identity, places[0], texts, tuple(positions[label] for label in labels))


def _conll2003(path: Path) -> Iterator[Sentence]:
    """Sentences of `word POS chunk entity`; -DOCSTART- lines are no words. IOB1 becomes IOB2."""
    for block in line_formats.blocks(path):
        words = []
        for where, line in block:
            cells = line_formats.columns(line)
            if cells[0] == "-DOCSTART-":
                continue
            if len(cells) != 4:
                raise UserError(f"{where}: {len(cells)} columns instead of 4; get the file again")
            words.append((where, cells[0], cells[3]))
        if words:
            labels = iob2([label for *_, label in words])
            yield "", [(where, word, label) for (where, word, _), label in zip(words, labels, strict=True)]


def iob2(labels: Sequence[str]) -> list[str]:
    """Each entity's first label begins with B-. IOB1 has that only between neighbours of one type; IOB2 stays."""
    previous, out = "O", []
    for label in labels:
        begins = label.startswith("I-") and previous[2:] != label[2:]
        out.append(f"B-{label[2:]}" if begins else label)
        previous = label
    return out


def _conllu(path: Path) -> Iterator[Sentence]:
    """Words and universal parts of speech; ranges (1-2) and empty nodes (1.1) are no words."""
    for block in line_formats.blocks(path):
        name, words = "", []
        for where, line in block:
            if line.startswith("#"):
                key, _, value = line[1:].partition("=")
                name = value.strip() if key.strip() == "sent_id" else name
                continue
            cells = line.split("\t")
            if len(cells) != 10:
                raise UserError(f"{where}: {len(cells)} fields instead of 10; get the file again")
            if cells[0].isdigit():
                words.append((where, cells[1], cells[3]))
        if words:
            yield name, words


def _tfds_sentences(spec: ConllTask, name: str, data_dir: str, split: str) -> Iterator[Sentence]:
    builder, feature = name.split("/")
    records, place = tfds.read(builder if spec.in_tfds else "", split, data_dir, splits={})
    names = tfds.class_names(builder, feature, data_dir)
    for count, record in enumerate(records):
        labels = iob2([names[int(label)] for label in record[feature]])
        words = zip(record["tokens"], labels, strict=True)
        if labels:
            yield str(count), [(f"{place}, example {count}", word.decode(), label) for word, label in words]


TASKS = {
    "conll2003/ner": ConllTask(
        labels=("O", *(f"{place}-{kind}" for kind in ("PER", "ORG", "LOC", "MISC") for place in "BI")),
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
