"""Builds a corpus from sources, on every core, and goes on where it was killed.

One process reads the sources and cuts the stream of documents into tasks of equal size, a shard each; the others clean,
split, tokenise and write. What a task holds is fixed by the selection alone, so the corpus is the same to the bit for
any number of processes and interruptions. A build that goes on reads past the tasks that have a record.

    tokenizer/                    written first
    build/plan.json               the command's options and sources; another command is refused
    build/copies.npz              what becomes of each document
    build/train-00000.arrow.json  the record of a finished shard
    train-00000.arrow             the shard
    corpus.json                   last: now it is a corpus

The folder `build` stays: with it a damaged shard can be made again without the others.
"""

import dataclasses
import functools
import importlib.metadata
import itertools
import json
import operator
import platform
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bertjax.corpus import format, shard_worker
from bertjax.corpus.manifest import MANIFEST, ShardInfo, write_manifest
from bertjax.corpus.selection import Selection, emitted, select
from bertjax.errors import UserError
from bertjax.storage.files import claimed, write_text
from bertjax.text import sentences, tokenizer_training
from bertjax.text.sources import Source
from bertjax.text.tokenizer import load_tokenizer

# The sample for a vocabulary; one of 30,000 pieces hardly changes with more.
SAMPLE_CHARACTERS = 32_000_000

_DECIDING = ("sentencex", "tokenizers", "sentencepiece", "mwparserfromhell")  # libraries that decide the bytes
_PLAN = "plan.json"
_TEMPORARY = ".build.tmp"

# Told what is being done, how many documents are done, how many there are (0: not known), and the megabytes of text
# that this call has done.
Progress = Callable[[str, int, int, float], None]


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides the bytes of a corpus, beside the sources.

    Attributes:
      tokenizer: "new:KIND:SIZE", "extend:WORDS:PATH", or the path of a tokenizer.
      heldout: share of the documents to hold out.
      seed: decides which, and which documents of a source with a fractional weight.
      language: of the text, for splitting sentences.
      shard_characters: text in a shard. Small enough to keep memory low and every core busy to the end, large enough
        that files stay few: 4 GB of text make 1,000 shards of about 2 MB.
    """

    tokenizer: str
    heldout: float = 0.005
    seed: int = 0
    language: str = "en"
    shard_characters: int = 4_000_000


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a corpus holds: counts of each split, documents dropped as duplicates, and by weights below 1."""

    splits: dict[str, shard_worker.Counts]
    duplicates: int
    thinned: int
    vocab_size: int

    @property
    def total(self) -> shard_worker.Counts:
        """Both splits together."""
        return functools.reduce(operator.add, self.splits.values())


def build(
    directory: str | Path, sources: Sequence[Source], options: Options, *, processes: int, progress: Progress
) -> Summary:
    """Makes a corpus, or goes on making it. One that is whole is left as it is.

    Args:
      directory: where; missing, empty, or begun by a call with the same sources and options.
      sources: in the order in which they go into the corpus.
      options: see there.
      processes: cores to use.
      progress: called often.

    Raises:
      UserError: anything wrong with sources, options or output. An output that this call did not begin is left
        as it was; what it made before the reading of the sources was over is taken away again.
    """
    directory, sources = Path(directory), tuple(sources)
    plan = _plan(sources, options)
    with claimed(directory, "another prepare is writing here", "--output"):
        selection = _begin(directory, sources, options, plan, progress)
        complete = (directory / MANIFEST).is_file()
        if not complete:
            _write_shards(directory, sources, options, selection, processes, progress)
        tokenizer = load_tokenizer(directory / "tokenizer")
        summary = _summary(directory, selection, tokenizer.vocab_size)
        if not complete:
            try:
                _write_manifest(directory, sources, options, summary, tokenizer.hash())
            except OSError as error:
                raise UserError(
                    f"{directory / MANIFEST}: cannot be written ({error.strerror}); "
                    "make room or set it right, then run the same command again to go on"
                ) from error
        return summary


def _plan(sources: Sequence[Source], options: Options) -> dict[str, Any]:
    """All that decides the corpus, as JSON. Files are named with size and time, so that a change shows."""
    return {
        "options": {**dataclasses.asdict(options), "tokenizer": tokenizer_training.identity(options.tokenizer)},
        "sources": [source.identity() for source in sources],
        "versions": {name: importlib.metadata.version(name) for name in _DECIDING}
        | {"python": platform.python_version()},  # its documentation, which is a source, and its tables of Unicode
    }


def _begin(
    directory: Path, sources: Sequence[Source], options: Options, plan: dict[str, Any], progress: Progress
) -> Selection:
    """The selection of the build that goes on here, or of a new one. After this the tokenizer is there."""
    records = directory / "build"
    if (records / _PLAN).is_file():
        _check_plan(directory, json.loads((records / _PLAN).read_text(encoding="utf-8")), plan)
        selection = _load_selection(records)
    else:
        strangers = sorted(path.name for path in directory.iterdir() if path.name != _TEMPORARY)
        if strangers:
            raise UserError(
                f"{directory}: not empty ({', '.join(strangers[:3])}), not begun by prepare; choose another --output"
            )
        selection = _start(directory, sources, options, plan, progress)
    if (records / "tokenizer").is_dir():
        (records / "tokenizer").rename(directory / "tokenizer")
    return selection


