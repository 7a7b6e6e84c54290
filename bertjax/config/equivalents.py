"""Settings of other projects and their equivalents here: one table for error messages and for the documentation.

`suggestion` answers a config key that bertjax does not have but another project does, e.g. `lr`. The pages "Coming
from …" of the documentation are generated from `EQUIVALENTS`.
"""

import dataclasses
import difflib
from collections.abc import Iterable

GOOGLE = "google-research/bert"
FLAX = "run_mlm_flax and FlaxBert"
TRAINER = "transformers' Trainer"
MODERNBERT = "ModernBERT"
SENTENCES = "sentence-transformers"


@dataclasses.dataclass(frozen=True)
class Equivalent:
    """One setting or command of other projects.

    Attributes:
      theirs: names of the setting, or a command, in the spelling of those projects.
      projects: the projects that have it.
      pretraining: where it lives in pre-training ("" where there is none).
      finetuning: where it lives in fine-tuning ("" where there is none).
      note: a difference that matters.
    """

    theirs: tuple[str, ...]
    projects: tuple[str, ...]
    pretraining: str = ""
    finetuning: str = ""
    note: str = ""


_TRAINERS = (FLAX, TRAINER)
_ALL = (GOOGLE, FLAX, TRAINER, MODERNBERT, SENTENCES)

