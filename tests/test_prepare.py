"""`prepare` as a user meets it: sources in, a corpus out, the same however it was made."""

import collections
import hashlib
import itertools
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from bertjax.corpus import build, format, selection
from bertjax.errors import UserError
from bertjax.storage.files import claimed
from bertjax.text import sources
from bertjax.text.tokenizer import load_tokenizer
from tests.support import commands
from tests.support.damage import edit_sealed


def documents_of(folder: Path, split: str) -> list[str]:
    """The text of each document of a corpus, decoded."""
    opened = format.Corpus.open(folder, split)
    tokenizer = load_tokenizer(folder / "tokenizer")
    return [
        tokenizer.decode(shard.tokens[shard.sentence_offsets[start] : shard.sentence_offsets[end]])
        for shard in opened.shards
        for start, end in zip(shard.document_offsets[:-1], shard.document_offsets[1:], strict=True)
    ]


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with its hash."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def make(folder: Path, *specs: str, processes: int = 1, **options) -> build.Summary:
    return build.build(
        folder,
        sources.parse(specs),
        build.Options(**{"tokenizer": "new:wordpiece:600", "shard_characters": 20_000, **options}),
        processes=processes,
        progress=lambda *_: None,
    )


@pytest.fixture(scope="module")
def tokenizer(request) -> str:
    return str(request.getfixturevalue("corpus") / "tokenizer")


def numbered(path: Path, numbers, words: str = "is a document of some words, to be found again") -> str:
    """A text file of one short document a number; its spec."""
    path.write_text("\n\n".join(f"number {number} {words}." for number in numbers))
    return f"text:{path}"


def numbers_of(folder: Path, split: str) -> list[int]:
    # The vocabulary is small: "1 ##7" decodes to "17".
    return [int(document.split()[1]) for document in documents_of(folder, split)]


def test_its_help_and_the_docs_list_every_kind_of_source():
    help_text, page = commands.run("prepare", "--help").stdout, (commands.ROOT / "docs/data.md").read_text()
    for kind in sources.KINDS:
        assert f"{kind}:" in help_text and f"`{kind}:" in page


def test_the_command_makes_a_corpus_and_says_what_it_is_and_what_comes_next(text_file, tmp_path):
    out = tmp_path / "corpus"
    result = commands.run(
        "prepare", f"--source=text:{text_file}", f"--output={out}", "--tokenizer=new:wordpiece:1000", "--verify"
    )
    assert result.returncode == 0, result.stderr
    for row in ("documents", "sentences", "words", "tokens a word", "[UNK]", "duplicates", "MB/s"):
        assert row in result.stdout
    assert (
        f"python -m bertjax.train --config=configs/base.py --workdir=runs/base --config.corpus={out}" in result.stdout
    )
    assert "tokenising" in result.stderr
    counts = result.stderr.splitlines()[-1]
    assert counts.startswith(f"{out}: ") and counts.endswith("%) unknown ([UNK])") and " tokens (0." in counts
    train, heldout = format.Corpus.open(out), format.Corpus.open(out, "heldout")
    assert train.documents + heldout.documents == 50
    assert heldout.documents == 8
    found = collections.Counter("".join("".join(documents_of(out, split)).split()) for split in format.SPLITS)
    assert sum(map(len, found)) > 0.9 * len("".join(text_file.read_text().split()))
    again = commands.run("prepare", f"--source=text:{text_file}", f"--output={out}", "--tokenizer=new:wordpiece:1000")
    assert again.returncode == 0
    assert "was complete" in again.stdout


def test_a_vocabulary_of_the_wrong_case_is_warned_of(text_file, corpus, tmp_path):
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


