"""Training of a vocabulary from sentences: WordPiece, SentencePiece unigram or byte-level BPE.

Each gives the same vocabulary for the same sentences, on any number of cores.
"""

import collections
import io
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import tokenizers as library

from bertjax.errors import UserError
from bertjax.text import unigram
from bertjax.text.backend import BERT_SPECIAL, Backend, wordpiece
from bertjax.text.tokenizer import Tokenizer, load_tokenizer

# In BERT's vocabularies about 1,000 characters begin words; ideographs beyond them become [UNK].
MAX_ALPHABET = 1_000
MIN_FREQUENCY = 2
# The least that holds the special tokens and a useful alphabet (byte-level BPE: 256 bytes).
MIN_SIZE = 300
MAX_SIZE = 1_000_000

_ROBERTA_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
# Characters of this private-use plane stand for characters inside a word while WordPiece is trained.
_PRIVATE = 0xF0000


def is_made(spec: str) -> bool:
    """Whether a --tokenizer is made from text ("new:…", "extend:…"), and not a path."""
    return spec.startswith(("new:", "extend:"))


def identity(spec: str, lowercase: bool | None = None) -> str:
    """What a --tokenizer stands for, wherever its files lie; `lowercase` as in `load_tokenizer`.

    Raises:
      UserError: it cannot be read, or a new one is told `lowercase`.
    """
    if spec.startswith("extend:"):
        words, base = parse_extension(spec)
        return f"extend:{words}:{load_tokenizer(base, lowercase).hash()}"
    if spec.startswith("new:"):
        parse(spec)
        if lowercase is not None:
            raise UserError(f"--tokenizer={spec} says whether text is lower-cased; leave --lowercase out")
        return spec
    return load_tokenizer(spec, lowercase).hash()


def parse_extension(spec: str) -> tuple[int, str]:
    """Reads "extend:WORDS:PATH".

    Raises:
      UserError: another form.
    """
    match = re.fullmatch(r"extend:(\d+):(.+)", spec)
    if not match or not 1 <= int(match[1]) <= MAX_SIZE:
        raise UserError(f"--tokenizer={spec}: unknown; give extend:WORDS:PATH, e.g. extend:1000:bert-base-uncased")
    return int(match[1]), match[2]


def parse(spec: str) -> tuple[str, int]:
    """Reads "new:KIND:SIZE" into kind and size.

    Raises:
      UserError: another form, an unknown kind, a size out of range.
    """
    kinds = "|".join(_TRAINERS)
    match = re.fullmatch(r"new:([a-z-]+):(\d+)", spec)
    if not match or match[1] not in _TRAINERS:
        raise UserError(f"--tokenizer={spec}: unknown; give a folder or new:KIND:SIZE, KIND one of {kinds}")
    size = int(match[2])
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise UserError(f"--tokenizer={spec}: a vocabulary has {MIN_SIZE} to {MAX_SIZE:,} pieces; give such a size")
    return match[1], size


def train(spec: str, sentences: Iterable[str], directory: str | Path, lowercase: bool | None = None) -> Tokenizer:
    """Trains a tokenizer, saves it in a directory and gives it back as `load` does.

    Args:
      spec: "new:KIND:SIZE" with kind "wordpiece" (BERT, lower-cased, accents stripped), "wordpiece-cased", "unigram"
        (SentencePiece, as ALBERT) or "bpe" (byte-level, as RoBERTa). A WordPiece vocabulary has exactly SIZE pieces
        (filled up with [unused…] where the text is too small for them); the other two at most so many. Or
        "extend:WORDS:PATH": the WordPiece tokenizer of PATH and at most so many words of the text behind its pieces.
      sentences: the text, without line ends. All distinct words are held in memory: bound the sample.
      directory: where to; made where it is missing.
      lowercase: of the tokenizer of PATH, as in `load_tokenizer`.

    Raises:
      UserError: a spec that cannot be read, or text too small for any vocabulary.
    """
    if spec.startswith("extend:"):
        words, path = parse_extension(spec)
        made = _extended(load_tokenizer(path, lowercase), sentences, words)
    else:
        kind, size = parse(spec)
        made = _TRAINERS[kind](sentences, size)
    made.save(directory)
    return load_tokenizer(directory)


