"""Caches the ids of words in front of a tokenizer: identical ids, several times as fast.

Most words of running text are repetitions. NumPy splits a batch of texts, as bytes, into words, Arrow finds the
distinct ones, and only these are looked up in the cache, which maps a word to the bytes of its ids.

The cache is exact only if the ids of a text are the concatenated ids of its words. This holds for

- BERT's normalizer and pre-tokenizer, with splits before every space and around every ASCII punctuation mark. The
  normalizer handles single characters, and bases with their combining marks (decomposing, never composing); spaces and
  punctuation marks are bases and unchanged. The pre-tokenizer splits at spaces and isolates punctuation marks.
- Byte-level BPE with its own pattern, with splits before every space that has a character other than white space on
  at least one side. Its pieces never continue from other characters into white space, and the last space of a run
  belongs to the characters after it.
- Unigram models that split at white space first (`bertjax.text.unigram`), with splits before the first space of a run.
  Of the allowed normalizers only SentencePiece's table sees more than one character, a grapheme cluster. A space is the
  first character of its cluster except after one of `_PREPENDED`, where no split is made.

`word_rule` recognizes exactly these cases.
"""

import array
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Required, TypedDict

import numpy as np

# About 30 MB per process. A full cache is emptied; the common words return within a few sentences.
MAX_WORDS = 2**16
MAX_WORD_BYTES = 64

_END = b"\xff"  # marks the end of a text; never occurs in UTF-8
_SPACE = ord(" ")
_PUNCTUATION = np.isin(np.arange(256), list(string.punctuation.encode()))
# White space by `str.isspace`. First and last bytes of these characters also occur in other characters.
_WHITE = [chr(code) for code in (*range(9, 14), *range(28, 33), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B))]
_WHITE += ["\u2028", "\u2029", "\u202f", "\u205f", "\u3000"]
_MAY_BEGIN_WHITE = np.isin(np.arange(256), [*(character.encode()[0] for character in _WHITE), _END[0]])
_MAY_END_WHITE = np.isin(np.arange(256), [character.encode()[-1] for character in _WHITE])

BERT = "bert"
BYTE_LEVEL = "byte-level"
UNIGRAM = "unigram"

_LOCAL_NORMALIZERS = ("Replace", "NFKD", "StripAccents", "Lowercase", "Precompiled")
# Characters that form a cluster with the following space (Unicode's Grapheme_Cluster_Break=Prepend), as bytes.
_PREPENDED = tuple(
    chr(code).encode()
    for first, last in (
        *((0x600, 0x605), (0x6DD, 0x6DD), (0x70F, 0x70F), (0x890, 0x891), (0x8E2, 0x8E2), (0xD4E, 0xD4E)),
        *((0x110BD, 0x110BD), (0x110CD, 0x110CD), (0x111C2, 0x111C3), (0x113D1, 0x113D1), (0x1193F, 0x1193F)),
        *((0x11941, 0x11941), (0x11A3A, 0x11A3A), (0x11A84, 0x11A89), (0x11D46, 0x11D46), (0x11F02, 0x11F02)),
    )
    for code in range(first, last + 1)
)
_MAY_END_PREPENDED = np.isin(np.arange(256), [character[-1] for character in _PREPENDED])


class Component(TypedDict, total=False):
    """A model, normalizer or pre-tokenizer in a tokenizer.json."""

    type: Required[str]
    dropout: float | None
    normalizers: Sequence["Component"]
    pretokenizers: Sequence["Component"]
    pattern: Mapping[str, str]
    use_regex: bool
    add_prefix_space: bool
    prepend_scheme: str


class AddedToken(TypedDict):
    """An added token in a tokenizer.json."""

    special: bool


class TokenizerContent(TypedDict):
    """The content of a tokenizer.json."""

    model: Component
    normalizer: Component | None
    pre_tokenizer: Component | None
    added_tokens: Sequence[AddedToken]


def word_rule(content: TokenizerContent) -> str | None:
    """Returns the rule by which texts can be split into separately encoded words.

    Args:
      content: of the tokenizer.json.

    Returns:
      "bert", "byte-level", "unigram" (see above), or None if no rule applies.
    """
    model = content["model"]
    normalizer = (content["normalizer"] or {}).get("type")
    pre_tokenizer = content["pre_tokenizer"] or {}
    # Added tokens that are not special are matched in the whole text, including spaces.
    if any(not token["special"] for token in content["added_tokens"]) or model.get("dropout"):
        return None
    if model["type"] == "WordPiece" and (normalizer, pre_tokenizer.get("type")) == (
        "BertNormalizer",
        "BertPreTokenizer",
    ):
        return BERT
    if (
        model["type"] == "BPE"
        and normalizer in (None, "NFC")
        and pre_tokenizer.get("type") == "ByteLevel"
        and pre_tokenizer.get("use_regex")
        and not pre_tokenizer.get("add_prefix_space")
    ):
        return BYTE_LEVEL
    if (
        model["type"] == "Unigram"
        and _splits_at_white_space(content["pre_tokenizer"])
        and _is_local(content["normalizer"])
    ):
        return UNIGRAM
    return None


def _splits_at_white_space(pre_tokenizer: Component | None) -> bool:
    """Whether a word, marked by "▁", begins after each white space; words may be split further."""
    parts = (pre_tokenizer or {}).get("pretokenizers", [])
    first, rest = [part["type"] for part in parts[:2]], [part["type"] for part in parts[2:]]
    if first != ["WhitespaceSplit", "Metaspace"] or rest not in ([], ["Split"]):
        return False
    return parts[1].get("prepend_scheme") == "always"


