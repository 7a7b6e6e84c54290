"""What a run is: frozen dataclasses with every key and its meaning.

A config file's `get_config()` starts from `default_config()`, which holds every key, and sets what differs. What they
must be is in validation.py; how a config file becomes one in config_dict.py.

The defaults are BERT-Base as published (Devlin et al. 2018, arXiv:1810.04805, appendix A.2).
"""

import dataclasses
import math
from typing import Any

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

    # A workdir, checkpoint or exported folder; none: no distillation. A run knows its teacher by its parameters.
    teacher: str = _free("")
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
            if field.metadata.get("free"):
                continue
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
