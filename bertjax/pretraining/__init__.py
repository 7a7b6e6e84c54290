"""A pre-training run, from config and corpus to its last checkpoint."""
