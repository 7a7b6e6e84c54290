"""Trained parameters on disk: the checkpoints of a run, and models made from them."""
