"""Trains a vocabulary on sentences: WordPiece, SentencePiece unigram or byte-level BPE.

Training is deterministic: the same sentences yield the same vocabulary on any number of cores.
"""

import collections
import io
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import tokenizers as library

from bertjax.errors import UserError
from bertjax.text import unigram
from bertjax.text.backend import BERT_SPECIAL, Backend, wordpiece_tokenizer
from bertjax.text.tokenizer import Tokenizer, load_tokenizer

# About 1,000 characters begin words in BERT's vocabularies; other ideographs become [UNK].
MAX_ALPHABET = 1_000
MIN_FREQUENCY = 2
# Room for the special tokens and a useful alphabet (byte-level BPE: 256 bytes).
MIN_SIZE = 300
MAX_SIZE = 1_000_000

_ROBERTA_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
# Start of the private-use plane that represents word-internal characters during WordPiece training.
_PRIVATE = 0xF0000


def is_new(spec: str) -> bool:
    """Whether the value of --tokenizer is to be trained ("new:…", "extend:…") rather than a path."""
    return spec.startswith(("new:", "extend:"))


def identity(spec: str, lowercase: bool | None = None) -> str:
    """Returns an identity of a --tokenizer that does not depend on paths; `lowercase` as in `load_tokenizer`.

    Raises:
      UserError: the tokenizer cannot be read, or `lowercase` is given for a new one.
    """
    if spec.startswith("extend:"):
        words, base = parse_extension(spec)
        return f"extend:{words}:{load_tokenizer(base, lowercase).hash()}"
    if spec.startswith("new:"):
        parse_spec(spec)
        if lowercase is not None:
            raise UserError(f"--tokenizer={spec}: already specifies whether text is lower-cased; omit --lowercase")
        return spec
    return load_tokenizer(spec, lowercase).hash()


def parse_extension(spec: str) -> tuple[int, str]:
    """Parses "extend:NUMBER:FOLDER" into number of words and path.

    Raises:
      UserError: the spec is malformed.
    """
    match = re.fullmatch(r"extend:(\d+):(.+)", spec)
    if not match or not 1 <= int(match[1]) <= MAX_SIZE:
        raise UserError(f"--tokenizer={spec}: malformed; pass extend:NUMBER:FOLDER, e.g. extend:1000:bert-base-uncased")
    return int(match[1]), match[2]


def parse_spec(spec: str) -> tuple[str, int]:
    """Parses "new:KIND:SIZE" into kind and size.

    Raises:
      UserError: the spec is malformed, the kind unknown, or the size out of range.
    """
    kinds = "|".join(_TRAINERS)
    match = re.fullmatch(r"new:([a-z-]+):(\d+)", spec)
    if not match or match[1] not in _TRAINERS:
        raise UserError(f"--tokenizer={spec}: malformed; pass a folder or new:KIND:SIZE with KIND one of {kinds}")
    size = int(match[2])
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise UserError(f"--tokenizer={spec}: size out of range; pass a size of {MIN_SIZE} to {MAX_SIZE:,} pieces")
    return match[1], size


def train_tokenizer(
    spec: str, sentences: Iterable[str], directory: str | Path, lowercase: bool | None = None
) -> Tokenizer:
    """Trains a tokenizer, saves it in a directory and returns it as loaded from there.

    Args:
      spec: "new:KIND:SIZE" with kind "wordpiece" (BERT, lower-cased, accents stripped), "wordpiece-cased", "unigram"
        (SentencePiece, as ALBERT) or "bpe" (byte-level, as RoBERTa). A WordPiece vocabulary has exactly SIZE pieces,
        padded with [unused…] if the text is too small; the others have at most SIZE. Or "extend:NUMBER:FOLDER": the
        WordPiece tokenizer of FOLDER with at most NUMBER words of the text appended to its vocabulary.
      sentences: the text, without line ends. All distinct words are held in memory: bound the sample.
      directory: for the tokenizer files; created if it does not exist.
      lowercase: for the tokenizer of FOLDER, as in `load_tokenizer`.

    Raises:
      UserError: the spec is invalid, or the text too small for any vocabulary.
    """
    if spec.startswith("extend:"):
        words, path = parse_extension(spec)
        tokenizer = _extend_vocabulary(load_tokenizer(path, lowercase), sentences, words)
    else:
        kind, size = parse_spec(spec)
        tokenizer = _TRAINERS[kind](sentences, size)
    tokenizer.save(directory)
    return load_tokenizer(directory)


def _extend_vocabulary(base: Tokenizer, sentences: Iterable[str], size: int) -> Tokenizer:
    """Adds the words that save the most pieces on this text."""
    counts = collections.Counter(word for sentence in sentences for word in base.words(sentence))
    words = sorted(word for word, count in counts.items() if count >= MIN_FREQUENCY)
    pieces = base.encode_batch(words)
    saved_pieces = {
        word: counts[word] * (len(ids) - 1 or 2)  # a word encoded as [UNK] counts as two
        for word, ids in zip(words, pieces, strict=True)
        if len(ids) > 1 or ids == [base.unk_id]
    }
    return base.extended(sorted(saved_pieces, key=lambda word: (-saved_pieces[word], word))[:size])


