"""The kinds of tokenizers that are trained."""

KINDS = ("wordpiece", "wordpiece-cased", "unigram", "bpe")
