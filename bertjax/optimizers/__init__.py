"""Optax chains and learning-rate schedules; which parameters decay is in `bertjax/model/partitioning.py`."""
