"""DistilBERT-Base: six of the twelve layers of BERT-Base, distilled from it (Sanh et al. 2019, arXiv:1910.01108).

python -m bertjax.prepare --source=SPEC --tokenizer=TEACHER --output=DIR
python -m bertjax.train --config=configs/distilbert_base.py --workdir=runs/distilbert_base --config.corpus=DIR
    --config.distillation.teacher=TEACHER

TEACHER is a workdir, a checkpoint or an exported folder of a BERT-Base. The student is initialized from every other
layer of it, and learns from the masked tokens and from the teacher's predictions and hidden states.
On few chips, `--config.layout.accumulation=N` splits each batch into N microbatches, with the same result.
Published: about 90 hours on 8 V100; 97 % of BERT-Base's GLUE score (77.0 of 79.5), 60 % faster.
Not yet run with bertjax.
"""

from bertjax.config.parse import default_config


def get_config():
    """Batches of 4,000 as in the paper, three epochs of BERT's corpora; otherwise as in its published code."""
    config = default_config()
    config.next_sentence = False
    config.short_seq_prob = 0.0
    config.phases = ({"steps": 4_800, "length": 512, "batch": 4_096},)
    config.model.model_type = "distilbert"
    config.model.num_hidden_layers = 6
    config.model.type_vocab_size = 0
    config.model.pooler_act = "relu"
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 240
    config.optimizer.beta2 = 0.98
    config.optimizer.bias_correction = True
    config.optimizer.weight_decay = 0.0
    config.optimizer.clip_norm = 5.0
    return config
