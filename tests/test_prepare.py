"""The `prepare` command: from sources to a corpus that is the same for any number of processes and interruptions."""

import collections
import hashlib
import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from bertjax.corpus import build, format, selection
from bertjax.errors import UserError
from bertjax.storage.files import exclusive_lock
from bertjax.text import sources
from bertjax.text.tokenizer import load_tokenizer
from tests.support import commands
from tests.support.damage import edit_sealed


def decoded_documents(folder: Path, split: str) -> list[str]:
    """Returns the decoded text of each document of a corpus."""
    corpus = format.Corpus.open(folder, split)
    tokenizer = load_tokenizer(folder / "tokenizer")
    return [
        tokenizer.decode(shard.tokens[shard.sentence_offsets[start] : shard.sentence_offsets[end]])
        for shard in corpus.shards
        for start, end in zip(shard.document_offsets[:-1], shard.document_offsets[1:], strict=True)
    ]


def file_hashes(folder: Path) -> dict[str, str]:
    """Returns the hash of every file below a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def build_test_corpus(folder: Path, *specs: str, processes: int = 1, **options) -> build.BuildSummary:
    return build.build_corpus(
        folder,
        sources.parse_sources(specs),
        build.BuildOptions(**{"tokenizer": "new:wordpiece:600", "shard_characters": 20_000, **options}),
        processes=processes,
        progress=lambda *_: None,
    )


@pytest.fixture(scope="module")
def tokenizer(request) -> str:
    return str(request.getfixturevalue("corpus") / "tokenizer")


def write_numbered(path: Path, numbers, words: str = "is a document of some words, to be found again") -> str:
    """Writes a text file with one short document per number and returns its spec."""
    path.write_text("\n\n".join(f"number {number} {words}." for number in numbers))
    return f"text:{path}"


def document_numbers(folder: Path, split: str) -> list[int]:
    # The vocabulary is small: "1 ##7" decodes to "17".
    return [int(document.split()[1]) for document in decoded_documents(folder, split)]


def test_help_and_docs_list_every_kind_of_source():
    help_text = commands.run("prepare", "--help").stdout
    page = (commands.ROOT / "docs/how-to/prepare-data.md").read_text()
    for kind in sources.KINDS:
        assert re.search(rf"\b{kind}\b", help_text) and f"`{kind}:" in page


def test_the_command_builds_a_corpus_and_prints_a_summary_and_the_next_command(text_file, tmp_path):
    out = tmp_path / "corpus"
    result = commands.run(
        "prepare", f"--source=text:{text_file}", f"--output={out}", "--tokenizer=new:wordpiece:1000", "--verify"
    )
    assert result.returncode == 0, result.stderr
    for row in ("documents", "sentences", "words", "tokens per word", "[UNK]", "duplicates", "MB/s"):
        assert row in result.stdout
    assert (
        f"python -m bertjax.train --config=configs/quickstart.py --workdir=runs/quickstart --config.corpus={out}"
        in result.stdout
    )
    assert "tokenizing" in result.stderr
    counts = result.stderr.splitlines()[-1]
    assert counts.startswith(f"{out}: ") and counts.endswith("%) unknown ([UNK])") and " tokens (0." in counts
    train, heldout = format.Corpus.open(out), format.Corpus.open(out, "heldout")
    assert train.documents + heldout.documents == 50
    assert heldout.documents == 8
    characters = collections.Counter("".join("".join(decoded_documents(out, split)).split()) for split in format.SPLITS)
    assert sum(map(len, characters)) > 0.9 * len("".join(text_file.read_text().split()))
    again = commands.run("prepare", f"--source=text:{text_file}", f"--output={out}", "--tokenizer=new:wordpiece:1000")
    assert again.returncode == 0
    assert "already complete" in again.stdout


def test_a_vocabulary_of_the_wrong_case_causes_a_warning(text_file, corpus, tmp_path):
    shutil.copy(corpus / "tokenizer/vocab.txt", tmp_path)
    flags = (f"--source=text:{text_file}", f"--tokenizer={tmp_path}", "--lowercase=false", "--heldout=0")
    result = commands.run("prepare", *flags, f"--output={tmp_path}/corpus")
    assert result.returncode == 0, result.stderr
    counts, warning = result.stderr.splitlines()[-2:]
    assert warning.startswith(f"warning: {counts}: check that the tokenizer is the model's own")
    tokens = np.concatenate([shard.tokens for shard in format.Corpus.open(tmp_path / "corpus").shards])
    unknown = np.count_nonzero(tokens == load_tokenizer(tmp_path / "corpus/tokenizer").unk_id)
    assert unknown > 0.01 * len(tokens)
    assert counts.endswith(f": {unknown:,} of {len(tokens):,} tokens ({unknown / len(tokens):.2%}) unknown ([UNK])")


def test_a_corpus_contains_the_ids_of_its_sentences(tmp_path, tokenizer):
    path = tmp_path / "a.txt"
    path.write_text("Dr. Smith came. He was late!\n\n\u200b\n\nThe [MASK] of x.")
    build_test_corpus(tmp_path / "out", f"text:{path}", tokenizer=tokenizer, heldout=0)
    [shard] = format.Corpus.open(tmp_path / "out").shards
    loaded = load_tokenizer(tokenizer)
    expected = loaded.encode_batch(["Dr. Smith came.", "He was late!", "The [MASK] of x."])
    assert np.split(shard.tokens, shard.sentence_offsets[1:-1])[0].tolist() == expected[0]
    assert shard.tokens.tolist() == [*itertools.chain.from_iterable(expected)]
    assert shard.document_offsets.tolist() == [0, 2, 3]
    assert format.Corpus.open(tmp_path / "out").tokenizer_hash == loaded.hash()


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "bpe"])
def test_every_sentence_begins_a_word(kind, text_file, tmp_path):
    """Except a document's first. Whole-word masking requires that no word continues across sentences."""
    build_test_corpus(tmp_path / "out", f"text:{text_file}", tokenizer=f"new:{kind}:600")
    starts = load_tokenizer(tmp_path / "out/tokenizer").word_starts()
    for shard in format.Corpus.open(tmp_path / "out").shards:
        within = np.setdiff1d(np.arange(len(shard.sentence_offsets) - 1), shard.document_offsets)
        assert len(within) > 10
        assert starts[shard.tokens[shard.sentence_offsets[within]]].all()


