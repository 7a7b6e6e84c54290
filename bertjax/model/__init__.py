"""The encoder family: embeddings, stacks of layers, and the heads of pre-training."""