def test_a_corpus_holds_the_ids_of_its_sentences(tmp_path, tokenizer):
    path = tmp_path / "a.txt"
    path.write_text("Dr. Smith came. He was late!\n\n\u200b\n\nThe [MASK] of x.")
    make(tmp_path / "out", f"text:{path}", tokenizer=tokenizer, heldout=0)
    [shard] = format.Corpus.open(tmp_path / "out").shards
    loaded = load_tokenizer(tokenizer)
    expected = loaded.encode_batch(["Dr. Smith came.", "He was late!", "The [MASK] of x."])
    assert np.split(shard.tokens, shard.sentence_offsets[1:-1])[0].tolist() == expected[0]
    assert shard.tokens.tolist() == [*itertools.chain.from_iterable(expected)]
    assert shard.document_offsets.tolist() == [0, 2, 3]
    assert format.Corpus.open(tmp_path / "out").tokenizer_hash == loaded.hash()


@pytest.mark.parametrize("kind", ["wordpiece", "unigram", "bpe"])
def test_every_sentence_begins_a_word(kind, text_file, tmp_path):
    """Behind a document's first one, that is; whole words are masked, and words end with their sentence."""
    make(tmp_path / "out", f"text:{text_file}", tokenizer=f"new:{kind}:600")
    starts = load_tokenizer(tmp_path / "out/tokenizer").word_starts()
    for shard in format.Corpus.open(tmp_path / "out").shards:
        within = np.setdiff1d(np.arange(len(shard.sentence_offsets) - 1), shard.document_offsets)
        assert len(within) > 10
        assert starts[shard.tokens[shard.sentence_offsets[within]]].all()


def test_the_corpus_is_the_same_for_any_number_of_processes(text_file, tmp_path):
    make(tmp_path / "one", f"text:{text_file}")
    make(tmp_path / "three", f"text:{text_file}", processes=3)
    assert tree(tmp_path / "one") == tree(tmp_path / "three")
    assert len(format.Corpus.open(tmp_path / "one").shards) > 5


