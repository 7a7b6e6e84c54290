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
import importlib.metadata
import itertools
import json
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from bertjax import decoding
from bertjax.corpus import format, shard_worker
from bertjax.corpus.manifest import MANIFEST, check_files, write_manifest
from bertjax.corpus.selection import Selection, emitted, select
from bertjax.corpus.shard_worker import Counts, Job, Options, Record, Task
from bertjax.decoding import Digest, FileName
from bertjax.errors import UserError
from bertjax.storage.files import claimed, file_digests, file_sha256, write_text
from bertjax.text import sentences, tokenizer_training
from bertjax.text.sources import Source
from bertjax.text.tokenizer import load_tokenizer

# The sample for a vocabulary; one of 30,000 pieces hardly changes with more.
SAMPLE_CHARACTERS = 32_000_000

_DECIDING = ("sentencex", "tokenizers", "sentencepiece", "mwparserfromhell")  # libraries that decide the bytes
_PLAN = "plan.json"
_COPIES = "copies.npz"
_TEMPORARY = ".build.tmp"
_ANEW = "delete the folder and prepare the corpus again"

# Told what is being done, how many documents are done, how many there are (0: not known), and the megabytes of text
# that this call has done.
Progress = Callable[[str, int, int, float], None]


class SourceIdentity(TypedDict):
    """What `Source.identity` says of a source."""

    spec: str
    files: list[Any]