def test_the_corpus_is_the_same_for_any_number_of_processes(text_file, tmp_path):
    build_test_corpus(tmp_path / "one", f"text:{text_file}")
    build_test_corpus(tmp_path / "three", f"text:{text_file}", processes=3)
    assert file_hashes(tmp_path / "one") == file_hashes(tmp_path / "three")
    assert len(format.Corpus.open(tmp_path / "one").shards) > 5


def test_a_killed_build_resumes_and_yields_identical_files(tmp_path, tokenizer):
    psutil = pytest.importorskip("psutil")
    spec = write_numbered(tmp_path / "a.txt", range(4_000), "is a document. " + "It says much about many things. " * 12)
    arguments = [f"--source={spec}", f"--tokenizer={tokenizer}", "--processes=2", "--shard_megabytes=0.05"]
    whole = commands.run("prepare", *arguments, f"--output={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    killed = tmp_path / "killed"
    shard_times = []
    for shards in (0, 3, 12):
        process = subprocess.Popen(
            commands.command("prepare", *arguments, f"--output={killed}"), cwd=commands.ROOT, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 120
        while not (killed / "build").is_dir() or len(list(killed.glob("train-*.arrow"))) < shards:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs(workers, timeout=20)
        assert not alive, "workers outlived their parent"
        assert not (killed / "corpus.json").exists()
        shard_times.append({path: path.stat().st_mtime_ns for path in killed.glob("train-*.arrow")})
        with pytest.raises(UserError, match="not a corpus"):
            format.Corpus.open(killed)
    result = commands.run("prepare", *arguments, f"--output={killed}")
    assert result.returncode == 0, result.stderr
    assert "resuming" in result.stderr
    assert file_hashes(killed) == file_hashes(tmp_path / "whole")
    finished = {
        path: time_ns for path, time_ns in shard_times[-1].items() if (killed / "build" / f"{path.name}.json").exists()
    }
    unchanged = [path for path, time_ns in finished.items() if path.stat().st_mtime_ns == time_ns]
    # One shard per process may have been written without its record.
    assert len(unchanged) >= len(finished) - 2 and len(unchanged) >= 10


def test_an_interrupted_build_keeps_finished_shards(tmp_path, tokenizer):
    spec = write_numbered(tmp_path / "a.txt", range(4_000), "is a document. " + "It says much about many things. " * 12)
    arguments = [f"--source={spec}", f"--tokenizer={tokenizer}", "--processes=2", "--shard_megabytes=0.05"]
    process = subprocess.Popen(
        commands.command("prepare", *arguments, f"--output={tmp_path / 'out'}"),
        cwd=commands.ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not list(tmp_path.glob("out/train-*.arrow")):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to resume" in errors
    assert "Traceback" not in errors
    assert len(list(tmp_path.glob("out/build/train-*.json"))) == len(list(tmp_path.glob("out/train-*.arrow"))) > 0


def test_another_command_on_the_same_output_is_refused(text_file, tmp_path):
    out = tmp_path / "out"
    build_test_corpus(out, f"text:{text_file}")
    (out / "corpus.json").unlink()
    (out / "train-00001.arrow").unlink()
    other = tmp_path / "other.txt"
    other.write_text("another text")
    before = file_hashes(out)
    for specs, options, message in (
        ([f"text:{text_file}"], {"seed": 1}, "--seed=0"),
        ([f"text:{text_file}"], {"tokenizer": "new:bpe:600"}, "--tokenizer=new:wordpiece:600"),
        ([f"text:{text_file}", f"text:{other}"], {}, "started with other sources"),
    ):
        with pytest.raises(UserError, match=message):
            build_test_corpus(out, *specs, **options)
    assert file_hashes(out) == before


def test_a_source_that_changes_between_two_calls_is_detected(tmp_path, tokenizer):
    path = tmp_path / "a.txt"
    spec = write_numbered(path, range(20))
    build_test_corpus(tmp_path / "out", spec, tokenizer=tokenizer)
    (tmp_path / "out" / "corpus.json").unlink()
    write_numbered(path, range(21))
    with pytest.raises(UserError, match="changed since"):
        build_test_corpus(tmp_path / "out", spec, tokenizer=tokenizer)


def test_a_damaged_shard_is_rebuilt_alone(text_file, tmp_path):
    out = tmp_path / "out"
    build_test_corpus(out, f"text:{text_file}")
    before = file_hashes(out)
    shard = out / "train-00001.arrow"
    commands.flip_a_bit(shard)
    with pytest.raises(UserError, match=r"train-00001.arrow.*delete train-00001.arrow"):
        format.verify(out)
    shard.unlink()
    (out / "corpus.json").unlink()
    other_times = {path: path.stat().st_mtime_ns for path in out.glob("*.arrow")}
    build_test_corpus(out, f"text:{text_file}")
    assert file_hashes(out) == before
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in other_times.items())


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("plan.json", lambda values: values["plan"].pop("sources"), "plan: Object missing required field `sources`"),
        ("plan.json", lambda values: values["plan"].update(sources=[1]), r"plan.sources\[0\]: Expected `object`"),
        ("plan.json", lambda values: values["plan"]["sources"].pop(), "started with other sources"),
        ("train-00001.arrow.json", lambda values: values["counts"].update(tokens=7), "counts do not match"),
        (
            "train-00001.arrow.json",
            lambda values: values["shard"].update(name="train-00000.arrow"),
            r"its name or counts .*; delete it and run the same bertjax.prepare again to rebuild train-00001.arrow",
        ),
    ],
)
def test_sealed_but_inconsistent_files_are_refused(file, edit, message, text_file, tmp_path):
    out = tmp_path / "out"
    build_test_corpus(out, f"text:{text_file}")
    edit_sealed(out / "build" / file, edit)
    with pytest.raises(UserError, match=message):
        build_test_corpus(out, f"text:{text_file}")


