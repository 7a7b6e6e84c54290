import json

import numpy as np
import pyarrow as pa
import pytest

from bertjax.data import corpus
from bertjax.data.corpus import Corpus
from bertjax.errors import UserError
from tests.data import synthetic

DOCUMENTS = [[[5, 6, 7], [8, 9]], [[10, 11, 12, 13]], [[14]]]


@pytest.fixture
def small(tmp_path):
    return synthetic.write(tmp_path / "small", {"train": [DOCUMENTS[:2], DOCUMENTS[2:]], "heldout": [DOCUMENTS[:1]]})


def test_opens_what_was_written(small):
    train = Corpus.open(small, verify=True)
    assert (train.documents, train.sentences, train.tokens) == (3, 4, 10)
    assert train.document_sentences.tolist() == [0, 2, 3, 4]
    assert train.document_tokens.tolist() == [0, 5, 9, 10]
    assert synthetic.all_tokens(train).tolist() == list(range(5, 15))
    assert Corpus.open(small, "heldout").tokens == 5


def test_views_are_mapped_and_read_only(small):
    shard = Corpus.open(small).shards[0]
    for view in (shard.document_offsets, shard.sentence_offsets, shard.tokens):
        assert not view.flags.writeable and not view.flags.owndata


def test_anyone_reads_a_shard_with_pyarrow(small):
    table = pa.ipc.open_file(small / "train-00000.arrow").read_all()
    assert table.to_pydict() == {"sentences": DOCUMENTS[:2]}
    assert table.schema.field("sentences").type == pa.list_(pa.list_(pa.uint16()))


def test_large_vocabularies_take_uint32(tmp_path):
    synthetic.write(tmp_path, {"train": [[[[100_000, 5]]]]}, vocab_size=120_000)
    assert Corpus.open(tmp_path).shards[0].tokens.tolist() == [100_000, 5]


def test_fingerprint_is_of_the_contents(small, tmp_path):
    same = synthetic.write(tmp_path / "same", {"train": [DOCUMENTS[:2], DOCUMENTS[2:]], "heldout": [DOCUMENTS[:1]]})
    other = synthetic.write(tmp_path / "other", {"train": [DOCUMENTS[:2], [[[15]]]], "heldout": [DOCUMENTS[:1]]})
    assert Corpus.open(small).fingerprint == Corpus.open(same).fingerprint == Corpus.open(small, "heldout").fingerprint
    assert Corpus.open(small).fingerprint != Corpus.open(other).fingerprint


@pytest.mark.parametrize("offsets", [[0, 1, 1, 2], [0, 1], [1, 2], []])
def test_empty_or_ill_fitting_documents_are_refused(tmp_path, offsets):
    with pytest.raises(ValueError, match="document_offsets"):
        corpus.write_shard(tmp_path / "s.arrow", np.array(offsets), np.array([0, 1, 2]), np.zeros(2, np.uint16))
    assert not list(tmp_path.iterdir())


def test_truncated_shard_is_named_at_open(small):
    path = small / "train-00001.arrow"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"train-00001.arrow: truncated.*prepare"):
        Corpus.open(small)


def test_missing_shard_is_named_at_open(small):
    (small / "train-00000.arrow").unlink()
    with pytest.raises(UserError, match=r"train-00000.arrow.*missing.*prepare"):
        Corpus.open(small)


def test_flipped_bit_is_named_by_verify(small):
    corpus.verify(small)
    path = small / "heldout-00000.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    Corpus.open(small, "train", verify=True)
    for check in (corpus.verify, lambda directory: Corpus.open(directory, "heldout", verify=True)):
        with pytest.raises(UserError, match=r"heldout-00000.arrow: damaged.*prepare"):
            check(small)


def test_shard_of_noise_is_no_traceback(small):
    path = small / "train-00000.arrow"
    path.write_bytes(b"\0" * path.stat().st_size)
    with pytest.raises(UserError, match=r"train-00000\.arrow"):
        Corpus.open(small)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (None, "not a corpus"),
        ("{", "damaged"),
        ("[]", "not the manifest"),
        ('{"format": "bertjax corpus", "version": 99}', "version 99"),
        ('{"format": "bertjax corpus", "version": 1}', "damaged"),
    ],
)
def test_what_is_no_corpus_is_refused(small, manifest, message):
    (small / "corpus.json").unlink()
    if manifest is not None:
        (small / "corpus.json").write_text(manifest)
    for read in (Corpus.open, corpus.verify):
        with pytest.raises(UserError, match=message) as error:
            read(small)
        assert "\n" not in str(error.value)


def test_missing_directory_and_split(tmp_path, small):
    with pytest.raises(UserError, match="no such directory"):
        Corpus.open(tmp_path / "nowhere")
    manifest = json.loads((small / "corpus.json").read_text())
    del manifest["shards"]["heldout"]
    (small / "corpus.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="no heldout documents"):
        Corpus.open(small, "heldout")
