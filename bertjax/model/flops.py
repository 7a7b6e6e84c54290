"""Model FLOPs: the operations that the mathematics requires, independent of the implementation."""

from bertjax.config.model import ModelConfig


def training_flops(config: ModelConfig, length: int, predictions: int, pairs: bool = True) -> float:
    """Returns the FLOPs of a training step for one sequence of `length` tokens with `predictions` masked positions.

    It counts matrix products, two FLOPs per multiply-add: all projections, full (not causal) attention, attention
    within the window in local layers, the masked-LM head on the predictions, pooler and next-sentence head. The last
    layer counts only for the positions that these heads read. A training step is three forward passes, as the gradient
    of a product is two products. Embedding look-ups, norms, activations, softmax, the optimizer and recomputation do
    not count. For a packed row this is an upper bound, as its sequences do not attend to one another. BERT-Large at 128
    with 20 predictions: 1.83 GFLOP per token.
    """
    hidden, embedding = config.hidden_size, config.embedding_width
    head_positions = predictions + (1 if pairs else 0)
    keys_and_values = 2 * length * hidden * hidden

    def layer(queries: int, local: bool) -> float:
        query_and_output = 2 * hidden * hidden
        keys_per_query = _pairs_within(length, config.attention_window) / length if local else length
        attention = 2 * keys_per_query * hidden  # query·key and probabilities·value
        inner = (3 if config.gated_mlp else 2) * hidden * config.intermediate_size
        return keys_and_values + queries * (query_and_output + attention + inner)

    last = config.num_hidden_layers - 1
    layers = sum(layer(head_positions if i == last else length, config.is_local(i)) for i in range(last + 1))
    projection = length * embedding * hidden if config.embedding_size else 0
    masked_lm = predictions * (hidden * embedding + embedding * config.vocab_size)
    pooled = hidden * hidden + 2 * hidden if pairs else 0
    forward = 2 * (projection + layers + masked_lm + pooled)
    return 3.0 * forward


def _pairs_within(length: int, window: int) -> int:
    """Returns the number of pairs of `length` tokens that are at most `window` apart."""
    window = min(window, length - 1)
    return length * (2 * window + 1) - window * (window + 1)
