"""RoBERTa-Base: BERT-Base without pairs, with 8,192 full rows per step (Liu et al. 2019, arXiv:1907.11692).

python -m bertjax.prepare --source=SPEC --tokenizer=new:bpe:50265 --output=DIR
python -m bertjax.train --config=configs/roberta_base.py --workdir=runs/roberta_base --config.corpus=DIR

Rows are full sentences that continue across documents, with new masks in every epoch. On fewer than a thousand chips,
`--config.layout.accumulation=N` splits each batch into N microbatches, with the same result.
Published: 500K steps on 160 GB of text (table 9), a day on 1,024 V100 for 100K of them; GLUE dev MNLI 87.6, SST-2 94.8.
Not yet run with bertjax.
"""

from bertjax.config.parse import default_config


def get_config():
    """The differences from BERT-Base in table 9 of the paper and its published code."""
    config = default_config()
    config.next_sentence = False
    config.full_sentences = True
    config.short_seq_prob = 0.0
    config.phases = ({"steps": 500_000, "length": 512, "batch": 8_192},)
    config.model.model_type = "roberta"
    config.model.vocab_size = 50_265
    config.model.type_vocab_size = 1
    config.model.layer_norm_eps = 1e-5
    config.optimizer.learning_rate = 6e-4
    config.optimizer.warmup_steps = 24_000
    config.optimizer.beta2 = 0.98
    config.optimizer.bias_correction = True
    config.optimizer.clip_norm = 0.0
    return config
