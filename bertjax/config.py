"""What a run is: frozen dataclasses, and their one conversion from an `ml_collections.ConfigDict`.

A config file's `get_config()` starts from `default_config()`, which holds every key, and sets what differs.
Inside bertjax nothing sees a ConfigDict: commands call `from_config_dict` once, at the edge.

The defaults are BERT-Base as published (Devlin et al. 2018, arXiv:1810.04805, appendix A.2).
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any

from bertjax.errors import UserError

OPTIMIZERS = ("adamw", "lamb", "stable_adamw", "muon")
SCHEDULES = ("linear", "cosine", "constant", "wsd")
MASKING_UNITS = ("token", "word", "span")
DTYPES = ("auto", "float32", "bfloat16")
STATE_DTYPES = ("float32", "bfloat16")
REMAT = ("none", "bert", "dots", "full")
ATTENTION = ("auto", "xla", "cudnn", "splash")
POOLINGS = ("mean", "cls", "max")  # of a text's states to its vector
PAIR_TASKS = ("next_sentence", "sentence_order")
ACTIVATIONS = ("gelu", "gelu_new", "relu")
MODEL_TYPES = ("bert", "roberta", "albert", "distilbert", "modernbert")
POOLER_ACTIVATIONS = ("tanh", "relu")
_VOCABULARY_MULTIPLE = 64  # so any power of two of devices up to this can share it


def _free(default: Any) -> Any:
    """A field that does not change the mathematics, so that a resumed run may change it."""
    if dataclasses.is_dataclass(default):
        return dataclasses.field(default_factory=type(default), metadata={"free": True})
    return dataclasses.field(default=default, metadata={"free": True})


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The encoder's shape, in Hugging Face's names for it."""

    model_type: str = "bert"  # whose layout it is written in for transformers; what is computed the other fields say
    vocab_size: int = 30522  # at least the tokenizer's; 0 takes the tokenizer's
    hidden_size: int = 768
    embedding_size: int = 0  # width of the tables of embeddings, which are then projected (ALBERT); 0: hidden_size
    num_hidden_layers: int = 12
    num_hidden_groups: int = 0  # groups of layers, each with one set of parameters (ALBERT); 0: every layer has its own
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2  # 0: none (DistilBERT)
    hidden_act: str = "gelu"  # gelu is the exact one (erf), gelu_new the tanh approximation
    pooler_act: str = "tanh"  # tanh, relu (DistilBERT)
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    attention_output_dropout_prob: float = -1.0  # behind attention's last product (ModernBERT); -1: hidden_dropout_prob
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    # What ModernBERT has (Warner et al. 2024, arXiv:2412.13663); each works without the others.
    pre_norm: bool = False  # LayerNorm before attention (not the first layer's) and MLP, and one behind all layers
    use_bias: bool = True  # of dense layers and LayerNorms; the outputs of heads have theirs in any case
    gated_mlp: bool = False  # hidden_act(x·intermediate) * (x·gate) instead of hidden_act(x·intermediate)
    global_rope_theta: float = 0.0  # rotary positions with this base, in local layers with local_rope_theta; 0: learned
    local_rope_theta: float = 0.0
    local_attention: int = 0  # window of local attention: a token sees half of it to each side; 0: all layers see all
    global_attn_every_n_layers: int = 1  # of those with a window: layers 0, n, 2n, … see all
    prediction_head: bool = False  # tasks read dense, hidden_act and LayerNorm of each row instead of BERT's pooler

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the word embeddings: `vocab_size` rounded up, so that a mesh can share them; the rest stay zero."""
        return _VOCABULARY_MULTIPLE * math.ceil(self.vocab_size / _VOCABULARY_MULTIPLE)

    @property
    def embedding_width(self) -> int:
        """The width of the tables of embeddings."""
        return self.embedding_size or self.hidden_size

    @property
    def head_size(self) -> int:
        """The width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @property
    def attention_window(self) -> int:
        """How far a token sees to each side in layers of local attention; 0 where there are none."""
        return self.local_attention // 2

    def is_local(self, layer: int) -> bool:
        """Whether the layer of this number, from 0, has local attention."""
        return layer % self.global_attn_every_n_layers != 0


@dataclasses.dataclass(frozen=True)
class MaskingConfig:
    """Which tokens are predicted, and what stands in their place."""

    rate: float = 0.15
    mask: float = 0.8  # share of the chosen that becomes [MASK]
    random: float = 0.1  # share that becomes a random token; the rest stays as it is
    max_predictions: int = 0  # a sequence; 0: rate × length, rounded up to a multiple of 4
    unit: str = "token"  # token, word (whole-word masking), span (n-grams of whole words)
    max_span: int = 3  # words in the longest span; P(n) ∝ 1/n

    def predictions(self, length: int, packing: int = 0) -> int:
        """The number of prediction slots of a row of `length` tokens: 20 at 128, 80 at 512.

        Where `packing` sequences share it there are enough for all, of which each rounds its own number, at least to 1.
        """
        if self.max_predictions:
            return self.max_predictions * max(1, packing)
        rounding = packing * max(0.5, 1 - 3 * self.rate)  # a sequence has three tokens or more
        return 4 * math.ceil(round(self.rate * length + rounding, 6) / 4)


