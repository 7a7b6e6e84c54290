"""What the values of a config must be; whatever cannot work is refused before anything is built from it."""

import dataclasses
from typing import Any

from bertjax.config.data import MASKING_UNITS, PAIR_TASKS, MaskingConfig
from bertjax.config.layout import ATTENTION, DTYPES, REMAT, LayoutConfig, MeshConfig
from bertjax.config.model import ACTIVATIONS, MODEL_TYPES, POOLER_ACTIVATIONS, ModelConfig
from bertjax.config.optimizer import OPTIMIZERS, SCHEDULES, STATE_DTYPES, OptimizerConfig
from bertjax.config.pretraining import Config
from bertjax.errors import UserError


def require(ok: bool, path: str, value: Any, rule: str) -> None:
    """Raises UserError, which names config.`path`, its value and the rule, where it is not `ok`."""
    if not ok:
        raise UserError(f"config.{path} is {value!r}; it must be {rule}")


def one_of(path: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises UserError where config.`path` is none of the choices."""
    require(value in choices, path, value, "one of " + ", ".join(choices))


def validate(config: Config) -> None:
    """Raises UserError for values that cannot work, before anything is built from them."""
    validate_model(config.model)
    _validate_masking(config.masking)
    validate_optimizer(config.optimizer)
    _validate_phases(config)
    _validate_distillation(config)
    one_of("dtype", config.dtype, DTYPES)
    require(0 <= config.short_sequences <= 1, "short_sequences", config.short_sequences, "from 0 to 1")
    for name in ("seed", "packing"):
        require(getattr(config, name) >= 0, name, getattr(config, name), "0 or larger")
    validate_machine(config.mesh, config.layout)
    for name in ("log_every", "checkpoint_every", "keep_last", "eval_sequences", "reader_threads"):
        require(getattr(config, name) >= 1, name, getattr(config, name), "1 or larger")
    for name in ("eval_every", "keep_every"):
        require(getattr(config, name) >= 0, name, getattr(config, name), "0 or larger")
    bounds = (1, *config.profile_steps, config.total_steps)
    require(
        len(bounds) in (2, 4) and list(bounds) == sorted(bounds),
        "profile_steps",
        config.profile_steps,
        f"(first, last), from 1 to {config.total_steps}",
    )
    for first, second in (PAIR_TASKS, ("next_sentence", "full_sentences"), ("sentence_order", "full_sentences")):
        require(not (getattr(config, first) and getattr(config, second)), second, True, f"False where {first} is on")
    if config.pairs:
        types = config.model.type_vocab_size
        require(types >= 2, "model.type_vocab_size", types, f"at least 2 where {config.pairs} is on")


def validate_machine(mesh: MeshConfig, layout: LayoutConfig) -> None:
    """Raises UserError for a mesh or a layout that cannot work anywhere."""
    sizes = dataclasses.asdict(mesh)
    for name, size in sizes.items():
        require(size == -1 or size >= 1, f"mesh.{name}", size, "-1, or 1 or larger")
    require(list(sizes.values()).count(-1) <= 1, "mesh", sizes, "-1 at one axis only")
    for name in ("unroll", "accumulation"):
        require(getattr(layout, name) >= 1, f"layout.{name}", getattr(layout, name), "1 or larger")
    one_of("layout.remat", layout.remat, REMAT)
    one_of("layout.attention", layout.attention, ATTENTION)


def validate_model(model: ModelConfig) -> None:
    """Raises UserError for a shape that cannot be."""
    for name in (
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
    ):
        require(getattr(model, name) >= 1, f"model.{name}", getattr(model, name), "1 or larger")
    for name in ("vocab_size", "type_vocab_size", "embedding_size", "num_hidden_groups"):
        require(getattr(model, name) >= 0, f"model.{name}", getattr(model, name), "0 or larger")
    require(
        model.num_hidden_groups == 0 or model.num_hidden_layers % model.num_hidden_groups == 0,
        "model.num_hidden_groups",
        model.num_hidden_groups,
        f"0, or divide model.num_hidden_layers ({model.num_hidden_layers})",
    )
    one_of("model.model_type", model.model_type, MODEL_TYPES)
    one_of("model.pooler_act", model.pooler_act, POOLER_ACTIVATIONS)
    require(
        model.hidden_size % model.num_attention_heads == 0,
        "model.hidden_size",
        model.hidden_size,
        f"a multiple of model.num_attention_heads ({model.num_attention_heads})",
    )
    one_of("model.hidden_act", model.hidden_act, ACTIVATIONS)
    for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        require(0 <= getattr(model, name) < 1, f"model.{name}", getattr(model, name), "at least 0 and under 1")
    for name in ("layer_norm_eps", "initializer_range"):
        require(getattr(model, name) > 0, f"model.{name}", getattr(model, name), "larger than 0")
    only = model.attention_output_dropout_prob
    require(only == -1 or 0 <= only < 1, "model.attention_output_dropout_prob", only, "-1, or at least 0 and under 1")
    _validate_modern(model)


def _validate_modern(model: ModelConfig) -> None:
    """Of the fields that came with ModernBERT."""

    def check(ok: bool, name: str, rule: str) -> None:
        require(ok, f"model.{name}", getattr(model, name), rule)

    windows, every, rotary = model.local_attention, model.global_attn_every_n_layers, model.global_rope_theta
    check(windows == 0 or windows >= 2, "local_attention", "0, or at least 2")
    rule = "at least 2 where model.local_attention is set, else 1"
    check(every >= 2 if windows else every == 1, "global_attn_every_n_layers", rule)
    check(rotary >= 0, "global_rope_theta", "0 or larger")
    rule = f"set where model.global_rope_theta ({rotary}) and model.local_attention ({windows}) are, else 0"
    needed = rotary > 0 and windows > 0
    check(model.local_rope_theta > 0 if needed else model.local_rope_theta == 0, "local_rope_theta", rule)
    if rotary:
        require(model.head_size % 2 == 0, "model.hidden_size / num_attention_heads", model.head_size, "even for rotary")
    alike = not (windows or model.pre_norm)
    check(alike or not model.num_hidden_groups, "num_hidden_groups", "0 where layers are not alike (windows, pre_norm)")
    fits = not model.prediction_head or model.pooler_act == "tanh"
    check(fits, "pooler_act", "left alone with model.prediction_head, which has hidden_act")


def _validate_masking(masking: MaskingConfig) -> None:
    one_of("masking.unit", masking.unit, MASKING_UNITS)
    require(0 < masking.rate <= 1, "masking.rate", masking.rate, "larger than 0, at most 1")
    for name in ("mask", "random"):
        require(0 <= getattr(masking, name) <= 1, f"masking.{name}", getattr(masking, name), "from 0 to 1")
    both = masking.mask + masking.random
    require(both <= 1 + 1e-9, "masking.mask + masking.random", both, "at most 1")
    require(masking.max_predictions >= 0, "masking.max_predictions", masking.max_predictions, "0 or larger")
    require(masking.max_span >= 1, "masking.max_span", masking.max_span, "1 or larger")


def validate_optimizer(optimizer: OptimizerConfig) -> None:
    """Raises UserError for values out of range."""
    one_of("optimizer.name", optimizer.name, OPTIMIZERS)
    one_of("optimizer.schedule", optimizer.schedule, SCHEDULES)
    one_of("optimizer.state_dtype", optimizer.state_dtype, STATE_DTYPES)
    for name in ("learning_rate", "eps", "decay_power"):
        require(getattr(optimizer, name) > 0, f"optimizer.{name}", getattr(optimizer, name), "larger than 0")
    for name in ("warmup_steps", "decay_steps", "weight_decay", "clip_norm", "final_fraction"):
        require(getattr(optimizer, name) >= 0, f"optimizer.{name}", getattr(optimizer, name), "0 or larger")
    for name in ("beta1", "beta2"):
        require(
            0 <= getattr(optimizer, name) < 1, f"optimizer.{name}", getattr(optimizer, name), "at least 0 and under 1"
        )
    wide = optimizer.name != "muon" or optimizer.state_dtype == "float32"
    require(wide, "optimizer.state_dtype", optimizer.state_dtype, "float32 with muon")
    if optimizer.schedule == "wsd":
        require(
            optimizer.decay_steps > 0, "optimizer.decay_steps", optimizer.decay_steps, "set where the schedule is wsd"
        )


def _validate_phases(config: Config) -> None:
    require(len(config.phases) >= 1, "phases", config.phases, "at least one phase")
    for index, phase in enumerate(config.phases):
        for name in ("steps", "batch"):
            require(getattr(phase, name) >= 1, f"phases[{index}].{name}", getattr(phase, name), "1 or larger")
        longest = config.model.max_position_embeddings
        require(
            8 <= phase.length <= longest,
            f"phases[{index}].length",
            phase.length,
            f"at least 8 and at most model.max_position_embeddings ({longest})",
        )
        for name in ("learning_rate", "warmup_steps", "global_rope_theta"):
            require(getattr(phase, name) >= 0, f"phases[{index}].{name}", getattr(phase, name), "0 or larger")
        if not phase.learning_rate:
            rule = "set with a learning_rate in the same phase; without one the schedule goes on"
            require(not phase.warmup_steps, f"phases[{index}].warmup_steps", phase.warmup_steps, rule)
        theta, rotates = phase.global_rope_theta, config.model.global_rope_theta > 0
        rule = "left out: the model has no rotary positions"
        require(not theta or rotates, f"phases[{index}].global_rope_theta", theta, rule)
    theta, rule = config.phases[-1].global_rope_theta, "that of the model, which is what the last phase trains"
    require(theta in (0, config.model.global_rope_theta), "phases[-1].global_rope_theta", theta, rule)
    first = config.phases[0].learning_rate
    require(not first, "phases[0].learning_rate", first, "left out; the first phase has optimizer.learning_rate")


def _validate_distillation(config: Config) -> None:
    settings = config.distillation
    require(settings.temperature > 0, "distillation.temperature", settings.temperature, "larger than 0")
    for name in ("soft_weight", "masked_lm_weight", "cosine_weight"):
        require(getattr(settings, name) >= 0, f"distillation.{name}", getattr(settings, name), "0 or larger")
    if settings.teacher and settings.initialize:
        require(not config.init_from, "init_from", config.init_from, "left out: the student starts from its teacher")
