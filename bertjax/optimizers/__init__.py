"""Optax optimizers and learning-rate schedules; `bertjax/model/partitioning.py` sets which parameters decay."""
