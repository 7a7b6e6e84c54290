"""ALBERT-Base: twelve layers that share the parameters of one, 12M in total (Lan et al. 2019, arXiv:1909.11942).

python -m bertjax.prepare --source=SPEC --tokenizer=new:unigram:30000 --output=DIR
python -m bertjax.train --config=configs/albert_base.py --workdir=runs/albert_base --config.corpus=DIR

Sentence-order prediction, and masks of up to three words. On fewer than five hundred chips,
`--config.layout.accumulation=N` splits each batch into N microbatches, with the same result.
Published: 125K steps on 64 to 512 TPU v3 chips; MNLI 81.6, SST-2 90.3 (dev, table 2).
Not yet run with bertjax.
"""

from bertjax.config.parse import default_config


def get_config():
    """The differences from BERT-Base in the paper (section 4.1) and its published code, version 1."""
    config = default_config()
    config.next_sentence = False
    config.sentence_order = True
    config.phases = ({"steps": 125_000, "length": 512, "batch": 4_096},)
    config.masking.unit = "span"
    config.masking.max_span = 3
    config.model.model_type = "albert"
    config.model.vocab_size = 30_000
    config.model.embedding_size = 128
    config.model.num_hidden_groups = 1
    config.model.hidden_act = "gelu_new"
    config.optimizer.name = "lamb"
    config.optimizer.learning_rate = 1.76e-3
    config.optimizer.warmup_steps = 3_125
    config.optimizer.bias_correction = True
    return config
