"""Shared by pre-training and fine-tuning: the train step, the training loop, metrics and progress."""
