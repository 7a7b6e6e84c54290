"""A cache of words in front of a tokenizer: the same ids, several times as fast.

Running text repeats its words, so most of what a tokenizer does it has done before. The cache maps a word to the
bytes of its ids; a batch of texts is then one dictionary look-up a word and one `bytes.join`, both in C.

It is right only where the ids of a text are the ids of its words, one after the other. That holds for

- BERT's normaliser and pre-tokenizer, with words cut at every space and around every ASCII punctuation mark: the
  normaliser works on single characters and on bases with their combining marks (decomposed, never composed), and
  leaves these characters alone, which are bases; the pre-tokenizer cuts at the former and sets the latter apart;
- byte-level BPE with its own pattern: there a space that stands between two characters that are no white space
  always begins a new piece and goes with what follows.

It does not hold for SentencePiece: its unigram search adds up float32 scores along the whole text, so that the
rounding, and with it the choice between two almost equal segmentations, depends on what stands before.
`word_rule` decides, and knows only the cases above.
"""

import array
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

# About 30 MB a process. A full cache is emptied: the common words are back after a few sentences.
MAX_WORDS = 2**16
MAX_WORD_CHARACTERS = 64

# Ends of texts, ASCII punctuation marks, and runs of anything else but spaces.
_BERT_WORDS = re.compile(r"\n|[!-/:-@\[-`{-~]|[^ \n!-/:-@\[-`{-~]+")

BERT = "bert"
BYTE_LEVEL = "byte-level"


def word_rule(content: dict[str, Any]) -> str | None:
    """How a tokenizer's texts fall into words that can be encoded apart, or None where they do not.

    Args:
      content: its tokenizer.json.

    Returns:
      "bert", "byte-level" (see above) or None.
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
    return None


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
        self._words, end = (_byte_level_words, None) if rule == BYTE_LEVEL else (_bert_words, "\n")
        self._dtype, self._end = np.dtype(dtype), np.iinfo(dtype).max
        self._max_words = max_words
        self._always = {end: self._bytes([self._end])}
        self._ids: dict[str | None, bytes] = dict(self._always)

    def encode(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The number of ids of each text, int64 [texts], and all ids, `dtype` [sum of lengths]."""
        words = self._words(texts)
        missing = list(set(words).difference(self._ids))
        for word, ids in zip(missing, self._encode_words(missing), strict=True):
            self._ids[word] = self._bytes(ids)
        tokens = np.frombuffer(b"".join(map(self._ids.__getitem__, words)), self._dtype)
        self._forget(missing)
        ends = np.flatnonzero(tokens == self._end)
        return np.diff(ends, prepend=-1) - 1, np.delete(tokens, ends)

    def _bytes(self, ids: Sequence[int]) -> bytes:
        return array.array(self._dtype.char, ids).tobytes()

    def _forget(self, added: Iterable[str]) -> None:
        """Keeps memory bounded, in the number of words and in their length."""
        if len(self._ids) > self._max_words:
            self._ids = dict(self._always)
            return
        for word in added:
            if len(word) > MAX_WORD_CHARACTERS:
                del self._ids[word]


def _bert_words(texts: Sequence[str]) -> list[str]:
    """The words of all texts, a line end after each; in a text a line end is white space like any other."""
    joined = "\n".join([*texts, ""])
    if joined.count("\n") != len(texts):
        joined = "\n".join([*(text.replace("\n", " ") for text in texts), ""])
    return _BERT_WORDS.findall(joined)


def _byte_level_words(texts: Sequence[str]) -> list[str | None]:
    """The words of all texts, None after each.

    Cuts before each space that stands between two characters that are no white space; the space stays.
    """
    words = []
    for text in texts:
        words += _cut_at_spaces(text)
        words.append(None)
    return words


def _cut_at_spaces(text: str) -> list[str]:
    if not text:
        return []
    first, *others = text.split(" ")
    words = [first]
    for word in others:
        # An empty word is a double space, or a space at an end; other white space joins the space before or after it.
        previous = words[-1]
        if not word or word[0].isspace() or not previous or previous[-1].isspace():
            words[-1] = previous + " " + word
        else:
            words.append(" " + word)
    return words
