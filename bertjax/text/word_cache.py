"""A cache of words in front of a tokenizer: the same ids, several times as fast.

Running text repeats its words, so most of what a tokenizer does it has done before. NumPy cuts a batch of texts, as
bytes, into words, Arrow finds the different ones, and only these are looked up in the cache, which maps a word to the
bytes of its ids.

It is right only where the ids of a text are the ids of its words, one after the other. That holds for

- BERT's normaliser and pre-tokenizer, with words cut before every space and around every ASCII punctuation mark: the
  normaliser works on single characters and on bases with their combining marks (decomposed, never composed), and
  leaves these characters alone, which are bases; the pre-tokenizer cuts at the former and sets the latter apart;
- byte-level BPE with its own pattern, with words cut before every space beside which, on one side or both, there is no
  white space: its pieces never go on from something else to white space, and the last space of several goes with what
  follows them;
- unigram models that cut at white space before all else (`bertjax.text.unigram`), with words cut before the first of
  several spaces: of the normalisers that are allowed here only SentencePiece's table sees more than one character, a
  grapheme cluster, and a space is the first character of its cluster except after one of `_PREPENDED`, where no cut
  is made.

`word_rule` decides, and knows only the cases above.
"""

import array
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

# About 30 MB a process. A full cache is emptied: the common words are back after a few sentences.
MAX_WORDS = 2**16
MAX_WORD_BYTES = 64

_END = b"\xff"  # of a text; in UTF-8 there is no such byte
_SPACE = ord(" ")
_PUNCTUATION = np.isin(np.arange(256), list(string.punctuation.encode()))
# What `str.isspace` calls white space. A byte that one of these begins or ends with may belong to another character.
_WHITE = [chr(code) for code in (*range(9, 14), *range(28, 33), 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B))]
_WHITE += ["\u2028", "\u2029", "\u202f", "\u205f", "\u3000"]
_MAY_BEGIN_WHITE = np.isin(np.arange(256), [*(character.encode()[0] for character in _WHITE), _END[0]])
_MAY_END_WHITE = np.isin(np.arange(256), [character.encode()[-1] for character in _WHITE])

BERT = "bert"
BYTE_LEVEL = "byte-level"
UNIGRAM = "unigram"

_LOCAL_NORMALIZERS = ("Replace", "NFKD", "StripAccents", "Lowercase", "Precompiled")
# Characters that form a cluster with the space behind them (Unicode's Grapheme_Cluster_Break=Prepend), as bytes.
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


def word_rule(content: dict[str, Any]) -> str | None:
    """How a tokenizer's texts fall into words that can be encoded apart, or None where they do not.

    Args:
      content: its tokenizer.json.

    Returns:
      "bert", "byte-level", "unigram" (see above) or None.
    """
    model = content["model"]
    normalizer = (content["normalizer"] or {}).get("type")
    pre_tokenizer = content["pre_tokenizer"] or {}
    # An added token that is no special one is looked for in the whole text, spaces included.
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
    if model["type"] == "Unigram" and _cuts_at_white_space(pre_tokenizer) and _is_local(content["normalizer"]):
        return UNIGRAM
    return None


def _cuts_at_white_space(pre_tokenizer: dict[str, Any]) -> bool:
    """Whether each word begins after white space, with a mark of its own, whatever is cut within it."""
    parts = pre_tokenizer.get("pretokenizers", [])
    first, rest = [part["type"] for part in parts[:2]], [part["type"] for part in parts[2:]]
    if first != ["WhitespaceSplit", "Metaspace"] or rest not in ([], ["Split"]):
        return False
    return parts[1]["prepend_scheme"] == "always"


def _is_local(normalizer: dict[str, Any] | None) -> bool:
    """Whether it changes a text's words each by itself."""
    parts = (normalizer or {}).get("normalizers", [normalizer] if normalizer else [])
    # A regular expression may look at anything; an empty text is found everywhere.
    texts = [part["pattern"].get("String", "") for part in parts if part["type"] == "Replace"]
    return all(part["type"] in _LOCAL_NORMALIZERS for part in parts) and all(text and " " not in text for text in texts)


