"""Prediction: from texts to what a model says of them."""
