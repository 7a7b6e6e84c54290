"""Predictions, embeddings and search with a trained model."""
