"""The modes of `predict`; each kind of task names the one that serves it, and every model can embed and search."""

MODES = ("fill-mask", "classify", "answer", "tag", "choose", "embed", "search")