def test_verify_needs_no_sources(text_file, tmp_path):
    out = tmp_path / "out"
    build_test_corpus(out, f"text:{text_file}")
    result = commands.run("prepare", f"--output={out}", "--verify")
    assert result.returncode == 0 and "all shards match their hashes" in result.stderr
    (out / "heldout-00000.arrow").write_bytes(b"\0" * (out / "heldout-00000.arrow").stat().st_size)
    commands.assert_refused(commands.run("prepare", f"--output={out}", "--verify"), "heldout-00000.arrow: damaged")


def test_duplicates_are_dropped_and_the_first_is_kept(tmp_path, tokenizer):
    first = write_numbered(tmp_path / "a.txt", [1, 2, 3, 2, 1])
    second = write_numbered(tmp_path / "b.txt", [3, 4, 4, 5])
    summary = build_test_corpus(tmp_path / "out", first, second, tokenizer=tokenizer, heldout=0)
    assert summary.duplicates == 4
    assert document_numbers(tmp_path / "out", "train") == [1, 2, 3, 4, 5]


def test_weights_repeat_and_drop_documents(tmp_path, tokenizer):
    often = write_numbered(tmp_path / "a.txt", range(100)) + "@2.5"
    seldom = write_numbered(tmp_path / "b.txt", range(1000, 1400)) + "@0.25"
    summary = build_test_corpus(tmp_path / "out", often, seldom, tokenizer=tokenizer)
    counts = collections.Counter(document_numbers(tmp_path / "out", "train"))
    heldout = document_numbers(tmp_path / "out", "heldout")
    assert len(heldout) == len(set(heldout)) == 8
    assert not counts.keys() & set(heldout)
    repeated = [counts[number] for number in range(100) if number in counts]
    assert set(repeated) == {2, 3}
    assert 30 <= repeated.count(3) <= 70
    thinned = [count for number, count in counts.items() if number >= 1000]
    assert set(thinned) == {1}
    assert 60 <= len(thinned) <= 140
    assert summary.thinned == 400 - len(thinned) - sum(number >= 1000 for number in heldout)
    first_pass = document_numbers(tmp_path / "out", "train")[: len(repeated)]
    assert len(set(first_pass)) == len(first_pass), "copies are adjacent"


