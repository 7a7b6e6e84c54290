"""The input pipeline: batch(seed, step) as a pure function of corpus, seed and step."""