def _wordpiece(sentences: Iterable[str], size: int, lowercase: bool) -> Tokenizer:
    special = BERT_SPECIAL
    pieces = [*special, *_wordpieces(_count_words(sentences, lowercase), size - len(special))]
    pieces += [f"[unused{index}]" for index in range(size - len(pieces))]
    tokenizer = wordpiece_tokenizer({piece: index for index, piece in enumerate(pieces)}, lowercase)
    return Tokenizer(
        Backend(tokenizer),
        {"tokenizer_class": "BertTokenizer", "do_lower_case": lowercase, "model_max_length": 512},
    )


def _count_words(sentences: Iterable[str], lowercase: bool) -> collections.Counter[str]:
    """Counts the words as split by BERT's normalizer and pre-tokenizer."""
    raw_words = collections.Counter(word for sentence in sentences for word in sentence.split())
    normalizer = library.normalizers.BertNormalizer(lowercase=lowercase)
    pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    words = collections.Counter()
    for text, count in raw_words.items():
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)):
            words[word] += count
    return words


def _wordpieces(words: collections.Counter[str], size: int) -> list[str]:
    """Returns pieces by byte-pair merges, as the library's WordPiece trainer does, but deterministically.

    That trainer numbers the word-internal characters ("##a") in the order of a randomly seeded hash map, and these
    numbers break ties between merges of equal counts. The library's BPE trainer sorts its alphabet. Each word-internal
    character is therefore replaced by a private-use one for BPE training and converted back to "##" afterwards.
    """
    frequencies = collections.Counter()
    for word, count in words.items():
        for character in word:
            frequencies[character] += count
    ranked = sorted(frequencies, key=lambda character: (-frequencies[character], character))
    alphabet = sorted(ranked[: min(MAX_ALPHABET, size // 4)])
    if not alphabet:
        raise UserError("the text has no words to train a vocabulary on; add more text")
    to_private = {ord(character): chr(_PRIVATE + index) for index, character in enumerate(alphabet)}
    from_private = {ord(private): chr(character) for character, private in to_private.items()}
    # A word with any other character is encoded as [UNK], so its pieces are useless.
    usable = set(alphabet)
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    trainer = library.trainers.BpeTrainer(vocab_size=size, min_frequency=MIN_FREQUENCY, show_progress=False)
    counts = (
        (word[0] + word[1:].translate(to_private), count) for word, count in words.items() if usable.issuperset(word)
    )
    tokenizer.train_from_iterator(_repeat(counts), trainer)
    vocabulary = tokenizer.get_vocab()
    return [
        ("##" if ord(piece[0]) in from_private else "") + piece.translate(from_private)
        for piece in sorted(vocabulary, key=vocabulary.__getitem__)
    ]


def _repeat(counts: Iterable[tuple[str, int]], chunk: int = 1_000) -> Iterator[str]:
    """Yields text that repeats each word as often as its count; the library accepts text, not counts."""
    for word, count in counts:
        for start in range(0, count, chunk):
            yield f"{word} " * min(chunk, count - start)


def _byte_level_bpe(sentences: Iterable[str], size: int) -> Tokenizer:
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = library.decoders.ByteLevel()
    trainer = library.trainers.BpeTrainer(
        vocab_size=size - 1,
        min_frequency=MIN_FREQUENCY,
        show_progress=False,
        special_tokens=list(_ROBERTA_SPECIAL),
        initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(sentences, trainer)
    tokenizer.add_special_tokens([library.AddedToken("<mask>", lstrip=True, special=True)])
    ids = [(token, tokenizer.token_to_id(token)) for token in ("</s>", "<s>")]
    tokenizer.post_processor = library.processors.RobertaProcessing(*ids, add_prefix_space=False)
    return Tokenizer(Backend(tokenizer), {"tokenizer_class": "RobertaTokenizer", "model_max_length": 512})


def _unigram(sentences: Iterable[str], size: int) -> Tokenizer:
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type="unigram",
            vocab_size=size,
            hard_vocab_limit=False,
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=-1,
            control_symbols=["[CLS]", "[SEP]", "[MASK]"],
            max_sentence_length=2**20,
            # The trainer sums per thread, so a fixed number of threads keeps the last bits of its sums the same.
            num_threads=16,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(
            f"sentencepiece cannot train a vocabulary of {size} pieces on this text ({error}); add text, or choose "
            "another size"
        ) from error
    tokenizer = unigram.unigram_tokenizer(unigram.parse(model.getvalue()))
    return Tokenizer(Backend(tokenizer), {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512})


_TRAINERS: dict[str, Callable[[Iterable[str], int], Tokenizer]] = {
    "wordpiece": lambda sentences, size: _wordpiece(sentences, size, lowercase=True),
    "wordpiece-cased": lambda sentences, size: _wordpiece(sentences, size, lowercase=False),
    "unigram": _unigram,
    "bpe": _byte_level_bpe,
}