def _start(
    directory: Path, sources: Sequence[Source], options: Options, plan: dict[str, Any], progress: Progress
) -> Selection:
    """Reads all sources once and makes the tokenizer; the folder `build`, with both, appears whole."""
    temporary = directory / _TEMPORARY
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        made = tokenizer_training.is_made(options.tokenizer)
        selection, sample = select(
            sources,
            heldout=options.heldout,
            seed=options.seed,
            sample_characters=SAMPLE_CHARACTERS if made else 0,
            progress=lambda documents: progress("reading", documents, 0, 0.0),
        )
        if made:
            progress("training the tokenizer", 0, 0, 0.0)
            text = (
                sentence
                for source, raw in sample
                for sentence in sentences.spaced(sentences.split(sources[source].clean(raw), options.language))
            )
            tokenizer_training.train(options.tokenizer, text, temporary / "tokenizer")
        else:
            load_tokenizer(options.tokenizer).save(temporary / "tokenizer")
        np.savez_compressed(
            temporary / "copies.npz",
            *selection.copies,
            counts=np.array([selection.duplicates, selection.thinned], np.int64),
        )
        write_text(temporary / _PLAN, json.dumps(plan, indent=1) + "\n")
        temporary.rename(directory / "build")
    except OSError as error:
        raise UserError(f"{directory}: cannot be written to ({error.strerror}); choose another --output") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return selection


def _check_plan(directory: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    if found == wanted:
        return
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if differing == ["options"]:
        was, now = found["options"], wanted["options"]
        differing = [f"--{key}={was.get(key)}" for key in now if was.get(key) != now[key]]
        raise UserError(
            f"{directory}: begun with {' '.join(differing)}; give the same again, or choose another --output"
        )
    if differing == ["versions"]:
        raise UserError(
            f"{directory}: begun with other versions of {', '.join(wanted['versions'])}; choose another --output"
        )
    raise UserError(
        f"{directory}: begun from other sources, or their files have changed since "
        f"({', '.join(source['spec'] for source in found['sources'])}); choose another --output"
    )


def _load_selection(records: Path) -> Selection:
    with np.load(records / "copies.npz") as saved:
        copies = tuple(saved[f"arr_{index}"] for index in range(len(saved.files) - 1))
        duplicates, thinned = saved["counts"].tolist()
    return Selection(copies, duplicates, thinned)


def _write_shards(
    directory: Path,
    sources: tuple[Source, ...],
    options: Options,
    selection: Selection,
    processes: int,
    progress: Progress,
) -> None:
    for leftover in (*directory.glob(".*.tmp"), *directory.glob("build/.*.tmp")):
        leftover.unlink()
    settings = shard_worker.Settings(directory, directory / "build", sources, options.language)
    done, size = 0, 0

    def unfinished() -> Iterator[shard_worker.Task]:
        nonlocal done
        for task in _tasks(sources, selection, options.shard_characters):
            if _is_finished(directory, task.name):
                done += len(task)
                progress("going on", done, selection.documents, 0.0)
            else:
                yield task

    for result in shard_worker.run(unfinished(), settings, processes):
        done, size = done + result.documents, size + result.bytes
        progress("tokenising", done, selection.documents, size / 1e6)


def _tasks(sources: Sequence[Source], selection: Selection, size: int) -> Iterator[shard_worker.Task]:
    """Cuts the stream of documents into shards; held-out documents gather until they fill one of their own."""
    numbers = {split: itertools.count() for split in format.SPLITS}

    def new(split: str) -> shard_worker.Task:
        return shard_worker.Task(format.shard_name(split, next(numbers[split])))

    current = {split: new(split) for split in format.SPLITS}
    for source, heldout, document in emitted(sources, selection):
        split = "heldout" if heldout else "train"
        current[split].add(source, document)
        if current[split].characters >= size:
            yield current[split]
            current[split] = new(split)
    yield from filter(len, current.values())


def _is_finished(directory: Path, name: str) -> bool:
    record = shard_worker.read_record(directory / "build", name)
    if record is None:
        return False
    shard, _ = record
    path = directory / name
    return shard is None or (path.is_file() and path.stat().st_size == shard.bytes)


def _records(directory: Path, split: str) -> list[tuple[ShardInfo | None, shard_worker.Counts]]:
    names = (format.shard_name(split, number) for number in itertools.count())
    found = (shard_worker.read_record(directory / "build", name) for name in names)
    return list(itertools.takewhile(lambda record: record is not None, found))


def _summary(directory: Path, selection: Selection, vocab_size: int) -> Summary:
    splits = {
        split: functools.reduce(
            operator.add, (counts for _, counts in _records(directory, split)), shard_worker.Counts()
        )
        for split in format.SPLITS
    }
    return Summary(splits, selection.duplicates, selection.thinned, vocab_size)


def _write_manifest(
    directory: Path, sources: Sequence[Source], options: Options, summary: Summary, tokenizer_hash: str
) -> None:
    if not summary.splits["train"].documents:
        raise UserError(f"{directory}: no document has any text once it is cleaned; give other sources")
    write_manifest(
        directory,
        shards={split: [shard for shard, _ in _records(directory, split) if shard] for split in format.SPLITS},
        vocab_size=summary.vocab_size,
        tokenizer_hash=tokenizer_hash,
        statistics={
            "sources": [source.spec for source in sources],
            "options": dataclasses.asdict(options),
            "splits": {split: dataclasses.asdict(counts) for split, counts in summary.splits.items()},
            "duplicates": summary.duplicates,
            "thinned": summary.thinned,
        },
    )
