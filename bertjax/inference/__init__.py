"""Predictions of a trained model for texts."""
