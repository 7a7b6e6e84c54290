"""Builds a corpus from sources on every core, and resumes an interrupted build.

One process reads the sources and divides the stream of documents into tasks of equal size, one per shard; the other
processes clean, split, tokenize and write. The selection alone determines the contents of a task, so the corpus is
bit-for-bit identical for any number of processes and interruptions. A resumed build skips the tasks that have a record.

    tokenizer/                    written first
    build/plan.json               options and sources of the command; a different command is refused
    build/copies.npz              number of copies of each document, and the held-out documents
    build/train-00000.arrow.json  record of a finished shard
    train-00000.arrow             the shard
    corpus.json                   written last; the corpus is complete

The folder `build` is kept: with it a single damaged shard can be rebuilt.
"""

import dataclasses
import importlib.metadata
import json
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from bertjax import decoding
from bertjax.corpus import format, shard_worker
from bertjax.corpus.manifest import MANIFEST, check_files, write_manifest
from bertjax.corpus.selection import Selection, iter_selected, select
from bertjax.corpus.shard_worker import BuildJob, BuildOptions, ShardCounts, ShardRecord, ShardTask
from bertjax.decoding import Digest, FileName
from bertjax.errors import UserError
from bertjax.storage.files import exclusive_lock, file_digests, file_sha256, write_text
from bertjax.text import sentences, tokenizer_training
from bertjax.text.sources import Source, SourceIdentity
from bertjax.text.tokenizer import load_tokenizer

# Size of the sample for a vocabulary; a vocabulary of 30,000 pieces hardly changes with more text.
SAMPLE_CHARACTERS = 32_000_000

_VERSIONED_LIBRARIES = ("sentencex", "tokenizers", "sentencepiece", "mwparserfromhell")  # they affect the corpus
_SPEC_FILE = "plan.json"
_COPIES_FILE = "copies.npz"
_TEMPORARY = ".build.tmp"
_REBUILD_REMEDY = "delete the corpus folder and prepare it again"

# Called with the stage, the number of documents done, their total (0: unknown), and the megabytes of text processed by
# this call.
Progress = Callable[[str, int, int, float], None]


@dataclasses.dataclass(frozen=True)
class BuildSpec:
    """Everything that determines the corpus. Sources include size and time of each file, to detect changes."""

    options: Mapping[str, object]
    sources: list[SourceIdentity]
    versions: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class BuildState:
    """The content of `build/plan.json`.

    Attributes:
      plan: the spec of the build.
      copies: SHA-256 of copies.npz.
      tokenizer_files: name → SHA-256 of the tokenizer files.
    """

    plan: BuildSpec
    copies: Digest
    tokenizer_files: Mapping[FileName, Digest]


@dataclasses.dataclass(frozen=True)
class BuildSummary:
    """Counts of each split, and numbers of documents dropped as duplicates and by weights below 1."""

    splits: dict[str, ShardCounts]
    duplicates: int
    thinned: int
    vocab_size: int

    @property
    def total(self) -> ShardCounts:
        """Counts of both splits together."""
        return sum(self.splits.values(), ShardCounts())


def build_corpus(
    directory: str | Path, sources: Sequence[Source], options: BuildOptions, *, processes: int, progress: Progress
) -> BuildSummary:
    """Builds a corpus or resumes its build. A complete corpus is not changed.

    Args:
      directory: missing, empty, or the output of an interrupted build with the same sources and options.
      sources: in corpus order.
      options: that affect the corpus.
      processes: number of worker processes.
      progress: called often.

    Raises:
      UserError: a problem with sources, options or output. An output of another command is not changed; if the
        sources cannot be read to their end, everything written by this call is removed.
    """
    job = BuildJob(Path(directory), tuple(sources), options)
    spec = _build_spec(job)
    with exclusive_lock(job.directory, "another prepare is writing here", "--output"):
        selection = _start_or_resume(job, spec, progress)
        complete = (job.directory / MANIFEST).is_file()
        if not complete:
            _write_shards(job, selection, processes, progress)
        tokenizer = load_tokenizer(job.directory / "tokenizer")
        records = {split: _records(job.directory, split) for split in format.SPLITS}
        splits = {split: sum((record.counts for record in records[split]), ShardCounts()) for split in records}
        summary = BuildSummary(splits, selection.duplicates, selection.thinned, tokenizer.vocab_size)
        if not complete:
            with shard_worker.write_errors_as_user_errors(job.directory / MANIFEST):
                _write_manifest(job, records, summary, tokenizer.hash())
        return summary


def _build_spec(job: BuildJob) -> BuildSpec:
    """Returns the spec of a job."""
    options = dataclasses.asdict(job.options)
    options["tokenizer"] = tokenizer_training.identity(options["tokenizer"], options.pop("lowercase"))
    return BuildSpec(
        options,
        sources=[source.identity() for source in job.sources],
        versions={name: importlib.metadata.version(name) for name in _VERSIONED_LIBRARIES}
        | {"python": platform.python_version()},  # for its documentation, which may be a source, and Unicode tables
    )


