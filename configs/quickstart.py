"""A small BERT for the embedded corpus: 2 layers, hidden size 256, minutes on two CPU cores.

bash launch/quickstart.sh
"""

from bertjax.config.parse import default_config


def get_config():
    """A recipe for half a million tokens and five minutes: a high masking rate, many short rows, no dropout.

    The masking rate exceeds BERT's 15 % (Wettig et al. 2022, arXiv:2202.08005). The initial weights are large enough
    for a narrow model to use its attention from the first steps; 0.02 suits a hidden size of 768 or more.
    """
    config = default_config()
    config.phases = ({"steps": 1800, "length": 32, "batch": 32},)
    config.masking.rate = 0.25
    config.model.vocab_size = 0
    config.model.num_hidden_layers = 2
    config.model.hidden_size = 256
    config.model.num_attention_heads = 4
    config.model.intermediate_size = 1024
    config.model.max_position_embeddings = 32
    config.model.initializer_range = 0.06
    config.model.hidden_dropout_prob = 0.0
    config.model.attention_probs_dropout_prob = 0.0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 150
    config.optimizer.beta2 = 0.98
    config.optimizer.bias_correction = True
    config.log_every = 20
    config.eval_every = 200
    config.checkpoint_every = 600
    return config