SETTINGS = (
    # -- optimization
    Equivalent(
        ("lr", "learning_rate", "peak_lr", "optimizer.lr"),
        _ALL,
        "config.optimizer.learning_rate",
        "config.learning_rates, a tuple of values to try, e.g. (2e-5, 3e-5)",
    ),
    Equivalent(
        ("batch", "batch_size", "train_batch_size", "per_device_train_batch_size", "global_train_batch_size"),
        _ALL,
        "config.phases[i].batch",
        "config.batch",
        "rows per step over all devices, not per device",
    ),
    Equivalent(
        ("steps", "max_steps", "num_train_steps", "train_steps", "max_duration"),
        _ALL,
        "config.phases[i].steps",
        "config.epochs, a tuple of values to try, e.g. (3,)",
    ),
    Equivalent(
        ("epoch", "epochs", "num_epochs", "num_train_epochs"),
        (FLAX, TRAINER, GOOGLE, SENTENCES),
        "config.phases[i].steps; `train` logs how many epochs they cover",
        "config.epochs, a tuple of values to try, e.g. (3,)",
    ),
    Equivalent(
        ("max_seq_length", "max_seq_len", "seq_length", "seq_len", "max_length", "block_size"),
        _ALL,
        "config.phases[i].length",
        "config.length",
        "tokens per row; model.max_position_embeddings is the upper limit",
    ),
    Equivalent(
        ("warmup", "warmup_ratio", "warmup_proportion", "t_warmup"),
        (TRAINER, MODERNBERT, SENTENCES),
        "config.optimizer.warmup_steps, a number of steps",
        "config.optimizer.warmup, a fraction of the run",
    ),
    Equivalent(
        ("warmup_steps", "num_warmup_steps"),
        (GOOGLE, FLAX, TRAINER, SENTENCES),
        "config.optimizer.warmup_steps",
        "config.optimizer.warmup, a fraction of the run",
    ),
    Equivalent(
        ("gradient_accumulation_steps", "grad_accum", "accumulate_steps", "device_train_microbatch_size"),
        (FLAX, TRAINER, MODERNBERT, SENTENCES),
        "config.layout.accumulation",
        "config.layout.accumulation",
        "the number of microbatches of one step; the batch stays the same",
    ),
    Equivalent(("weight_decay",), _ALL, "config.optimizer.weight_decay", "config.optimizer.weight_decay"),
    Equivalent(
        ("adam_epsilon", "eps", "epsilon"),
        (GOOGLE, FLAX, TRAINER, MODERNBERT),
        "config.optimizer.eps",
        "config.optimizer.eps",
    ),
    Equivalent(("adam_beta1", "beta1"), _TRAINERS, "config.optimizer.beta1", "config.optimizer.beta1"),
    Equivalent(("adam_beta2", "beta2"), _TRAINERS, "config.optimizer.beta2", "config.optimizer.beta2"),
    Equivalent(
        ("max_grad_norm", "clip_norm", "gradient_clip", "clipping_threshold"),
        (TRAINER, MODERNBERT, SENTENCES),
        "config.optimizer.clip_norm",
        "config.optimizer.clip_norm",
    ),
    Equivalent(
        ("lr_scheduler_type", "lr_scheduler", "scheduler", "schedule"),
        (TRAINER, MODERNBERT),
        "config.optimizer.schedule",
        "config.optimizer.schedule",
        "linear, cosine or constant; in pre-training also wsd (warm-up, stable, decay)",
    ),
    Equivalent(
        ("optim", "optimizer_name", "adafactor"),
        (FLAX, TRAINER, MODERNBERT),
        "config.optimizer.name: adamw, lamb, stable_adamw, muon, or one that you register",
        "fine-tuning always uses AdamW",
    ),
    # -- precision and devices
    Equivalent(
        ("bf16", "fp16", "half", "precision", "mixed_precision", "use_bf16", "torch_dtype"),
        (FLAX, TRAINER, MODERNBERT, SENTENCES),
        "config.dtype",
        "config.dtype",
        "auto is bfloat16 on accelerators; parameters and losses stay float32",
    ),
    Equivalent(
        ("gradient_checkpointing", "remat", "activation_checkpointing"),
        (TRAINER, FLAX, MODERNBERT),
        "config.layout.remat",
        "config.layout.remat",
    ),
    Equivalent(
        ("fsdp", "fsdp_config", "deepspeed", "parallelism"),
        (TRAINER, MODERNBERT),
        "config.mesh.fsdp",
        "config.mesh.fsdp",
    ),
    Equivalent(
        ("attn_implementation", "use_fa2", "attention_impl"),
        (TRAINER, MODERNBERT),
        "config.layout.attention_impl",
        "config.layout.attention_impl",
    ),
    Equivalent(
        ("dataloader_num_workers", "num_workers", "preprocessing_num_workers"),
        (FLAX, TRAINER, MODERNBERT),
        "config.reader_threads (of batches) or `prepare --processes` (of tokenization)",
    ),
    # -- data and objective
    Equivalent(
        ("mlm_probability", "mlm_prob", "masked_lm_prob", "mask_prob", "masking_rate"),
        (GOOGLE, FLAX, TRAINER, MODERNBERT),
        "config.masking.rate",
    ),
    Equivalent(
        ("max_predictions_per_seq", "max_predictions"),
        (GOOGLE,),
        "config.masking.max_predictions",
        "",
        "0 derives it from rate and length",
    ),
    Equivalent(("whole_word_mask", "do_whole_word_mask", "wwm"), (GOOGLE, TRAINER), "config.masking.unit=word"),
    Equivalent(("short_seq_prob",), (GOOGLE,), "config.short_seq_prob"),
    Equivalent(
        ("dupe_factor", "random_seed"),
        (GOOGLE,),
        "config.seed",
        "config.seeds",
        "masks are drawn anew in each epoch, so the corpus is never duplicated",
    ),
    Equivalent(
        ("dataset", "dataset_name", "train_file", "input_file", "data_path", "data_local", "data_remote", "data"),
        _ALL,
        "config.corpus",
        "config.data_dir and config.table.train",
        "`prepare` writes the corpus from text",
    ),
    Equivalent(
        ("validation_file", "eval_file", "validation_split_percentage", "eval_dataset"),
        (FLAX, TRAINER, SENTENCES),
        "`prepare --heldout` sets documents aside",
        "config.table.dev",
    ),
    Equivalent(
        ("tokenizer", "tokenizer_name", "vocab_file", "do_lower_case", "do_lowercase"),
        (GOOGLE, FLAX, TRAINER, MODERNBERT),
        "`prepare --tokenizer` and `--lowercase` decide; a corpus contains its tokenizer",
        "the model in config.init_from brings its tokenizer",
    ),
    Equivalent(
        ("pack", "packing_strategy", "sequence_packing"),
        (MODERNBERT, TRAINER),
        "config.packing",
        "",
        "sequences per row",
    ),
    # -- model
    Equivalent(
        ("model_name", "model_name_or_path", "init_checkpoint", "pretrained_model_name", "load_path", "model_path"),
        _ALL,
        "config.init_from",
        "config.init_from",
        "a folder on this machine; nothing is downloaded",
    ),
    Equivalent(
        ("bert_config_file", "config_name", "model_config"),
        (GOOGLE, FLAX, TRAINER, MODERNBERT),
        "config.model",
        "the model in config.init_from brings its architecture",
    ),
    Equivalent(("num_layers", "n_layers", "num_hidden_layers"), _ALL, "config.model.num_hidden_layers"),
    Equivalent(("hidden_size", "d_model", "dim"), _ALL, "config.model.hidden_size"),
    Equivalent(("num_heads", "n_heads", "num_attention_heads"), _ALL, "config.model.num_attention_heads"),
    Equivalent(("ffn_dim", "d_ff", "intermediate_size"), _ALL, "config.model.intermediate_size"),
    Equivalent(("vocab_size",), _ALL, "config.model.vocab_size", "", "0 takes the size of the corpus's tokenizer"),
    Equivalent(
        ("dropout", "hidden_dropout_prob"), _ALL, "config.model.hidden_dropout_prob", "config.hidden_dropout_prob"
    ),
    # -- the run
    Equivalent(
        ("output_dir", "workdir", "save_folder", "save_dir", "run_name"),
        _ALL,
        "give the folder as --workdir",
        "give the folder as --workdir",
        "the same command on the same workdir continues the run",
    ),
    Equivalent(
        ("resume", "resume_from_checkpoint", "autoresume", "overwrite_output_dir"),
        (FLAX, TRAINER, MODERNBERT, SENTENCES),
        "train continues the run in --workdir if there is one",
        "finetune continues the sweep in --workdir if there is one",
    ),
    Equivalent(
        ("save_steps", "save_checkpoints_steps", "save_interval", "save_strategy"),
        (GOOGLE, FLAX, TRAINER, MODERNBERT, SENTENCES),
        "config.checkpoint_every",
    ),
    Equivalent(
        ("save_total_limit", "save_num_checkpoints_to_keep", "keep_checkpoint_max"),
        (GOOGLE, TRAINER, MODERNBERT, SENTENCES),
        "config.keep_last",
    ),
    Equivalent(
        ("eval_steps", "eval_interval", "eval_strategy", "evaluation_strategy", "do_eval"),
        (GOOGLE, FLAX, TRAINER, MODERNBERT, SENTENCES),
        "config.eval_every",
        "config.patience",
        "fine-tuning always scores the dev split after the last epoch",
    ),
    Equivalent(("logging_steps", "log_steps", "log_interval"), _ALL, "config.log_every", "config.log_every"),
    Equivalent(
        ("report_to", "loggers", "tensorboard"),
        (FLAX, TRAINER, MODERNBERT),
        "the workdir always gets metrics.jsonl and TensorBoard events",
        "the workdir always gets metrics.jsonl and TensorBoard events",
    ),
    Equivalent(
        ("load_best_model_at_end", "metric_for_best_model"),
        (TRAINER, SENTENCES),
        "",
        "the workdir always keeps the best run on the first dev split, by the first score of the task; a task kind of "
        "your own may select by another one (examples/task_kind.py: macro F1)",
    ),
    Equivalent(
        ("class_weights", "class_weight", "label_weights"),
        (),
        "",
        "there are no class weights; examples/task_kind.py has a focal loss for rare classes",
    ),
)

