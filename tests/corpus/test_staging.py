"""A corpus that lies elsewhere is brought here once, and only whole."""

import shutil

import pytest

from bertjax.corpus import staging
from bertjax.corpus.format import Corpus
from bertjax.errors import UserError
from tests.support.commands import flip_a_bit


def test_a_remote_corpus_is_copied_once_for_all(corpus, tmp_path, monkeypatch, said):
    monkeypatch.setenv("BERTJAX_CACHE", str(tmp_path / "cache"))
    remote = shutil.copytree(corpus, tmp_path / "remote")
    said.clear()
    folder = staging.local(f"file://{remote}")
    assert Corpus.open(folder).fingerprint == Corpus.open(corpus).fingerprint
    for path in (corpus / "tokenizer").iterdir():
        assert (folder / "tokenizer" / path.name).read_bytes() == path.read_bytes()
    copied = len(said)
    for path in remote.glob("*.arrow"):
        path.unlink()  # so that a second copy would fail
    assert staging.local(f"file://{remote}") == folder and len(said) == copied > 0
    assert staging.local(str(corpus)) == corpus


def test_a_damaged_or_missing_remote_corpus_is_refused_and_the_copy_goes_on_later(corpus, tmp_path, monkeypatch, said):
    monkeypatch.setenv("BERTJAX_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match=r"no corpus there .*corpus\.json"):
        staging.local(f"file://{tmp_path}/none")
    with pytest.raises(UserError, match="cannot read nowhere://bucket"):
        staging.local("nowhere://bucket/corpus")
    remote = shutil.copytree(corpus, tmp_path / "remote")
    flip_a_bit(remote / "heldout-00000.arrow")
    with pytest.raises(UserError, match=r"heldout-00000\.arrow.*fails its checksum"):
        staging.local(f"file://{remote}")
    shutil.copy(corpus / "heldout-00000.arrow", remote)
    (tmp_path / "cache/corpora" / Corpus.open(corpus).fingerprint[:16] / ".train-00000.arrow.0.tmp").touch()
    said.clear()
    folder = staging.local(f"file://{remote}")
    assert Corpus.open(folder, split="heldout").documents and len(said) == 1  # the other shards were there
    assert not list(folder.glob(".*.tmp"))