def test_held_out_documents_are_a_random_share_that_depends_on_the_seed(tmp_path, tokenizer):
    spec = write_numbered(tmp_path / "a.txt", range(2_000))
    for seed in (0, 1):
        build_test_corpus(tmp_path / str(seed), spec, tokenizer=tokenizer, heldout=0.1, seed=seed)
    first, second = (document_numbers(tmp_path / str(seed), "heldout") for seed in (0, 1))
    assert len(first) == len(second) == 200
    assert len(set(first) & set(second)) < 50
    assert 800 < np.mean(first) < 1200
    everything = sorted(first + document_numbers(tmp_path / "0", "train"))
    assert everything == list(range(2_000))


@pytest.mark.parametrize(
    ("documents", "expected"), [(2, 0), (3, 0), (4, 2), (7, 2), (8, 2), (20, 5), (40, 8), (2_000, 10)]
)
def test_a_few_documents_are_held_out_of_a_small_corpus(documents, expected, tmp_path):
    [source] = sources.parse_sources([write_numbered(tmp_path / "a.txt", range(documents))])
    chosen, _ = selection.select([source], heldout=0.005, seed=0)
    assert int((chosen.copies[0] == selection.HELDOUT).sum()) == expected


def test_the_sample_for_a_vocabulary_is_bounded_and_uniform(tmp_path):
    [source] = sources.parse_sources([write_numbered(tmp_path / "a.txt", range(5_000))])
    _, sample = selection.select([source], heldout=0, seed=0, sample_characters=20_000)
    assert 19_000 < sum(len(document) for _, document in sample) <= 20_000
    numbers = [int(document.split()[1]) for _, document in sample]
    assert min(numbers) < 200 and max(numbers) > 4_800 and 2_000 < np.mean(numbers) < 3_000


BAD_FILES = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\n \n", "no documents"),
    "binary": (b"\x7fELF\x00\x00\x01", "zero byte"),
    "broken": (b"one\ntwo \xff\n", "invalid UTF-8 in line 2"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_invalid_files_are_refused_in_one_line_without_output(kind, tmp_path):
    content, message = BAD_FILES[kind]
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    result = commands.run("prepare", f"--source=text:{path}", f"--output={tmp_path / 'out'}")
    commands.assert_refused(result, path, message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--source=text:/nowhere.txt", "--output={out}"], "no such file"),
        (["--source=what:ever", "--output={out}"], "unknown kind of source"),
        (["--output={out}"], "no source"),
        (["--source=pydoc:"], "--output is missing"),
        (["--source=pydoc:", "--output={out}", "--tokenizer=new:words:9"], "--tokenizer=new:words:9"),
        (["--source=pydoc:", "--output={out}", "--tokenizer=/nowhere"], "no such tokenizer"),
        (["--source=pydoc:", "--output={out}", "--heldout=2"], "heldout"),
        (["--source=pydoc:", "--output={out}", "surprise"], "surprise"),
    ],
)
def test_invalid_flags_are_refused_in_one_line(arguments, message, tmp_path):
    arguments = [argument.format(out=tmp_path / "out") for argument in arguments]
    commands.assert_refused(commands.run("prepare", *arguments), message)
    assert not (tmp_path / "out").exists()


def test_an_output_with_other_files_is_not_changed(text_file, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    before = file_hashes(tmp_path)
    with pytest.raises(UserError, match=r"not empty .thesis.tex"):
        build_test_corpus(tmp_path, f"text:{text_file}")
    with pytest.raises(UserError, match="cannot be written to"):
        build_test_corpus(tmp_path / "thesis.tex" / "out", f"text:{text_file}")
    assert file_hashes(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_without_permission_is_refused(text_file, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written to"):
        build_test_corpus(tmp_path / "out", f"text:{text_file}")


def test_a_build_resumes_after_the_manifest_could_not_be_written(text_file, tmp_path):
    """A folder is in its place."""
    (tmp_path / "out").mkdir()
    build_test_corpus(tmp_path / "out", f"text:{text_file}")
    (tmp_path / "out/corpus.json").unlink()
    (tmp_path / "out/corpus.json").mkdir()
    with pytest.raises(UserError, match=r"corpus.json: cannot be written"):
        build_test_corpus(tmp_path / "out", f"text:{text_file}")
    (tmp_path / "out/corpus.json").rmdir()
    build_test_corpus(tmp_path / "out", f"text:{text_file}")
    format.Corpus.open(tmp_path / "out")


def test_concurrent_builds_in_one_folder_are_refused(text_file, tmp_path):
    with exclusive_lock(tmp_path, "a test is here", "--output"), pytest.raises(UserError, match="another prepare"):
        build_test_corpus(tmp_path, f"text:{text_file}")
