"""The corpus on disk and the input pipeline: batch(seed, step)."""
