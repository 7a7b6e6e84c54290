import json
import os

import numpy as np
import pyarrow as pa
import pytest

from bertjax import decoding
from bertjax.corpus import format
from bertjax.corpus.format import Corpus
from bertjax.errors import UserError
from tests.support import synthetic
from tests.support.commands import flip_a_bit
from tests.support.damage import edit_sealed

DOCUMENTS = [[[5, 6, 7], [8, 9]], [[10, 11, 12, 13]], [[14]]]


@pytest.fixture
def small(tmp_path):
    return synthetic.write(tmp_path / "small", {"train": [DOCUMENTS[:2], DOCUMENTS[2:]], "heldout": [DOCUMENTS[:1]]})


def test_a_written_corpus_can_be_opened(small):
    train = Corpus.open(small)
    assert (train.documents, train.sentences, train.tokens) == (3, 4, 10)
    assert train.document_sentences.tolist() == [0, 2, 3, 4]
    assert train.document_tokens.tolist() == [0, 5, 9, 10]
    assert synthetic.all_tokens(train).tolist() == list(range(5, 15))
    assert Corpus.open(small, "heldout").tokens == 5


def test_views_are_memory_mapped_and_read_only(small):
    shard = Corpus.open(small).shards[0]
    for view in (shard.document_offsets, shard.sentence_offsets, shard.tokens):
        assert not view.flags.writeable and not view.flags.owndata


def test_shards_are_plain_arrow_files(small):
    table = pa.ipc.open_file(small / "train-00000.arrow").read_all()
    assert table.to_pydict() == {"sentences": DOCUMENTS[:2]}
    assert table.schema.field("sentences").type == pa.list_(pa.list_(pa.uint16()))


def test_large_vocabularies_use_uint32(tmp_path):
    synthetic.write(tmp_path, {"train": [[[[100_000, 5]]]]}, vocab_size=120_000)
    assert Corpus.open(tmp_path).shards[0].tokens.tolist() == [100_000, 5]


def test_fingerprint_depends_on_the_contents_only(small, tmp_path):
    same = synthetic.write(tmp_path / "same", {"train": [DOCUMENTS[:2], DOCUMENTS[2:]], "heldout": [DOCUMENTS[:1]]})
    other = synthetic.write(tmp_path / "other", {"train": [DOCUMENTS[:2], [[[15]]]], "heldout": [DOCUMENTS[:1]]})
    assert Corpus.open(small).fingerprint == Corpus.open(same).fingerprint == Corpus.open(small, "heldout").fingerprint
    assert Corpus.open(small).fingerprint != Corpus.open(other).fingerprint


@pytest.mark.parametrize("offsets", [[0, 1, 1, 2], [0, 1], [1, 2], []])
def test_empty_documents_and_invalid_offsets_are_refused(tmp_path, offsets):
    with pytest.raises(ValueError, match="document_offsets"):
        format.write_shard(tmp_path / "s.arrow", np.array(offsets), np.array([0, 1, 2]), np.zeros(2, np.uint16))
    assert not list(tmp_path.iterdir())


def test_a_truncated_shard_is_reported_on_open(small):
    path = small / "train-00001.arrow"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"train-00001.arrow: truncated.*prepare"):
        Corpus.open(small)


def test_a_missing_shard_is_reported_on_open(small):
    (small / "train-00000.arrow").unlink()
    with pytest.raises(UserError, match=r"train-00000.arrow.*missing.*prepare"):
        Corpus.open(small)


def test_a_flipped_bit_is_reported_on_open_and_by_verify(small):
    flip_a_bit(small / "heldout-00000.arrow")
    Corpus.open(small, "train")
    for check in (format.verify, lambda directory: Corpus.open(directory, "heldout")):
        with pytest.raises(UserError, match=r"heldout-00000.arrow: damaged.*copy it again.*prepare"):
            check(small)


@pytest.mark.parametrize("split", format.SPLITS)
def test_verified_shards_are_recorded_until_they_change(small, split):
    for opened in format.SPLITS:
        Corpus.open(small, opened)
    cache = small / "cache/verified.json"
    verified = json.loads(cache.read_text())
    assert decoding.without_seal(verified).keys() == {"train-00000.arrow", "train-00001.arrow", "heldout-00000.arrow"}
    written = cache.stat().st_mtime_ns
    Corpus.open(small, split)
    assert cache.stat().st_mtime_ns == written, "verified again"
    path = small / f"{split}-00000.arrow"
    times = path.stat()
    flip_a_bit(path)
    # Some tools preserve times.
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(UserError, match="damaged"):
        Corpus.open(small, split)
    assert json.loads(cache.read_text()) == verified


def test_recorded_shards_are_not_read_again(small):
    """`Corpus.open` trusts a forged record of a damaged shard, `verify` does not."""
    Corpus.open(small)
    cache, path = small / "cache/verified.json", small / "train-00001.arrow"
    flip_a_bit(path)
    status = path.stat()
    state = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    edit_sealed(cache, lambda verified: verified.update({path.name: state + verified[path.name][3:]}))
    Corpus.open(small)
    with pytest.raises(UserError, match="damaged"):
        format.verify(small)


@pytest.mark.parametrize("content", ["{", "[]", "7", '{"train-00000.arrow": 1}'])
def test_a_damaged_record_of_verified_shards_is_replaced(small, content):
    (small / "cache").mkdir()
    (small / "cache/verified.json").write_text(content)
    Corpus.open(small)
    assert "train-00001.arrow" in json.loads((small / "cache/verified.json").read_text())


def test_a_corpus_with_an_unwritable_cache_can_be_opened(small):
    """A file in place of the folder prevents writing even for root."""
    (small / "cache").write_text("")
    Corpus.open(small)
    flip_a_bit(small / "train-00000.arrow")
    with pytest.raises(UserError, match="damaged"):
        Corpus.open(small)


