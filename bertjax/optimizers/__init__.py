"""Optax chains, learning-rate schedules and the weight-decay decision of every parameter."""
