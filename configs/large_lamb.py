"""BERT-Large in 8,601 steps of 64K and 32K sequences: the 76-minute LAMB recipe (You et al. 2019, arXiv:1904.00962).

python -m bertjax.train --config=configs/large_lamb.py --workdir=runs/large_lamb --config.corpus=DIR

Designed for a pod of about a thousand chips. On fewer chips, `--config.layout.accumulation=N` splits each batch into N
microbatches, with the same result, and `--config.optimizer.state_dtype=bfloat16` halves the memory of the moments.

Batch sizes, lengths and LAMB are those of the paper. Steps, learning rates, warm-ups and the shape of the decay are
those that NVIDIA/DeepLearningExamples publishes for these batches, because the paper's were not available.
Published: 76 minutes on 1,024 TPU v3 chips, SQuAD F1 90.58 (the paper); 1.2 hours on 256 A100, F1 90.96 (NVIDIA).
Not yet run with bertjax.
"""

from bertjax.config.parse import default_config


def get_config():
    """BERT-Large with one schedule per phase: warm-up to its own peak, then square-root decay to zero."""
    config = default_config()
    config.model.num_hidden_layers = 24
    config.model.hidden_size = 1024
    config.model.num_attention_heads = 16
    config.model.intermediate_size = 4096
    config.layout.remat = "bert"
    config.phases = (
        {"steps": 7_038, "length": 128, "batch": 65_536},
        {"steps": 1_563, "length": 512, "batch": 32_768, "learning_rate": 4e-3, "warmup_steps": 200},
    )
    config.optimizer.name = "lamb"
    config.optimizer.learning_rate = 6e-3
    config.optimizer.warmup_steps = 2_000
    config.optimizer.decay_power = 0.5
    config.optimizer.bias_correction = True
    config.log_every = 10
    config.eval_every = 500
    config.checkpoint_every = 100
    return config
