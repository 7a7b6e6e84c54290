"""ModernBERT-Base: 22 layers, hidden size 768, 149.7M parameters (Warner et al. 2024, arXiv:2412.13663).

python -m bertjax.train --config=configs/modern_base.py --workdir=runs/modern_base --config.corpus=DIR

Masking rate 30 %, packed rows, and two phases: the second raises the length, and the rotary base of global layers from
10,000 to 160,000. The learning rate decays in the last tenth of the steps as 1-sqrt.
Published: 1.7T tokens at length 1,024, then 300B at 8,192, in 245.6 hours on 8 H100; GLUE dev 88.4. The phases here
have about a thirtieth of these tokens. Not yet run with bertjax.
"""

from bertjax.config.parse import default_config


def get_config():
    """ModernBERT-Base with about a thirtieth of the published tokens."""
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
    config.short_seq_prob = 0.0
    config.packing = 64
    config.phases = (
        {"steps": 50_000, "length": 1024, "batch": 1024, "global_rope_theta": 10_000.0},
        {"steps": 8_000, "length": 8192, "batch": 128},
    )
    config.layout.remat = "bert"
    config.optimizer.name = "stable_adamw"
    config.optimizer.learning_rate = 8e-4
    config.optimizer.schedule = "wsd"
    config.optimizer.warmup_steps = 2_000
    config.optimizer.decay_steps = 5_800
    config.optimizer.beta2 = 0.98
    config.optimizer.bias_correction = True
    config.optimizer.weight_decay = 0.0125  # multiplied by the learning rate; the published 1e-5 is at the peak of 8e-4
    config.optimizer.clip_norm = 0.0
    return config