def test_a_shard_of_zeros_is_refused(small):
    path = small / "train-00000.arrow"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(UserError, match=r"train-00000\.arrow"):
        Corpus.open(small)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (None, "not a corpus"),
        ("{", "not JSON"),
        ("[]", "not the manifest"),
        ('{"format": "bertjax corpus", "version": 99}', "version 99"),
        ('{"format": "bertjax corpus", "version": 1}', "missing seal sha256"),
    ],
)
def test_a_missing_or_invalid_manifest_is_refused(small, manifest, message):
    (small / "corpus.json").unlink()
    if manifest is not None:
        (small / "corpus.json").write_text(manifest)
    for read in (Corpus.open, format.verify):
        with pytest.raises(UserError, match=message) as error:
            read(small)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content["shards"]["train"][1].update(bytes="7"), r"shards\.train\[1\]\.bytes: Expected `int`"),
        (lambda content: content["shards"]["heldout"][0].pop("sha256"), r"shards\.heldout\[0\].*`sha256`"),
        (lambda content: content["shards"].update(test=[]), r"unknown key shards\.test"),
        (lambda content: content.update(seed=1), "unknown key seed"),
        (lambda content: content["shards"]["train"][1].update(tokens=2**60), r"shards\.train\[1\]\.tokens: Expected"),
        (lambda content: content["shards"]["train"][1].update(name="../train-00001.arrow"), r"train\[1\]\.name"),
        (lambda content: content["shards"]["train"].append(content["shards"]["train"][1]), r"train\[2\]\.name"),
        (lambda content: content["shards"]["train"].extend(content["shards"].pop("heldout")), "is not a train shard"),
        (lambda content: content["shards"]["train"][0].update(sentences=1), "fewer sentences than documents"),
        (lambda content: content["counts"]["train"].update(documents=1), "counts: not the sums"),
        (lambda content: content["shards"]["train"].pop(), "counts: not the sums"),
        (lambda content: content.update(vocab_size=content["vocab_size"] + 1), "fingerprint"),
        (
            lambda content: content["shards"]["heldout"][0].update(sha256=content["shards"]["train"][0]["sha256"]),
            r"shards\.heldout\[0\]: also a shard of train",
        ),
    ],
)
def test_an_inconsistent_manifest_is_refused_with_the_place(small, edit, message):
    edit_sealed(small / "corpus.json", edit)
    for read in (Corpus.open, format.verify):
        with pytest.raises(UserError, match=rf"corpus\.json: not valid \(.*{message}.*\); copy it again") as error:
            read(small)
        assert "\n" not in str(error.value)


def test_an_unsealed_edit_is_refused(small):
    content = json.loads((small / "corpus.json").read_text())
    content["statistics"]["note"] = "mine"
    (small / "corpus.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"checksum mismatch.*--reseal --from="):
        Corpus.open(small)
    format.reseal(small)
    assert Corpus.open(small).documents and json.loads((small / "corpus.json").read_text())["statistics"]


def test_resealing_refuses_a_file_without_documents(small):
    schema = pa.schema([("sentences", pa.list_(pa.list_(pa.uint16())))])
    with pa.ipc.new_file(small / "train-00001.arrow", schema):
        pass
    with pytest.raises(UserError, match=r"train-00001\.arrow: not an Arrow file of documents"):
        format.reseal(small)


def test_resealing_updates_counts_and_fingerprint(small, tmp_path):
    """An intentionally replaced shard is accepted, a shard of another vocabulary is not."""
    fingerprint = Corpus.open(small).fingerprint
    other = synthetic.write(tmp_path / "other", {"train": [[[[5, 6], [7]]]]})
    (small / "train-00001.arrow").write_bytes((other / "train-00000.arrow").read_bytes())
    with pytest.raises(UserError, match=r"train-00001\.arrow: truncated or changed"):
        Corpus.open(small)
    format.reseal(small)
    corpus = Corpus.open(small)
    assert corpus.fingerprint != fingerprint and corpus.shards[1].tokens.tolist() == [5, 6, 7]
    edit_sealed(small / "corpus.json", lambda content: content.update(vocab_size=7))
    with pytest.raises(UserError, match=r"contains id \d+, but the vocabulary has 7 ids"):
        format.reseal(small)


@pytest.mark.parametrize(
    ("documents", "sentences", "message"),
    [
        ([0, 2, 1, 3], [0, 1, 2, 3], "document_offsets must be strictly"),
        ([0, 1, 2, 3], [0, 2, 2, 3], "sentence_offsets must be strictly"),
    ],
)
def test_resealing_refuses_invalid_offsets(small, documents, sentences, message):
    batch = pa.ListArray.from_arrays(
        pa.array(documents, pa.int32()),
        pa.ListArray.from_arrays(pa.array(sentences, pa.int32()), pa.array([5, 6, 7], pa.uint16())),
    )
    with pa.ipc.new_file(small / "train-00000.arrow", pa.schema([("sentences", batch.type)])) as writer:
        writer.write_batch(pa.record_batch([batch], names=["sentences"]))
    with pytest.raises(UserError, match=message):
        format.reseal(small)


def test_missing_directory_and_split(tmp_path, small):
    with pytest.raises(UserError, match="no such directory"):
        Corpus.open(tmp_path / "nowhere")
    (small / "heldout-00000.arrow").unlink()
    edit_sealed(small / "corpus.json", lambda content: content["shards"].pop("heldout"))
    format.reseal(small)
    with pytest.raises(UserError, match="no heldout documents"):
        Corpus.open(small, "heldout")
