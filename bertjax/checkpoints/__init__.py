"""Trained parameters on disk: checkpoints of a run, and models made from them."""
