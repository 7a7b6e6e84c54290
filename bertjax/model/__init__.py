"""The encoder family: embeddings, segments of layers, and the heads of pre-training."""
