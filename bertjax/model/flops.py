"""Model FLOPs: what the mathematics needs, whatever a machine does for it."""

from bertjax.config.model import ModelConfig


def training_flops(config: ModelConfig, length: int, predictions: int, pairs: bool = True) -> float:
    """FLOPs of one training step for one sequence of `length` tokens with `predictions` masked positions.

    Counted are matrix products, two FLOPs a multiply-add: all projections, full (not causal) attention, in local
    layers within the window, the masked-LM head on the predictions only, and pooler and next-sentence head; the last
    layer only on the rows that these heads read. A training step is three forward passes, as the gradient of a product
    is two products. Embedding look-ups, norms, activations, softmax, the optimizer and any recomputation are not
    counted. Of a packed row, whose sequences do not see each other, this is more than is needed. BERT-Large at 128 with
    20 predictions: 1.83 GFLOP a token.
    """
    hidden, embedding = config.hidden_size, config.embedding_width
    read = predictions + (1 if pairs else 0)
    keys_and_values = 2 * length * hidden * hidden

    def layer(rows: int, local: bool) -> float:
        query_and_output = 2 * hidden * hidden
        seen = _pairs(length, config.attention_window) / length if local else length
        attention = 2 * seen * hidden  # query·key and probabilities·value
        inner = (3 if config.gated_mlp else 2) * hidden * config.intermediate_size
        return keys_and_values + rows * (query_and_output + attention + inner)

    last = config.num_hidden_layers - 1
    layers = sum(layer(read if i == last else length, config.is_local(i)) for i in range(last + 1))
    projection = length * embedding * hidden if config.embedding_size else 0
    masked_lm = predictions * (hidden * embedding + embedding * config.vocab_size)
    pooled = hidden * hidden + 2 * hidden if pairs else 0
    forward = 2 * (projection + layers + masked_lm + pooled)
    return 3.0 * forward


def _pairs(length: int, window: int) -> int:
    """How many pairs of `length` tokens stand at most `window` apart."""
    window = min(window, length - 1)
    return length * (2 * window + 1) - window * (window + 1)
