"""Prediction: from texts to what a model says of them."""

MODES = ("fill-mask", "classify", "answer", "tag", "choose", "embed", "search")

# What a fine-tuned model can do, by the kind of its task. Every model can embed and search.
OF_KIND = {
    "classification": "classify",
    "multi_label": "classify",
    "regression": "classify",
    "choice": "choose",
    "tagging": "tag",
    "span": "answer",
    "similarity": "embed",
    "comparison": "embed",
    "retrieval": "embed",
}