class WordCache:
    """Encodes texts word by word, through a dictionary of bounded size.

    Args:
      encode_words: the library: words to lists of ids, without special tokens.
      rule: what `word_rule` gave for it.
      dtype: an integer type, uint16 or uint32, whose highest number is no id: it stands for the end of a text.
      max_words: entries after which the cache is emptied.
    """

    def __init__(
        self,
        encode_words: Callable[[Sequence[str]], Sequence[Sequence[int]]],
        rule: str,
        dtype: np.dtype,
        max_words: int = MAX_WORDS,
    ):
        self._encode_words = encode_words
        self._begins = _BEGINS[rule]
        self._dtype, self._end = np.dtype(dtype), np.iinfo(dtype).max
        self._max_words = max_words
        self._always = {_END: self._bytes([self._end])}
        self._ids: dict[bytes, bytes] = dict(self._always)

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The number of ids of each text, int64 [texts], and all ids, `dtype` [sum of lengths]."""
        if not len(texts):
            return np.zeros(0, np.int64), np.zeros(0, self._dtype)
        text = np.frombuffer(_END.join([*map(str.encode, texts), b""]), np.uint8)
        words, numbers = _different(text, np.flatnonzero(self._begins(text)))
        found = self._look_up(words)
        sizes = np.fromiter(map(len, found), np.int64, len(found)) // self._dtype.itemsize
        tokens = _joined(np.frombuffer(b"".join(found), self._dtype), sizes, numbers)
        ends = np.flatnonzero(tokens == self._end)
        return np.diff(ends, prepend=-1) - 1, np.delete(tokens, ends)

    def _look_up(self, words: Sequence[bytes]) -> list[bytes]:
        """The ids of each word."""
        missing = [word for word in words if word not in self._ids]
        for word, ids in zip(missing, self._encode_words([word.decode() for word in missing]), strict=True):
            self._ids[word] = self._bytes(ids)
        found = list(map(self._ids.__getitem__, words))
        # Keeps memory bounded, in the number of words and in their length.
        if len(self._ids) > self._max_words:
            self._ids = dict(self._always)
        else:
            for word in missing:
                if len(word) > MAX_WORD_BYTES:
                    del self._ids[word]
        return found

    def _bytes(self, ids: Sequence[int]) -> bytes:
        return array.array(self._dtype.char, ids).tobytes()


def _begins_bert_word(text: np.ndarray) -> np.ndarray:
    """Where words begin, bool [bytes]: with the spaces before them, at a punctuation mark or an end, and behind it."""
    space, end = text == _SPACE, text == _END[0]
    alone = _PUNCTUATION[text] | end
    begins = end.copy()
    begins[0] = True
    begins[1:] |= ~space[:-1] & (space[1:] | alone[1:] | alone[:-1])
    return begins


def _begins_byte_level_word(text: np.ndarray) -> np.ndarray:
    """The same: around ends, and at each space that has something else than white space beside it."""
    end = text == _END[0]
    begins = end.copy()
    begins[0] = True
    begins[1:] |= end[:-1]
    spaces = np.flatnonzero(text[1:] == _SPACE) + 1
    begins[spaces] |= ~(_MAY_END_WHITE[text[spaces - 1]] & _MAY_BEGIN_WHITE[text[spaces + 1]])
    return begins


def _begins_unigram_word(text: np.ndarray) -> np.ndarray:
    """The same: around ends, and at the first of several spaces."""
    space, end = text == _SPACE, text == _END[0]
    begins = end.copy()
    begins[0] = True
    begins[1:] |= end[:-1] | (space[1:] & ~space[:-1])
    doubtful = np.flatnonzero(begins[1:] & space[1:] & _MAY_END_PREPENDED[text[:-1]]) + 1
    begins[[number for number in doubtful if text[max(0, number - 4) : number].tobytes().endswith(_PREPENDED)]] = False
    return begins


_BEGINS = {BERT: _begins_bert_word, BYTE_LEVEL: _begins_byte_level_word, UNIGRAM: _begins_unigram_word}


def _different(text: np.ndarray, starts: np.ndarray) -> tuple[list[bytes], np.ndarray]:
    """The different words of those that begin at `starts`, and for each of these, in order, which one it is."""
    import pyarrow as pa

    ends = np.append(starts, len(text)).astype(np.int32)
    words = pa.BinaryArray.from_buffers(pa.binary(), len(starts), [None, pa.py_buffer(ends), pa.py_buffer(text)])
    encoded = words.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()


def _joined(parts: np.ndarray, sizes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The parts of these numbers, one after the other; `parts` holds them all, of `sizes`."""
    lengths = sizes[numbers]
    begins = np.cumsum(sizes) - sizes
    shift = begins[numbers] - (np.cumsum(lengths) - lengths)
    return parts[np.repeat(shift, lengths) + np.arange(lengths.sum())]
