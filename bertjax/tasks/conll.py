"""Tagging in the formats of CoNLL: entities of CoNLL-2003 and parts of speech of CoNLL-U."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bertjax.config.finetuning import Table
from bertjax.errors import UserError
from bertjax.tasks import line_formats, scores, tfds
from bertjax.tasks.examples import WordsExample
from bertjax.tasks.kinds.tagging import Tagging
from bertjax.tasks.task_examples import TaskExamples

Sentence = tuple[str, list[tuple[int, str, str]]]  # (its name in the file or "", (row, word, label) of each word)


@dataclass(frozen=True)
class ConllTask:
    """A format, and the labels of one of its columns."""

    labels: tuple[str, ...]
    files: Mapping[str, tuple[str, ...]]  # split → possible names of its file
    sentences: Callable[[Path], Iterator[Sentence]]
    entities: bool  # whether the labels are IOB2
    builder: str = ""  # the TFDS builder
    feature: str = ""  # its feature with the labels


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

    named = {split: getattr(table, split) for split in ("train", "dev", "test")} if table else {}

    def find(split: str) -> Path:
        if not any(named.values()):
            return line_formats.find([Path(data_dir)], spec.files[split], "give data_dir the folder with it")
        if not named[split]:
            raise line_formats.MissingFileError(f"{name}: there is no file for {split}; give table.{split}")
        return Path(data_dir) / named[split]

    def read(split: str) -> list[WordsExample]:
        if tfds.named(data_dir):
            return _read_tfds(spec, data_dir, split, positions)
        path = find(split)
        examples = [_example(path, count, sentence, positions) for count, sentence in enumerate(spec.sentences(path))]
        if not examples:
            raise UserError(f"{path}: there are no sentences in it; get the file again")
        return examples

    return TaskExamples(
        name=name,
        kind=Tagging(),
        labels=order,
        read=read,
        score=scores.word_labels(order, spec.entities),
        metric="f1" if spec.entities else "accuracy",
        dev=("dev", *(("test",) if tfds.named(data_dir) or _is_there(find, "test") else ())),
        test=(),
    )


def _is_there(find: Callable[[str], Path], split: str) -> bool:
    try:
        find(split)
    except line_formats.MissingFileError:
        return False
    return True


def _example(path: Path, count: int, sentence: Sentence, positions: Mapping[str, int]) -> WordsExample:
    name, words = sentence
    for number, _, label in words:
        if label not in positions:
            raise UserError(
                f"{line_formats.place(path, number)}: unknown label {label!r}; is this the task's own file?"
            )
    return WordsExample(
        id=name or str(count),
        where=line_formats.place(path, words[0][0]),
        words=tuple(word for _, word, _ in words),
        labels=tuple(positions[label] for *_, label in words),
    )


def _conll2003(path: Path) -> Iterator[Sentence]:
    """Sentences of `word POS chunk entity`; -DOCSTART- lines are no words. IOB1 becomes IOB2."""
    for block in line_formats.blocks(path):
        words = []
        for number, line in block:
            cells = line_formats.columns(line)
            if cells[0] == "-DOCSTART-":
                continue
            if len(cells) != 4:
                raise UserError(
                    f"{line_formats.place(path, number)}: {len(cells)} columns instead of 4; get the file again"
                )
            words.append((number, cells[0], cells[3]))
        if words:
            labels = iob2([label for *_, label in words])
            yield "", [(number, word, label) for (number, word, _), label in zip(words, labels, strict=True)]


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
        for number, line in block:
            if line.startswith("#"):
                key, _, value = line[1:].partition("=")
                name = value.strip() if key.strip() == "sent_id" else name
                continue
            cells = line.split("\t")
            if len(cells) != 10:
                raise UserError(
                    f"{line_formats.place(path, number)}: {len(cells)} fields instead of 10; get the file again"
                )
            if cells[0].isdigit():
                words.append((number, cells[1], cells[3]))
        if words:
            yield name, words


def _read_tfds(spec: ConllTask, data_dir: str, split: str, positions: Mapping[str, int]) -> list[WordsExample]:
    records, place = tfds.read(spec.builder, split, data_dir, splits={})
    names = tfds.class_names(spec.builder, spec.feature, data_dir)
    return [
        WordsExample(
            id=str(count),
            where=f"{place}, example {count}",
            words=tuple(word.decode() for word in record["tokens"]),
            labels=tuple(positions[label] for label in iob2([names[int(label)] for label in record[spec.feature]])),
        )
        for count, record in enumerate(records)
        if len(record["tokens"])
    ]


TASKS = {
    "conll2003/ner": ConllTask(
        labels=("O", *(f"{place}-{kind}" for kind in ("PER", "ORG", "LOC", "MISC") for place in "BI")),
        files={
            "train": ("train.txt", "eng.train"),
            "dev": ("valid.txt", "dev.txt", "eng.testa"),
            "test": ("test.txt", "eng.testb"),
        },
        sentences=_conll2003,
        entities=True,
        builder="conll2003",
        feature="ner",
    ),
    "conllu/upos": ConllTask(
        labels=(
            *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM"),
            *("PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"),
        ),
        files={split: (f"*-ud-{split}.conllu", f"{split}.conllu") for split in ("train", "dev", "test")},
        sentences=_conllu,
        entities=False,
    ),
}
