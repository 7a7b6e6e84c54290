"""Prediction: from texts to what a model says of them."""

MODES = ("fill-mask", "classify", "answer", "tag", "choose", "embed")
