import subprocess
import sys

import pytest

from bertjax.errors import UserError
from bertjax.text import tokenizer_training
from bertjax.text.tokenizer import load_tokenizer
from tests.support.tokenizers import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_reproducible_in_another_process(kind, tokenizers_of_each_kind, training_text, tmp_path):
    (tmp_path / "sentences").write_text("\n".join(training_text), encoding="utf-8")
    program = (
        "import sys; from bertjax.text import tokenizer_training\n"
        f"text = open({str(tmp_path / 'sentences')!r}, encoding='utf-8').read().split('\\n')\n"
        f"print(tokenizer_training.train_tokenizer('new:{kind}:2000', text, {str(tmp_path / 'out')!r}).hash())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == tokenizers_of_each_kind[kind].hash()


@pytest.mark.parametrize("kind", ["wordpiece", "wordpiece-cased", "bpe"])
def test_vocabulary_has_the_requested_size(kind, tokenizers_of_each_kind):
    assert tokenizers_of_each_kind[kind].vocab_size == 2000


def test_vocabulary_of_a_small_text_is_padded_with_unused_pieces(tmp_path):
    tokenizer = tokenizer_training.train_tokenizer("new:wordpiece:300", ["the cat sat on the mat"] * 5, tmp_path)
    assert tokenizer.vocab_size == 300
    assert tokenizer.id_to_token(299).startswith("[unused")
    assert 299 in tokenizer.special_ids
    assert tokenizer.decode(tokenizer.encode("the cat sat")) == "the cat sat"


def test_cased_and_uncased(tokenizers_of_each_kind):
    uncased, cased = tokenizers_of_each_kind["wordpiece"], tokenizers_of_each_kind["wordpiece-cased"]
    assert uncased.encode("The") == uncased.encode("the")
    assert uncased.encode("thé") == uncased.encode("the")
    assert cased.encode("The") != cased.encode("the")


def test_wordpieces_match_the_librarys_own_trainer(training_text, tokenizers_of_each_kind):
    """The library's trainer breaks ties at random, so a few pieces at the end differ between runs."""
    import tokenizers as library

    theirs = library.Tokenizer(library.models.WordPiece(unk_token="[UNK]"))
    theirs.normalizer = library.normalizers.BertNormalizer(lowercase=True)
    theirs.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = library.trainers.WordPieceTrainer(
        vocab_size=2000, min_frequency=2, special_tokens=special, show_progress=False
    )
    theirs.train_from_iterator(training_text, trainer)
    ours = {tokenizers_of_each_kind["wordpiece"].id_to_token(index) for index in range(2000)}
    assert len(ours & set(theirs.get_vocab())) > 0.98 * 2000


@pytest.mark.parametrize(
    "spec", ["new:wordpiece", "new:words:3000", "new:wordpiece:12", "new:wordpiece:99999999", "new:bpe:many"]
)
def test_invalid_specs_are_refused(spec, tmp_path):
    with pytest.raises(UserError, match="--tokenizer=new"):
        tokenizer_training.train_tokenizer(spec, ["text"], tmp_path)


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_text_without_words_is_refused(kind, tmp_path):
    with pytest.raises(UserError):
        tokenizer_training.train_tokenizer(f"new:{kind}:1000", [], tmp_path)


def test_a_vocabulary_of_more_than_65536_pieces_uses_uint32(tmp_path):
    tokenizer = tokenizer_training.train_tokenizer("new:wordpiece:70000", ["a few words"] * 3, tmp_path)
    assert tokenizer.dtype.itemsize == 4
    texts = ["a few words, few"]
    assert load_tokenizer(tmp_path).encode_batch(texts) == tokenizer.encode_batch(texts, word_cache=False)
