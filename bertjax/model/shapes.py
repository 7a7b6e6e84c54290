"""The shapes of an encoder's parameters, from its config alone: tracing the model would take 5 % of a short command.

`tests/model/test_shapes.py` compares them with the model's own.
"""

from bertjax.config.model import ModelConfig
from bertjax.model.layer_stacks import layer_stacks

Shapes = dict[str, tuple[int, ...]]  # path → shape


def encoder_shapes(config: ModelConfig) -> Shapes:
    """Returns the shapes of all parameters of `embeddings` and `encoder`."""
    shapes = {f"embeddings/{name}": shape for name, shape in _embeddings(config).items()}
    for i, stack in enumerate(layer_stacks(config)):
        for j in range(stack.layers):
            layer = _layer(config, first=i == j == 0)
            shapes |= {f"encoder/segment_{i}/layer_{j}/{name}": (stack.stacked, *layer[name]) for name in layer}
    if config.pre_norm:
        shapes |= _norm("encoder/final_layer_norm", config.hidden_size, config)
    return shapes


def _embeddings(config: ModelConfig) -> Shapes:
    width = config.embedding_width
    entries = {"word_embeddings": config.padded_vocab_size, "token_type_embeddings": config.type_vocab_size}
    if not config.global_rope_theta:
        entries["position_embeddings"] = config.max_position_embeddings
    shapes: Shapes = {f"{name}/embedding": (count, width) for name, count in entries.items() if count}
    shapes |= _norm("layer_norm", width, config)
    return shapes | (_dense("projection", width, config.hidden_size, config) if config.embedding_size else {})


def _layer(config: ModelConfig, first: bool) -> Shapes:
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: Shapes = {}
    for name in ("query", "key", "value", "output"):
        shapes |= _dense(f"attention/{name}", hidden, hidden, config)
    for name in ("intermediate", "gate") if config.gated_mlp else ("intermediate",):
        shapes |= _dense(name, hidden, inner, config)
    shapes |= _dense("output", inner, hidden, config)
    norms = ("attention_layer_norm", "mlp_layer_norm" if config.pre_norm else "output_layer_norm")
    for name in norms[1:] if first and config.pre_norm else norms:
        shapes |= _norm(name, hidden, config)
    return shapes


def _dense(name: str, width: int, features: int, config: ModelConfig) -> Shapes:
    bias: Shapes = {f"{name}/bias": (features,)} if config.use_bias else {}
    return {f"{name}/kernel": (width, features)} | bias


def _norm(name: str, width: int, config: ModelConfig) -> Shapes:
    return {f"{name}/{part}": (width,) for part in (("scale", "bias") if config.use_bias else ("scale",))}