@dataclasses.dataclass(frozen=True)
class Plan:
    """All that decides the corpus. Files are named with size and time, so that a change shows."""

    options: Mapping[str, Any]
    sources: list[SourceIdentity]
    versions: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Begun:
    """What `build/plan.json` holds.

    Attributes:
      plan: all that decides the corpus.
      copies: SHA-256 of copies.npz.
      tokenizer_files: name → SHA-256 of the tokenizer's files.
    """

    plan: Plan
    copies: Digest
    tokenizer_files: Mapping[FileName, Digest]


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a corpus holds: counts of each split, documents dropped as duplicates, and by weights below 1."""

    splits: dict[str, Counts]
    duplicates: int
    thinned: int
    vocab_size: int

    @property
    def total(self) -> Counts:
        """Both splits together."""
        return sum(self.splits.values(), Counts())


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
    job = Job(Path(directory), tuple(sources), options)
    plan = _plan(job)
    with claimed(job.directory, "another prepare is writing here", "--output"):
        selection = _begin(job, plan, progress)
        complete = (job.directory / MANIFEST).is_file()
        if not complete:
            _write_shards(job, selection, processes, progress)
        tokenizer = load_tokenizer(job.directory / "tokenizer")
        records = {split: _records(job.directory, split) for split in format.SPLITS}
        splits = {split: sum((record.counts for record in records[split]), Counts()) for split in records}
        summary = Summary(splits, selection.duplicates, selection.thinned, tokenizer.vocab_size)
        if not complete:
            with shard_worker.write_errors_explained(job.directory / MANIFEST):
                _write_manifest(job, records, summary, tokenizer.hash())
        return summary


def _plan(job: Job) -> Plan:
    """The plan of a job."""
    options = dataclasses.asdict(job.options)
    options["tokenizer"] = tokenizer_training.identity(options["tokenizer"], options.pop("lowercase"))
    return Plan(
        options,
        sources=[source.identity() for source in job.sources],
        versions={name: importlib.metadata.version(name) for name in _DECIDING}
        | {"python": platform.python_version()},  # its documentation, which is a source, and its tables of Unicode
    )


def _begin(job: Job, plan: Plan, progress: Progress) -> Selection:
    """The selection of the build that goes on here, or of a new one. After this the tokenizer is there."""
    directory, records = job.directory, job.directory / "build"
    if (records / _PLAN).is_file():
        begun = decoding.read_sealed(records / _PLAN, Begun, _ANEW)
        _check_plan(directory, begun.plan, plan)
        if file_sha256(records / _COPIES) != begun.copies:
            raise UserError(f"{records / _COPIES}: changed; {_ANEW}")
        selection = _load_selection(records)
    else:
        strangers = sorted(path.name for path in directory.iterdir() if path.name != _TEMPORARY)
        if strangers:
            raise UserError(
                f"{directory}: not empty ({', '.join(strangers[:3])}), not begun by prepare; choose another --output"
            )
        selection = _start(job, plan, progress)
        begun = decoding.read_sealed(records / _PLAN, Begun, _ANEW)
    if (records / "tokenizer").is_dir():
        (records / "tokenizer").rename(directory / "tokenizer")
    check_files(directory / "tokenizer", begun.tokenizer_files, _ANEW)
    return selection


def _start(job: Job, plan: Plan, progress: Progress) -> Selection:
    """Reads all sources once and makes the tokenizer; the folder `build`, with both, appears whole."""
    directory, options = job.directory, job.options
    temporary = directory / _TEMPORARY
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        made = tokenizer_training.is_made(options.tokenizer)
        selection, sample = select(
            job.sources,
            heldout=options.heldout,
            seed=options.seed,
            sample_characters=SAMPLE_CHARACTERS if made else 0,
            progress=lambda documents: progress("reading", documents, 0, 0.0),
        )
        if made:
            progress("training the tokenizer", 0, 0, 0.0)
            text = (sentence for source, raw in sample for sentence in sentences.spaced(job.sentences(source, raw)))
            tokenizer_training.train(options.tokenizer, text, temporary / "tokenizer", options.lowercase)
        else:
            load_tokenizer(options.tokenizer, options.lowercase).save(temporary / "tokenizer")
        np.savez_compressed(
            temporary / _COPIES,
            *selection.copies,
            counts=np.array([selection.duplicates, selection.thinned], np.int64),
        )
        begun = Begun(plan, file_sha256(temporary / _COPIES), file_digests(temporary / "tokenizer"))
        write_text(temporary / _PLAN, json.dumps(decoding.sealed(dataclasses.asdict(begun)), indent=1) + "\n")
        temporary.rename(directory / "build")
    except OSError as error:
        raise UserError(f"{directory}: cannot be written to ({error.strerror}); choose another --output") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return selection


def _check_plan(directory: Path, found: Plan, wanted: Plan) -> None:
    differing = [key for key, value in vars(wanted).items() if getattr(found, key) != value]
    if differing == ["options"]:
        was, now = found.options, wanted.options
        differing = [f"--{key}={was.get(key)}" for key in now if was.get(key) != now[key]]
        raise UserError(
            f"{directory}: begun with {' '.join(differing)}; give the same again, or choose another --output"
        )
    if differing == ["versions"]:
        raise UserError(
            f"{directory}: begun with other versions of {', '.join(wanted.versions)}; choose another --output"
        )
    if differing:
        raise UserError(
            f"{directory}: begun from other sources, or their files have changed since "
            f"({', '.join(source['spec'] for source in found.sources)}); choose another --output"
        )


def _load_selection(records: Path) -> Selection:
    with np.load(records / _COPIES) as saved:
        copies = tuple(saved[f"arr_{index}"] for index in range(len(saved.files) - 1))
        duplicates, thinned = saved["counts"].tolist()
    return Selection(copies, duplicates, thinned)


def _write_shards(job: Job, selection: Selection, processes: int, progress: Progress) -> None:
    for leftover in (*job.directory.glob(".*.tmp"), *job.directory.glob("build/.*.tmp")):
        leftover.unlink()
    done, size = 0, 0

    def unfinished() -> Iterator[Task]:
        nonlocal done
        for task in _tasks(job, selection):
            if _is_finished(job.directory, task.name):
                done += len(task)
                progress("going on", done, selection.documents, 0.0)
            else:
                yield task

    for counts in shard_worker.run(unfinished(), job, processes):
        done, size = done + counts.documents + counts.empty, size + counts.bytes
        progress("tokenising", done, selection.documents, size / 1e6)


def _tasks(job: Job, selection: Selection) -> Iterator[Task]:
    """Cuts the stream of documents into shards; held-out documents gather until they fill one of their own."""
    names = {split: format.shard_names(split) for split in format.SPLITS}
    current = {split: Task(next(names[split])) for split in format.SPLITS}
    for source, split, document in emitted(job.sources, selection):
        current[split].add(source, document)
        if current[split].characters >= job.options.shard_characters:
            yield current[split]
            current[split] = Task(next(names[split]))
    yield from filter(len, current.values())


def _is_finished(directory: Path, name: str) -> bool:
    record = shard_worker.read_record(directory, name)
    if record is None:
        return False
    path = directory / name
    return record.shard is None or (path.is_file() and path.stat().st_size == record.shard.bytes)


def _records(directory: Path, split: str) -> list[Record]:
    found = (shard_worker.read_record(directory, name) for name in format.shard_names(split))
    return list(itertools.takewhile(lambda record: record is not None, found))


def _write_manifest(job: Job, records: dict[str, list[Record]], summary: Summary, tokenizer_hash: str) -> None:
    if not summary.splits["train"].documents:
        raise UserError(f"{job.directory}: no document has any text once it is cleaned; give other sources")
    write_manifest(
        job.directory,
        shards={split: [record.shard for record in records[split] if record.shard] for split in records},
        vocab_size=summary.vocab_size,
        tokenizer_hash=tokenizer_hash,
        statistics={
            "sources": [source.spec for source in job.sources],
            "options": {name: value for name, value in vars(job.options).items() if value is not None},
            "splits": {split: dataclasses.asdict(counts) for split, counts in summary.splits.items()},
            "duplicates": summary.duplicates,
            "thinned": summary.thinned,
        },
    )
