"""The input pipeline: batch(seed, step), a pure function of corpus, seed and step."""