@dataclasses.dataclass(frozen=True)
class Sequencing:
    """How documents are cut into sequences; `Config.sequencing` puts it together."""

    pairs: str = "next_sentence"  # or "sentence_order"; "": single segments
    short_sequences: float = 0.1
    full_sentences: bool = False
    packing: int = 0  # sequences a row holds at most; 0: one, padded

    @property
    def special_tokens(self) -> int:
        """[CLS] A [SEP] B [SEP] has three, [CLS] A [SEP] two."""
        return 3 if self.pairs else 2


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training with one batch shape."""

    steps: int
    length: int  # tokens a sequence
    batch: int  # sequences a step, over all devices
    learning_rate: float = 0.0  # a peak of its own: the schedule begins anew with this phase; 0: it goes on
    warmup_steps: int = 0  # of the schedule that begins anew
    global_rope_theta: float = 0.0  # in place of the model's, which is that of the last phase; 0: the model's


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How parameters are updated. As published for BERT: AdamW, no bias correction, eps 1e-6, clipping at 1."""

    name: str = "adamw"  # adamw, lamb (for batches of tens of thousands), stable_adamw, muon
    learning_rate: float = 1e-4  # the schedule's peak
    schedule: str = "linear"  # linear, cosine, constant, wsd (warmup, stable, 1-sqrt decay)
    warmup_steps: int = 10_000
    decay_steps: int = 0  # wsd only: the steps of the final decay
    decay_power: float = 1.0  # linear only: the line to this power; under 1 it stays high for longer
    final_fraction: float = 0.0  # of the peak, where the decay ends
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    bias_correction: bool = False
    weight_decay: float = 0.01  # not for biases and LayerNorm
    clip_norm: float = 1.0  # global gradient norm; 0 does not clip
    state_dtype: str = "float32"  # of both moments between steps; bfloat16 halves them


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """What a student learns from a trained model beside its own task. The weights are DistilBERT's."""

    teacher: str = ""  # a workdir, checkpoint or exported folder; none: no distillation
    initialize: bool = True  # start from the teacher's embeddings, head and evenly chosen layers
    temperature: float = 2.0  # of both models' scores
    soft_weight: float = 5.0  # of the divergence from the teacher's scores of masked tokens
    masked_lm_weight: float = 2.0
    cosine_weight: float = 1.0  # of the angle between both models' states


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh; one may be -1, which takes all that are left.

    Outermost first: neighbouring devices have the fastest links, and tensor parallelism talks most.
    """

    data: int = -1  # replicas of everything, which share the batch
    fsdp: int = 1  # these share the batch as well, and store a part of parameters and optimizer state each
    sequence: int = 1  # each computes a stretch of every sequence
    tensor: int = 1  # each computes some heads, MLP columns and vocabulary entries


@dataclasses.dataclass(frozen=True)
class LayoutConfig:
    """How the same mathematics is laid out on the machine."""

    unroll: int = 1  # layers a scan step; num_hidden_layers unrolls them all
    remat: str = "none"  # what the backward pass computes again to save memory: none, bert, dots, full
    accumulation: int = 1  # parts of a batch that a step computes one after the other
    attention: str = "auto"  # xla (the plain path), cudnn (NVIDIA), splash (TPU); auto: what is there and can do it


@dataclasses.dataclass(frozen=True)
class Config:
    """A pre-training run."""

    corpus: str = _free("")  # its fingerprint is checked instead of its path
    seed: int = 0
    init_from: str = ""  # a workdir, checkpoint or exported folder whose parameters training starts from
    phases: tuple[Phase, ...] = (
        Phase(steps=900_000, length=128, batch=256),
        Phase(steps=100_000, length=512, batch=256),
    )
    next_sentence: bool = True  # pairs of segments, of which half do not belong together
    sentence_order: bool = False  # pairs of segments, of which half are exchanged (ALBERT), in place of next_sentence
    full_sentences: bool = False  # without pairs: rows of whole sentences, on across documents (RoBERTa)
    short_sequences: float = 0.1  # share of examples with a random shorter length
    packing: int = 0  # sequences that share a row, at most, without seeing each other; 0: a row holds one, padded
    dtype: str = "auto"  # of the computation; auto: bfloat16 on accelerators, float32 on CPU
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    masking: MaskingConfig = dataclasses.field(default_factory=MaskingConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    distillation: DistillationConfig = dataclasses.field(default_factory=DistillationConfig)
    mesh: MeshConfig = _free(MeshConfig())  # noqa: RUF009
    layout: LayoutConfig = _free(LayoutConfig())  # noqa: RUF009
    log_every: int = _free(100)  # steps
    eval_every: int = _free(10_000)  # steps; always at the end as well; 0: only there
    eval_sequences: int = _free(10_000)  # held-out sequences an evaluation, at most
    checkpoint_every: int = _free(5_000)  # steps; always at the end and on SIGTERM as well
    keep_last: int = _free(3)  # checkpoints
    keep_every: int = _free(0)  # steps; these checkpoints are kept for good
    reader_threads: int = _free(2)
    profile_steps: tuple[int, ...] = _free(())  # (first, last), counted from 1: a profiler trace of these steps

    @property
    def pairs(self) -> str:
        """The task of pairs: "next_sentence", "sentence_order", or "" for none."""
        return next((task for task in PAIR_TASKS if getattr(self, task)), "")

    @property
    def sequencing(self) -> Sequencing:
        """How documents are cut into sequences."""
        return Sequencing(self.pairs, self.short_sequences, self.full_sentences, self.packing)

    @property
    def total_steps(self) -> int:
        """Steps of all phases together."""
        return sum(phase.steps for phase in self.phases)

    def locate(self, step: int) -> tuple[int, int]:
        """The (phase index, step within the phase) of global step `step`, counted from 0."""
        for index, phase in enumerate(self.phases):
            if step < phase.steps:
                return index, step
            step -= phase.steps
        raise ValueError(f"step lies {step} behind the last phase")


def default_config(kind: type | None = None) -> Any:
    """Every key of a Config, or of `kind`, with its default: a locked ConfigDict for config files to start from."""
    from ml_collections import ConfigDict

    return ConfigDict(to_dict((kind or Config)())).lock()


def to_dict(config: Any) -> dict[str, Any]:
    """The plain nested dict of a config (tuples stay tuples), as `config.json` holds it."""
    return dataclasses.asdict(config)


def from_config_dict(config_dict: Any) -> Config:
    """The checked Config of a ConfigDict or plain dict.

    Raises:
      UserError: an unknown key (the nearest known one is named), a value of another type or out of range.
    """
    values = config_dict.to_dict() if hasattr(config_dict, "to_dict") else config_dict
    config = build(Config, values, "config")
    validate(config)
    return config


def build(cls: type, values: Any, path: str) -> Any:
    """A dataclass `cls` from a nested dict; `path` is how messages name it.

    Raises:
      UserError: an unknown key (the nearest known one is named), a missing one, a value of another type.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{path} is {values!r}; it must be a dict with keys {', '.join(_names(cls))}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for name in values:
        if name not in fields:
            nearest = difflib.get_close_matches(str(name), fields, n=1, cutoff=0)
            raise UserError(f"unknown key {path}.{name}; did you mean {path}.{nearest[0]}?")
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; it needs {', '.join(_names(cls))}")
    return cls(**{name: _convert(fields[name].type, value, f"{path}.{name}") for name, value in values.items()})