def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_bytes(tmp_path, tokenizer):
    psutil = pytest.importorskip("psutil")
    spec = numbered(tmp_path / "a.txt", range(4_000), "is a document. " + "It says much about many things. " * 12)
    arguments = [f"--source={spec}", f"--tokenizer={tokenizer}", "--processes=2", "--shard_megabytes=0.05"]
    whole = commands.run("prepare", *arguments, f"--output={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    killed = tmp_path / "killed"
    kept = []
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
        assert not alive, "workers outlive their parent"
        assert not (killed / "corpus.json").exists()
        kept.append({path: path.stat().st_mtime_ns for path in killed.glob("train-*.arrow")})
        with pytest.raises(UserError, match="not a corpus"):
            format.Corpus.open(killed)
    result = commands.run("prepare", *arguments, f"--output={killed}")
    assert result.returncode == 0, result.stderr
    assert "going on" in result.stderr
    assert tree(killed) == tree(tmp_path / "whole")
    finished = {path: when for path, when in kept[-1].items() if (killed / "build" / f"{path.name}.json").exists()}
    untouched = [path for path, when in finished.items() if path.stat().st_mtime_ns == when]
    # All but the shards whose record was not yet written when the kill came: one a process.
    assert len(untouched) >= len(finished) - 2 and len(untouched) >= 10


def test_ctrl_c_keeps_what_is_done(tmp_path, tokenizer):
    spec = numbered(tmp_path / "a.txt", range(4_000), "is a document. " + "It says much about many things. " * 12)
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
    assert "run the same command again to go on" in errors
    assert "Traceback" not in errors
    assert len(list(tmp_path.glob("out/build/train-*.json"))) == len(list(tmp_path.glob("out/train-*.arrow"))) > 0


def test_another_command_on_the_same_output_is_refused(text_file, tmp_path):
    out = tmp_path / "out"
    make(out, f"text:{text_file}")
    (out / "corpus.json").unlink()
    (out / "train-00001.arrow").unlink()
    other = tmp_path / "other.txt"
    other.write_text("another text")
    before = tree(out)
    for specs, options, message in (
        ([f"text:{text_file}"], {"seed": 1}, "--seed=0"),
        ([f"text:{text_file}"], {"tokenizer": "new:bpe:600"}, "--tokenizer=new:wordpiece:600"),
        ([f"text:{text_file}", f"text:{other}"], {}, "other sources"),
    ):
        with pytest.raises(UserError, match=message):
            make(out, *specs, **options)
    assert tree(out) == before


def test_a_source_that_changes_between_two_calls_is_noticed(tmp_path, tokenizer):
    path = tmp_path / "a.txt"
    spec = numbered(path, range(20))
    make(tmp_path / "out", spec, tokenizer=tokenizer)
    (tmp_path / "out" / "corpus.json").unlink()
    numbered(path, range(21))
    with pytest.raises(UserError, match="changed since"):
        make(tmp_path / "out", spec, tokenizer=tokenizer)


def test_a_damaged_shard_is_made_again_alone(text_file, tmp_path):
    out = tmp_path / "out"
    make(out, f"text:{text_file}")
    before = tree(out)
    shard = out / "train-00001.arrow"
    commands.flip_a_bit(shard)
    with pytest.raises(UserError, match=r"train-00001.arrow.*delete train-00001.arrow"):
        format.verify(out)
    shard.unlink()
    (out / "corpus.json").unlink()
    others = {path: path.stat().st_mtime_ns for path in out.glob("*.arrow")}
    make(out, f"text:{text_file}")
    assert tree(out) == before
    assert all(path.stat().st_mtime_ns == when for path, when in others.items())


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("plan.json", lambda values: values["plan"].pop("sources"), "plan: Object missing required field `sources`"),
        ("plan.json", lambda values: values["plan"].update(sources=[1]), r"plan.sources\[0\]: Expected `object`"),
        ("plan.json", lambda values: values["plan"]["sources"].pop(), "begun from other sources"),
        ("train-00001.arrow.json", lambda values: values["counts"].update(tokens=7), "counts are not those"),
        (
            "train-00001.arrow.json",
            lambda values: values["shard"].update(name="train-00000.arrow"),
            r"its name or counts .*; delete it, and the same bertjax.prepare makes train-00001.arrow again",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_though_its_seal_holds(file, edit, message, text_file, tmp_path):
    out = tmp_path / "out"
    make(out, f"text:{text_file}")
    edit_sealed(out / "build" / file, edit)
    with pytest.raises(UserError, match=message):
        make(out, f"text:{text_file}")


def test_verify_needs_no_sources(text_file, tmp_path):
    out = tmp_path / "out"
    make(out, f"text:{text_file}")
    result = commands.run("prepare", f"--output={out}", "--verify")
    assert result.returncode == 0 and "every shard is as it was written" in result.stderr
    (out / "heldout-00000.arrow").write_bytes(b"\0" * (out / "heldout-00000.arrow").stat().st_size)
    commands.assert_refused(commands.run("prepare", f"--output={out}", "--verify"), "heldout-00000.arrow: damaged")


def test_duplicates_are_dropped_and_the_first_one_stays(tmp_path, tokenizer):
    first = numbered(tmp_path / "a.txt", [1, 2, 3, 2, 1])
    second = numbered(tmp_path / "b.txt", [3, 4, 4, 5])
    summary = make(tmp_path / "out", first, second, tokenizer=tokenizer, heldout=0)
    assert summary.duplicates == 4
    assert numbers_of(tmp_path / "out", "train") == [1, 2, 3, 4, 5]


def test_weights_repeat_and_thin_out(tmp_path, tokenizer):
    often = numbered(tmp_path / "a.txt", range(100)) + "@2.5"
    seldom = numbered(tmp_path / "b.txt", range(1000, 1400)) + "@0.25"
    summary = make(tmp_path / "out", often, seldom, tokenizer=tokenizer)
    counts = collections.Counter(numbers_of(tmp_path / "out", "train"))
    heldout = numbers_of(tmp_path / "out", "heldout")
    assert len(heldout) == len(set(heldout)) == 8
    assert not counts.keys() & set(heldout)
    repeated = [counts[number] for number in range(100) if number in counts]
    assert set(repeated) == {2, 3}
    assert 30 <= repeated.count(3) <= 70
    thinned = [count for number, count in counts.items() if number >= 1000]
    assert set(thinned) == {1}
    assert 60 <= len(thinned) <= 140
    assert summary.thinned == 400 - len(thinned) - sum(number >= 1000 for number in heldout)
    first_pass = numbers_of(tmp_path / "out", "train")[: len(repeated)]
    assert len(set(first_pass)) == len(first_pass), "copies stand together"


def test_held_out_documents_are_a_random_share_that_the_seed_decides(tmp_path, tokenizer):
    spec = numbered(tmp_path / "a.txt", range(2_000))
    for seed in (0, 1):
        make(tmp_path / str(seed), spec, tokenizer=tokenizer, heldout=0.1, seed=seed)
    first, second = (numbers_of(tmp_path / str(seed), "heldout") for seed in (0, 1))
    assert len(first) == len(second) == 200
    assert len(set(first) & set(second)) < 50
    assert 800 < np.mean(first) < 1200
    everything = sorted(first + numbers_of(tmp_path / "0", "train"))
    assert everything == list(range(2_000))


@pytest.mark.parametrize(
    ("documents", "expected"), [(2, 0), (3, 0), (4, 2), (7, 2), (8, 2), (20, 5), (40, 8), (2_000, 10)]
)
def test_a_few_documents_are_held_out_of_a_small_corpus(documents, expected, tmp_path):
    [source] = sources.parse([numbered(tmp_path / "a.txt", range(documents))])
    chosen, _ = selection.select([source], heldout=0.005, seed=0)
    assert int((chosen.copies[0] == selection.HELDOUT).sum()) == expected


def test_the_sample_for_a_vocabulary_is_bounded_and_comes_from_everywhere(tmp_path):
    [source] = sources.parse([numbered(tmp_path / "a.txt", range(5_000))])
    _, sample = selection.select([source], heldout=0, seed=0, sample_characters=20_000)
    assert 19_000 < sum(len(document) for _, document in sample) <= 20_000
    numbers = [int(document.split()[1]) for _, document in sample]
    assert min(numbers) < 200 and max(numbers) > 4_800 and 2_000 < np.mean(numbers) < 3_000


BAD_FILES = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\n \n", "no documents"),
    "binary": (b"\x7fELF\x00\x00\x01", "zero byte"),
    "broken": (b"one\ntwo \xff\n", "broken UTF-8 in line 2"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_bad_files_end_in_one_line_and_leave_no_output(kind, tmp_path):
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
def test_bad_flags_end_in_one_line(arguments, message, tmp_path):
    arguments = [argument.format(out=tmp_path / "out") for argument in arguments]
    commands.assert_refused(commands.run("prepare", *arguments), message)
    assert not (tmp_path / "out").exists()


def test_an_output_that_holds_something_else_is_left_alone(text_file, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=r"not empty .thesis.tex"):
        make(tmp_path, f"text:{text_file}")
    with pytest.raises(UserError, match="cannot be written to"):
        make(tmp_path / "thesis.tex" / "out", f"text:{text_file}")
    assert tree(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_without_permission_is_refused(text_file, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="cannot be written to"):
        make(tmp_path / "out", f"text:{text_file}")


def test_a_manifest_that_cannot_be_written_ends_in_a_message_and_the_build_goes_on(text_file, tmp_path):
    """A folder stands in its place."""
    (tmp_path / "out").mkdir()
    make(tmp_path / "out", f"text:{text_file}")
    (tmp_path / "out/corpus.json").unlink()
    (tmp_path / "out/corpus.json").mkdir()
    with pytest.raises(UserError, match=r"corpus.json: cannot be written"):
        make(tmp_path / "out", f"text:{text_file}")
    (tmp_path / "out/corpus.json").rmdir()
    make(tmp_path / "out", f"text:{text_file}")
    format.Corpus.open(tmp_path / "out")


def test_two_builds_do_not_write_into_one_folder(text_file, tmp_path):
    with claimed(tmp_path, "a test is here", "--output"), pytest.raises(UserError, match="another prepare"):
        make(tmp_path, f"text:{text_file}")