def _extended(base: Tokenizer, sentences: Iterable[str], size: int) -> Tokenizer:
    """`base` with the words that save the most pieces of this text."""
    counts = collections.Counter(word for sentence in sentences for word in base.words(sentence))
    words = sorted(word for word, count in counts.items() if count >= MIN_FREQUENCY)
    pieces = base.encode_batch(words)
    saved = {
        word: counts[word] * (len(ids) - 1 or 2)  # a word that is no more than [UNK] is worth two
        for word, ids in zip(words, pieces, strict=True)
        if len(ids) > 1 or ids == [base.unk_id]
    }
    return base.extended(sorted(saved, key=lambda word: (-saved[word], word))[:size])


def _wordpiece(sentences: Iterable[str], size: int, lowercase: bool) -> Tokenizer:
    special = BERT_SPECIAL
    pieces = [*special, *_wordpieces(_count_words(sentences, lowercase), size - len(special))]
    pieces += [f"[unused{index}]" for index in range(size - len(pieces))]
    tokenizer = wordpiece({piece: index for index, piece in enumerate(pieces)}, lowercase)
    return Tokenizer(
        Backend(tokenizer),
        {"tokenizer_class": "BertTokenizer", "do_lower_case": lowercase, "model_max_length": 512},
    )


def _count_words(sentences: Iterable[str], lowercase: bool) -> collections.Counter[str]:
    """Counts what BERT's normaliser and pre-tokenizer call words."""
    raw = collections.Counter(word for sentence in sentences for word in sentence.split())
    normalizer = library.normalizers.BertNormalizer(lowercase=lowercase)
    pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    words = collections.Counter()
    for text, count in raw.items():
        for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text)):
            words[word] += count
    return words


def _wordpieces(words: collections.Counter[str], size: int) -> list[str]:
    """Pieces by byte-pair merges, as the library's own WordPiece trainer makes them, but the same ones each time.

    That trainer numbers the characters inside words ("##a") in the order of a randomly seeded hash map, and the
    numbers decide between merges of equal counts. Its plain BPE trainer sorts its alphabet. So each character
    inside a word is replaced by a private one before training and turned back into "##" after it.
    """
    frequencies = collections.Counter()
    for word, count in words.items():
        for character in word:
            frequencies[character] += count
    ranked = sorted(frequencies, key=lambda character: (-frequencies[character], character))
    alphabet = sorted(ranked[: min(MAX_ALPHABET, size // 4)])
    if not alphabet:
        raise UserError("the text has no words to make a vocabulary of; give more text")
    inside = {ord(character): chr(_PRIVATE + index) for index, character in enumerate(alphabet)}
    outside = {ord(private): chr(character) for character, private in inside.items()}
    # A word with a rarer character becomes [UNK] as a whole, so its pieces are of no use.
    known = set(alphabet)
    tokenizer = library.Tokenizer(library.models.BPE())
    tokenizer.pre_tokenizer = library.pre_tokenizers.WhitespaceSplit()
    trainer = library.trainers.BpeTrainer(vocab_size=size, min_frequency=MIN_FREQUENCY, show_progress=False)
    marked = ((word[0] + word[1:].translate(inside), count) for word, count in words.items() if known.issuperset(word))
    tokenizer.train_from_iterator(_repeat(marked), trainer)
    vocabulary = tokenizer.get_vocab()
    return [
        ("##" if ord(piece[0]) in outside else "") + piece.translate(outside)
        for piece in sorted(vocabulary, key=vocabulary.__getitem__)
    ]


def _repeat(counts: Iterable[tuple[str, int]], chunk: int = 1_000) -> Iterator[str]:
    """Text in which each word stands as often as its count says; the library takes text, not counts."""
    for word, count in counts:
        for done in range(0, count, chunk):
            yield f"{word} " * min(chunk, count - done)


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
            # The trainer shares out its sums by thread; their number, not the machine's, decides the last bits.
            num_threads=16,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise UserError(f"sentencepiece cannot make a vocabulary of {size} from this text ({error})") from error
    tokenizer = unigram.tokenizer(unigram.parse(model.getvalue()))
    return Tokenizer(Backend(tokenizer), {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512})


_TRAINERS: dict[str, Callable[[Iterable[str], int], Tokenizer]] = {
    "wordpiece": lambda sentences, size: _wordpiece(sentences, size, lowercase=True),
    "wordpiece-cased": lambda sentences, size: _wordpiece(sentences, size, lowercase=False),
    "unigram": _unigram,
    "bpe": _byte_level_bpe,
}