def _convert(kind: Any, value: Any, path: str) -> Any:
    """`value` as a field of type `kind`."""
    if kind == tuple[Phase, ...]:
        if not isinstance(value, (tuple, list)):
            raise UserError(f"{path} is {value!r}; it must be a tuple of dicts with {', '.join(_names(Phase))}")
        return tuple(build(Phase, phase, f"{path}[{i}]") for i, phase in enumerate(value))
    if kind in (tuple[int, ...], tuple[float, ...]):
        items = kind.__args__[0]
        if not isinstance(value, (tuple, list)) or any(type(item) not in (int, items) for item in value):
            raise UserError(f"{path} is {value!r}; it must be a tuple of {'whole ' * (items is int)}numbers")
        return tuple(map(items, value))
    if dataclasses.is_dataclass(kind):
        return build(kind, value, path)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        raise UserError(f"{path} is {value!r}; it must be of type {kind.__name__}")
    return value


def _names(cls: type) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]


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


def resume_conflict(saved: Config, new: Config, step: int) -> str | None:
    """Names the first key that changes the mathematics of a run resumed at `step`, or None.

    Fields marked free may change; of the phases, what lies before `step` may not.
    """
    for field in dataclasses.fields(Config):
        if field.metadata.get("free") or field.name == "phases":
            continue
        conflict = _difference(getattr(saved, field.name), getattr(new, field.name), field.name)
        if conflict:
            return conflict
    if _history(saved, step) != _history(new, step):
        return f"phases (of the {step} steps that are done)"
    return None


def _difference(saved: Any, new: Any, path: str) -> str | None:
    if dataclasses.is_dataclass(saved):
        for field in dataclasses.fields(saved):
            conflict = _difference(getattr(saved, field.name), getattr(new, field.name), f"{path}.{field.name}")
            if conflict:
                return conflict
        return None
    return None if saved == new else f"{path} (was {saved!r}, now {new!r})"


def _history(config: Config, step: int) -> list[Phase]:
    """The phases as far as `step`."""
    history = []
    for phase in config.phases:
        if step > 0:
            history.append(dataclasses.replace(phase, steps=min(step, phase.steps)))
        step -= phase.steps
    return history