def _start_or_resume(job: BuildJob, spec: BuildSpec, progress: Progress) -> Selection:
    """Returns the selection of the interrupted build in the directory or of a new one, and ensures a tokenizer."""
    directory, records = job.directory, job.directory / "build"
    if (records / _SPEC_FILE).is_file():
        state = decoding.read_sealed(records / _SPEC_FILE, BuildState, _REBUILD_REMEDY)
        _check_same_spec(directory, state.plan, spec)
        if file_sha256(records / _COPIES_FILE) != state.copies:
            raise UserError(f"{records / _COPIES_FILE}: changed since the build started; {_REBUILD_REMEDY}")
        selection = _load_selection(records)
    else:
        other_files = sorted(path.name for path in directory.iterdir() if path.name != _TEMPORARY)
        if other_files:
            raise UserError(
                f"{directory}: not empty ({', '.join(other_files[:3])}) and not an output of prepare; choose another "
                "--output"
            )
        selection = _start(job, spec, progress)
        state = decoding.read_sealed(records / _SPEC_FILE, BuildState, _REBUILD_REMEDY)
    if (records / "tokenizer").is_dir():
        (records / "tokenizer").rename(directory / "tokenizer")
    check_files(directory / "tokenizer", state.tokenizer_files, _REBUILD_REMEDY)
    return selection


def _start(job: BuildJob, spec: BuildSpec, progress: Progress) -> Selection:
    """Reads all sources once and creates the tokenizer; writes both to the folder `build` atomically."""
    directory, options = job.directory, job.options
    temporary = directory / _TEMPORARY
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        train = tokenizer_training.is_new(options.tokenizer)
        selection, sample = select(
            job.sources,
            heldout=options.heldout,
            seed=options.seed,
            sample_characters=SAMPLE_CHARACTERS if train else 0,
            progress=lambda documents: progress("reading", documents, 0, 0.0),
        )
        if train:
            progress("training the tokenizer", 0, 0, 0.0)
            text = (sentence for source, raw in sample for sentence in sentences.spaced(job.sentences(source, raw)))
            tokenizer_training.train_tokenizer(options.tokenizer, text, temporary / "tokenizer", options.lowercase)
        else:
            load_tokenizer(options.tokenizer, options.lowercase).save(temporary / "tokenizer")
        np.savez_compressed(
            temporary / _COPIES_FILE,
            *selection.copies,
            counts=np.array([selection.duplicates, selection.thinned], np.int64),
        )
        state = BuildState(spec, file_sha256(temporary / _COPIES_FILE), file_digests(temporary / "tokenizer"))
        write_text(temporary / _SPEC_FILE, json.dumps(decoding.sealed(dataclasses.asdict(state)), indent=1) + "\n")
        temporary.rename(directory / "build")
    except OSError as error:
        raise UserError(f"{directory}: cannot be written to ({error.strerror}); choose another --output") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return selection


def _check_same_spec(directory: Path, earlier: BuildSpec, current: BuildSpec) -> None:
    """Raises UserError if the earlier build in the directory had another spec."""
    differing = [key for key, value in vars(current).items() if getattr(earlier, key) != value]
    if differing == ["options"]:
        options = earlier.options
        flags = [f"--{key}={options.get(key)}" for key, value in current.options.items() if options.get(key) != value]
        raise UserError(f"{directory}: started with {' '.join(flags)}; pass the same, or choose another --output")
    if differing == ["versions"]:
        raise UserError(
            f"{directory}: the build in this folder used other versions of {', '.join(current.versions)}; choose "
            "another --output"
        )
    if differing:
        raise UserError(
            f"{directory}: started with other sources, or their files have changed since "
            f"({', '.join(source['spec'] for source in earlier.sources)}); choose another --output"
        )


def _load_selection(records: Path) -> Selection:
    with np.load(records / _COPIES_FILE) as saved:
        copies = tuple(saved[f"arr_{index}"] for index in range(len(saved.files) - 1))
        duplicates, thinned = saved["counts"].tolist()
    return Selection(copies, duplicates, thinned)


def _write_shards(job: BuildJob, selection: Selection, processes: int, progress: Progress) -> None:
    for leftover in (*job.directory.glob(".*.tmp"), *job.directory.glob("build/.*.tmp")):
        leftover.unlink()
    done, size = 0, 0

    def unfinished_tasks() -> Iterator[ShardTask]:
        nonlocal done
        for task in _tasks(job, selection):
            if _is_finished(job.directory, task.name):
                done += len(task)
                progress("resuming", done, selection.documents, 0.0)
            else:
                yield task

    for counts in shard_worker.run(unfinished_tasks(), job, processes):
        done, size = done + counts.documents + counts.empty, size + counts.bytes
        progress("tokenizing", done, selection.documents, size / 1e6)


def _tasks(job: BuildJob, selection: Selection) -> Iterator[ShardTask]:
    """Divides the stream of documents into shards; each split fills its own."""
    names = {split: format.shard_names(split) for split in format.SPLITS}
    current = {split: ShardTask(next(names[split])) for split in format.SPLITS}
    for source, split, document in iter_selected(job.sources, selection):
        current[split].add(source, document)
        if current[split].characters >= job.options.shard_characters:
            yield current[split]
            current[split] = ShardTask(next(names[split]))
    yield from filter(len, current.values())


def _is_finished(directory: Path, name: str) -> bool:
    record = shard_worker.read_record(directory, name)
    if record is None:
        return False
    path = directory / name
    return record.shard is None or (path.is_file() and path.stat().st_size == record.shard.bytes)


def _records(directory: Path, split: str) -> list[ShardRecord]:
    records = []
    for name in format.shard_names(split):
        record = shard_worker.read_record(directory, name)
        if record is None:
            break
        records.append(record)
    return records


def _write_manifest(
    job: BuildJob, records: dict[str, list[ShardRecord]], summary: BuildSummary, tokenizer_hash: str
) -> None:
    if not summary.splits["train"].documents:
        raise UserError(f"{job.directory}: all documents are empty after cleaning; choose other sources")
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
