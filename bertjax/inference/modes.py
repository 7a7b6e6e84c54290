"""The modes of `predict`: each kind of task has one, and every model supports embed and search."""

MODES = ("fill-mask", "classify", "answer", "tag", "choose", "embed", "search")
