"""A small BERT for the embedded corpus: 2 layers, 256 wide, minutes on two CPU cores.

bash launch/quickstart.sh
"""

from bertjax.config import default_config


def get_config():
    """A recipe for half a million tokens: small, no dropout, a high learning rate with the textbook's corrections."""
    config = default_config()
    config.phases = ({"steps": 900, "length": 64, "batch": 32},)
    config.model.vocab_size = 0
    config.model.num_hidden_layers = 2
    config.model.hidden_size = 256
    config.model.num_attention_heads = 4
    config.model.intermediate_size = 1024
    config.model.max_position_embeddings = 64
    config.model.hidden_dropout_prob = 0.0
    config.model.attention_probs_dropout_prob = 0.0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 80
    config.optimizer.beta2 = 0.98
    config.optimizer.bias_correction = True
    config.log_every = 20
    config.eval_every = 100
    config.checkpoint_every = 300
    return config
