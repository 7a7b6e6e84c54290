"""Pre-training runs, from config and corpus to the last checkpoint."""