COMMANDS = (
    Equivalent(
        ("create_pretraining_data.py",),
        (GOOGLE,),
        "python -m bertjax.prepare",
        "",
        "writes ids only; masks are drawn in training",
    ),
    Equivalent(("run_pretraining.py",), (GOOGLE,), "python -m bertjax.train"),
    Equivalent(("run_classifier.py",), (GOOGLE,), "", "python -m bertjax.finetune --config=configs/glue.py:TASK"),
    Equivalent(("run_squad.py",), (GOOGLE,), "", "python -m bertjax.finetune --config=configs/squad.py"),
    Equivalent(("extract_features.py",), (GOOGLE,), "", "python -m bertjax.predict embed"),
    Equivalent(("run_mlm_flax.py",), (FLAX,), "python -m bertjax.prepare, then python -m bertjax.train"),
    Equivalent(
        ("FlaxBertModel.from_pretrained", "FlaxBertForMaskedLM.from_pretrained"),
        (FLAX,),
        "bertjax.load_model(DIR)",
        "bertjax.load_model(DIR)",
    ),
    Equivalent(("run_mlm.py", "Trainer.train"), (TRAINER,), "python -m bertjax.train", "python -m bertjax.finetune"),
    Equivalent(("run_glue.py",), (FLAX, TRAINER), "", "python -m bertjax.finetune --config=configs/glue.py:TASK"),
    Equivalent(
        ('pipeline("fill-mask")', 'pipeline("text-classification")'),
        (TRAINER,),
        "python -m bertjax.predict fill-mask",
        "python -m bertjax.predict classify",
    ),
    Equivalent(("save_pretrained",), (FLAX, TRAINER), "python -m bertjax.convert", "python -m bertjax.convert"),
    Equivalent(("main.py",), (MODERNBERT,), "python -m bertjax.train --config=configs/modern_base.py"),
    Equivalent(("convert_dataset.py",), (MODERNBERT,), "python -m bertjax.prepare"),
    Equivalent(("SentenceTransformer(DIR).encode",), (SENTENCES,), "", "python -m bertjax.predict embed"),
    Equivalent(
        ("SentenceTransformerTrainer",), (SENTENCES,), "", "python -m bertjax.finetune --config=configs/similarity.py"
    ),
    Equivalent(("util.semantic_search",), (SENTENCES,), "", "python -m bertjax.predict search"),
)

EQUIVALENTS = SETTINGS + COMMANDS


def suggestion(key: str, finetuning: bool) -> str:
    """Returns what to do instead of setting `key`, a name of other projects; "" if the name is unknown."""
    for equivalent in SETTINGS:
        if key in equivalent.theirs:
            ours = equivalent.finetuning if finetuning else equivalent.pretraining
            note = f" ({equivalent.note})" if equivalent.note else ""
            return f"{'set ' * ours.startswith('config.')}{ours}{note}" if ours else ""
    return ""


def unknown_key(path: str, key: str, known: Iterable[str], finetuning: bool) -> str:
    """Returns the message for a config key that does not exist: its equivalent here, or the nearest known key."""
    if advice := suggestion(key, finetuning):
        return f"unknown key {path}.{key}; {advice}"
    nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)
    return f"unknown key {path}.{key}; did you mean {path}.{nearest[0]}?"
