"""A cache of words in front of a tokenizer: the same ids, several times as fast.

Running text repeats its words, so most of what a tokenizer does it has done before. The cache maps a word to the
bytes of its ids; a sentence is then one dictionary look-up a word and one `bytes.join`, both in C.

It is right only where the ids of a text are the ids of its space-separated words, one after the other. That holds for

- BERT's normaliser and pre-tokenizer: every step of the normaliser looks at one character or at a base with the
  combining marks after it, U+0020 combines with nothing before it, and the pre-tokenizer cuts at it;
- byte-level BPE with its own pattern: there a space that stands between two characters that are no white space
  always begins a new piece and goes with what follows.

It does not hold for SentencePiece: its unigram search adds up float32 scores along the whole text, so that the
rounding, and with it the choice between two almost equal segmentations, depends on what stands before.
`word_rule` decides, and knows only the cases above.
"""

import array
import itertools
import json
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tokenizers

# About 30 MB a process. A full cache is emptied: the common words are back after a few sentences.
MAX_WORDS = 2**17
MAX_WORD_CHARACTERS = 64

_BERT = "bert"
_BYTE_LEVEL = "byte-level"


def word_rule(tokenizer: tokenizers.Tokenizer) -> str | None:
    """How this tokenizer's texts fall into words that can be encoded apart, or None where they do not.

    Returns:
      "bert": at every space. "byte-level": before a space between characters that are no white space. None.
    """
    content = json.loads(tokenizer.to_str())
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
        return _BERT
    if (
        model["type"] == "BPE"
        and normalizer in (None, "NFC")
        and pre_tokenizer.get("type") == "ByteLevel"
        and pre_tokenizer.get("use_regex")
        and not pre_tokenizer.get("add_prefix_space")
    ):
        return _BYTE_LEVEL
    return None


class WordCache:
    """Encodes texts word by word, through a dictionary of bounded size.

    Args:
      encode_batch: the library: texts to lists of ids, without special tokens.
      rule: what `word_rule` gave for it.
      dtype: integer type of the ids, uint16 or uint32.
      max_words: entries after which the cache is emptied.
    """

    def __init__(
        self,
        encode_batch: Callable[[Sequence[str]], Sequence[Sequence[int]]],
        rule: str,
        dtype: np.dtype,
        max_words: int = MAX_WORDS,
    ):
        self._encode_batch = encode_batch
        self._byte_level = rule == _BYTE_LEVEL
        self._typecode = {2: "H", 4: "I"}[np.dtype(dtype).itemsize]
        self._max_words = max_words
        self._ids: dict[str, bytes] = {}

    def encode(self, texts: Sequence[str]) -> list[bytes]:
        """The ids of each text, as the bytes of an array of the cache's integer type."""
        if self._byte_level:
            words = [_byte_level_words(text) for text in texts]
        else:
            words = [text.split(" ") for text in texts]
        ids = self._ids
        missing = list(set(itertools.chain.from_iterable(words)).difference(ids))
        for word, encoded in zip(missing, self._encode_batch(missing), strict=True):
            ids[word] = array.array(self._typecode, encoded).tobytes()
        look_up = ids.__getitem__
        result = [b"".join(map(look_up, text)) for text in words]
        self._shrink(missing)
        return result

    def _shrink(self, added: Iterable[str]) -> None:
        if len(self._ids) > self._max_words:
            self._ids.clear()
            return
        for word in added:
            if len(word) > MAX_WORD_CHARACTERS:
                del self._ids[word]


def _byte_level_words(text: str) -> list[str]:
    """Cuts before each space that stands between two characters that are no white space; the space stays."""
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