def _is_local(normalizer: Component | None) -> bool:
    """Whether a normalizer changes each word of a text independently."""
    parts = (normalizer or {}).get("normalizers", [normalizer] if normalizer else [])
    # A regular expression may match across words, and an empty string matches everywhere.
    texts = [part.get("pattern", {}).get("String", "") for part in parts if part["type"] == "Replace"]
    return all(part["type"] in _LOCAL_NORMALIZERS for part in parts) and all(text and " " not in text for text in texts)


class WordCache:
    """Encodes texts word by word, through a dictionary of bounded size.

    Args:
      encode_words: returns the ids of each word, without special tokens.
      rule: the `word_rule` of the tokenizer.
      dtype: uint16 or uint32; its highest value is not an id, but marks the end of a text.
      max_words: number of entries above which the cache is emptied.
    """

    def __init__(
        self,
        encode_words: Callable[[Sequence[str]], Sequence[Sequence[int]]],
        rule: str,
        dtype: np.dtype,
        max_words: int = MAX_WORDS,
    ):
        self._encode_words = encode_words
        self._word_starts = _WORD_STARTS[rule]
        self._dtype, self._end = np.dtype(dtype), np.iinfo(dtype).max
        self._max_words = max_words
        self._initial = {_END: self._bytes([self._end])}
        self._ids: dict[bytes, bytes] = dict(self._initial)

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the number of ids of each text, int64 [texts], and all ids, `dtype` [sum of lengths]."""
        if not len(texts):
            return np.zeros(0, np.int64), np.zeros(0, self._dtype)
        text = np.frombuffer(_END.join([*map(str.encode, texts), b""]), np.uint8)
        words, indices = _distinct(text, np.flatnonzero(self._word_starts(text)))
        word_ids = self._look_up(words)
        sizes = np.fromiter(map(len, word_ids), np.int64, len(word_ids)) // self._dtype.itemsize
        tokens = _gather_ragged(np.frombuffer(b"".join(word_ids), self._dtype), sizes, indices)
        ends = np.flatnonzero(tokens == self._end)
        return np.diff(ends, prepend=-1) - 1, np.delete(tokens, ends)

    def _look_up(self, words: Sequence[bytes]) -> list[bytes]:
        """Returns the ids of each word, as bytes."""
        missing = [word for word in words if word not in self._ids]
        for word, ids in zip(missing, self._encode_words([word.decode() for word in missing]), strict=True):
            self._ids[word] = self._bytes(ids)
        word_ids = list(map(self._ids.__getitem__, words))
        # Bounds the number of cached words and their length.
        if len(self._ids) > self._max_words:
            self._ids = dict(self._initial)
        else:
            for word in missing:
                if len(word) > MAX_WORD_BYTES:
                    del self._ids[word]
        return word_ids

    def _bytes(self, ids: Sequence[int]) -> bytes:
        return array.array(self._dtype.char, ids).tobytes()


def _bert_word_starts(text: np.ndarray) -> np.ndarray:
    """Whether a word starts at each byte, bool [bytes]: before spaces, and before and after punctuation and ends."""
    space, end = text == _SPACE, text == _END[0]
    isolated = _PUNCTUATION[text] | end
    starts = end.copy()
    starts[0] = True
    starts[1:] |= ~space[:-1] & (space[1:] | isolated[1:] | isolated[:-1])
    return starts


def _byte_level_word_starts(text: np.ndarray) -> np.ndarray:
    """As above: before and after ends, and at each space with a neighbor that is not white space."""
    end = text == _END[0]
    starts = end.copy()
    starts[0] = True
    starts[1:] |= end[:-1]
    spaces = np.flatnonzero(text[1:] == _SPACE) + 1
    starts[spaces] |= ~(_MAY_END_WHITE[text[spaces - 1]] & _MAY_BEGIN_WHITE[text[spaces + 1]])
    return starts


def _unigram_word_starts(text: np.ndarray) -> np.ndarray:
    """As above: before and after ends, and at the first space of a run."""
    space, end = text == _SPACE, text == _END[0]
    starts = end.copy()
    starts[0] = True
    starts[1:] |= end[:-1] | (space[1:] & ~space[:-1])
    candidates = np.flatnonzero(starts[1:] & space[1:] & _MAY_END_PREPENDED[text[:-1]]) + 1
    starts[[index for index in candidates if text[max(0, index - 4) : index].tobytes().endswith(_PREPENDED)]] = False
    return starts


_WORD_STARTS = {BERT: _bert_word_starts, BYTE_LEVEL: _byte_level_word_starts, UNIGRAM: _unigram_word_starts}


def _distinct(text: np.ndarray, starts: np.ndarray) -> tuple[list[bytes], np.ndarray]:
    """Returns the distinct words of a text whose words begin at `starts`, and the index of each word among them."""
    import pyarrow as pa

    ends = np.append(starts, len(text)).astype(np.int32)
    words = pa.BinaryArray.from_buffers(pa.binary(), len(starts), [None, pa.py_buffer(ends), pa.py_buffer(text)])
    encoded = words.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()


def _gather_ragged(values: np.ndarray, sizes: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Concatenates the parts with these indices; `values` holds all parts, which have these sizes."""
    lengths = sizes[indices]
    starts = np.cumsum(sizes) - sizes
    shift = starts[indices] - (np.cumsum(lengths) - lengths)
    return values[np.repeat(shift, lengths) + np.arange(lengths.sum())]
