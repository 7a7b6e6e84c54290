"""A remote corpus is copied to this host once, and only if it is complete and undamaged."""

import shutil

import pytest

from bertjax.corpus import staging
from bertjax.corpus.format import Corpus
from bertjax.errors import UserError
from tests.support.commands import flip_a_bit


def test_a_remote_corpus_is_copied_once(corpus, tmp_path, monkeypatch, messages):
    monkeypatch.setenv("BERTJAX_CACHE", str(tmp_path / "cache"))
    remote = shutil.copytree(corpus, tmp_path / "remote")
    messages.clear()
    folder = staging.local_copy(f"file://{remote}")
    assert Corpus.open(folder).fingerprint == Corpus.open(corpus).fingerprint
    for path in (corpus / "tokenizer").iterdir():
        assert (folder / "tokenizer" / path.name).read_bytes() == path.read_bytes()
    copied = len(messages)
    for path in remote.glob("*.arrow"):
        path.unlink()  # a second copy would fail
    assert staging.local_copy(f"file://{remote}") == folder and len(messages) == copied > 0
    assert staging.local_copy(str(corpus)) == corpus


def test_a_damaged_or_missing_remote_corpus_is_refused_and_the_copy_resumes_later(
    corpus, tmp_path, monkeypatch, messages
):
    monkeypatch.setenv("BERTJAX_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"no corpus there .*corpus\.json"):
        staging.local_copy(f"file://{tmp_path}/none")
    with pytest.raises(UserError, match=r"nowhere://bucket/corpus: cannot be read"):
        staging.local_copy("nowhere://bucket/corpus")
    remote = shutil.copytree(corpus, tmp_path / "remote")
    flip_a_bit(remote / "heldout-00000.arrow")
    with pytest.raises(UserError, match=r"heldout-00000\.arrow: checksum mismatch"):
        staging.local_copy(f"file://{remote}")
    shutil.copy(corpus / "heldout-00000.arrow", remote)
    (tmp_path / "cache/corpora" / Corpus.open(corpus).fingerprint[:16] / ".train-00000.arrow.0.tmp").touch()
    messages.clear()
    folder = staging.local_copy(f"file://{remote}")
    assert Corpus.open(folder, split="heldout").documents and len(messages) == 1  # the other shards were copied before
    assert not list(folder.glob(".*.tmp"))
