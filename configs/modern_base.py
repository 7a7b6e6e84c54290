"""ModernBERT-Base: 22 layers, 768 wide, 149.7M parameters (Warner et al. 2024, arXiv:2412.13663).

python -m bertjax.train --config=configs/modern_base.py --workdir=runs/modern_base --config.corpus=DIR

The model and its two lengths; published are 1.7T tokens at 1,024, then 300B at 8,192, in 245.6 hours on 8 H100. The
first phase had a base of 10,000 for rotary positions everywhere, as local layers keep it.
"""

from bertjax.config import default_config


def get_config():
    """ModernBERT-Base."""
    config = default_config()
    model = config.model
    model.model_type = "modernbert"
    model.vocab_size = 50_368
    model.num_hidden_layers = 22
    model.intermediate_size = 1152
    model.max_position_embeddings = 8192
    model.type_vocab_size = 0
    model.hidden_dropout_prob = 0.0
    model.attention_probs_dropout_prob = 0.0
    model.attention_output_dropout_prob = 0.1
    model.layer_norm_eps = 1e-5
    model.pre_norm = True
    model.use_bias = False
    model.gated_mlp = True
    model.global_rope_theta = 160_000.0
    model.local_rope_theta = 10_000.0
    model.local_attention = 128
    model.global_attn_every_n_layers = 3
    model.prediction_head = True
    config.masking.rate = 0.3
    config.next_sentence = False
    config.phases = (
        {"steps": 900_000, "length": 1024, "batch": 256},
        {"steps": 100_000, "length": 8192, "batch": 32},
    )
    return config
