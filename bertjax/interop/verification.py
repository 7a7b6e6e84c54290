"""Compares a model with what `transformers` computes from a Hugging Face folder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bertjax.checkpoints.pretrained import Pretrained
from bertjax.config.model import ModelConfig
from bertjax.errors import UserError
from bertjax.interop import configs
from bertjax.interop.families import FAMILIES
from bertjax.interop.hard_lines import hard_lines
from bertjax.model.pretraining import PretrainingModel, pairs_of
from bertjax.tasks.encoding import EncodedExample, padded_inputs
from bertjax.tasks.kinds.catalog import kind_named
from bertjax.tasks.metadata import TaskMetadata
from bertjax.text.tokenizer import Tokenizer

# The parity law's bound on differences of scores, in f32: of the largest score, or of 1 where that is larger.
TOLERANCE = 1e-4
# Tokens of the longest row, four of ModernBERT's windows: local attention is computed in blocks.
_LENGTH = 512
_LINES = 3000  # whose ids are compared
_VECTORS = 200  # lines whose vectors are compared

Embed = Callable[[list[str]], np.ndarray]

_SENTENCES = (
    "The old man went to the harbour every morning.",
    "He bought 3.5 kg of fish, and his wife laughed about it!",
    "Rain.",
)


def verify(model: Pretrained, folder: str | Path, embed: Embed | None = None) -> str:
    """Compares the ids of hard lines, and states and scores on a few padded texts; one line with what was found.

    Of a model that is fine-tuned the scores of its task. Heads that the folder lacks are not compared. Where the folder
    says how texts become vectors, those of hard lines are compared with what `embed` gives, if it is given: texts →
    [texts, width].
    Needs `transformers` and `torch`, and for vectors `sentence_transformers`.

    Raises:
      UserError: a line gets other ids, or a difference is above TOLERANCE.
    """
    lines = _compare_ids(model.tokenizer, Path(folder))
    found = [f"ids of {lines:,} lines are equal"]
    if embed and gives_vectors(folder):
        found.append(_compare_vectors(model.tokenizer, folder, embed))
    if not (model.task and kind_named(model.task.kind).bi_encoder):
        found.append(_compare_scores(model, folder))
    return "; ".join(found)


def gives_vectors(folder: str | Path) -> bool:
    """Whether a Hugging Face folder says how texts become vectors."""
    return (Path(folder) / "modules.json").is_file()


def _compare_scores(model: Pretrained, folder: str | Path) -> str:
    batch = sample(model.config.model, model.tokenizer)
    ours = run_ours(model.config.model, model.params, batch, model.task)
    theirs = run_transformers(folder, batch, model.task)
    real = batch["attention_mask"] != 0
    differences = {}
    for name, values in theirs.items():
        rows = real if values.ndim == 3 else slice(None)  # what stands at the padding means nothing
        largest = max(1, np.max(np.abs(values[rows])))
        differences[name] = float(np.max(np.abs(ours[name][rows] - values[rows])) / largest)
    text = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    if not all(value <= TOLERANCE for value in differences.values()):  # also where one is NaN
        raise UserError(
            f"the scores differ from transformers' by more than {TOLERANCE} of the largest: {text}; do not use the "
            "result"
        )
    return f"largest difference from transformers, relative: {text}"


def _compare_vectors(tokenizer: Tokenizer, folder: str | Path, embed: Embed) -> str:
    import sentence_transformers

    lines = [line for line in _plain_lines(tokenizer, _VECTORS) if line.strip()]
    theirs = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(lines, show_progress_bar=False)
    difference = float(np.max(np.abs(embed(lines) - theirs)) / max(1, np.max(np.abs(theirs))))
    if not difference <= TOLERANCE:
        raise UserError(
            f"the vectors differ from sentence-transformers' by {difference:.1e} of the largest number, more than "
            f"{TOLERANCE}; do not use the result"
        )
    return f"largest difference of {len(lines)} vectors from sentence-transformers, relative: {difference:.1e}"


def _plain_lines(tokenizer: Tokenizer, count: int = _LINES) -> list[str]:
    """Hard lines without names of special tokens, which are text in bertjax and the tokens in `transformers`."""
    names = [tokenizer.id_to_token(number) for number in tokenizer.special_ids]
    return [line for line in hard_lines(count) if not any(name in line for name in names)]


def _compare_ids(tokenizer: Tokenizer, folder: Path) -> int:
    """Compares the ids of `hard_lines`; returns how many lines they are.

    Raises:
      UserError: a line gets other ids.
    """
    theirs = _quiet_transformers().AutoTokenizer.from_pretrained(folder)
    lines = _plain_lines(tokenizer)
    found = theirs(lines, add_special_tokens=False)["input_ids"]
    differing = [
        line for line, ours, other in zip(lines, tokenizer.encode_batch(lines), found, strict=True) if ours != other
    ]
    if differing:
        raise UserError(
            f"transformers gives other ids than bertjax for {len(differing):,} of {len(lines):,} lines by the "
            f"tokenizer of {folder}, for one {differing[0][:60]!r}; do not use the result: see that its "
            "tokenizer_config.json names the class and the case that the model was trained with"
        )
    return len(lines)


def sample(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    """A fixed batch: [CLS] A [SEP] B [SEP] of pairs of several lengths, padded; every position is scored.

    One fills `_LENGTH`, or as much as the model reads.
    """
    rows, length = [], min(_LENGTH, config.max_position_embeddings)
    long = " ".join(_SENTENCES * (_LENGTH // 16))  # the three have more words than that
    for first, second in zip(_SENTENCES, (long, *_SENTENCES[:2]), strict=True):
        begin = [tokenizer.cls_id, *tokenizer.encode(first), tokenizer.sep_id]
        ids = [*begin, *tokenizer.encode(second), tokenizer.sep_id]
        rows.append(EncodedExample(0, ids[:length], len(begin)))
    shape = (len(rows), max(len(row.input_ids) for row in rows))
    batch = padded_inputs(rows, shape, tokenizer.pad_id)
    batch["token_type_ids"] = np.minimum(batch["token_type_ids"], max(0, config.type_vocab_size - 1))
    return batch | {"masked_lm_positions": np.tile(np.arange(shape[1], dtype=np.int32), (shape[0], 1))}


def run_ours(
    config: ModelConfig,
    params: Mapping[str, Any],
    batch: Mapping[str, np.ndarray],
    task: TaskMetadata | None = None,
) -> dict[str, np.ndarray]:
    """Our outputs, in f32."""
    if task:
        tuned = kind_named(task.kind).model(config, task.labels)
        return jax.device_get(jax.jit(tuned.apply)({"params": params}, dict(batch)))
    model = PretrainingModel(config, pairs_of(params))

    @jax.jit
    def run(params: Any, batch: Any) -> dict[str, jax.Array]:
        variables = {"params": params}
        return model.apply(variables, batch) | {"hidden": model.apply(variables, batch, method="encode")}

    outputs = run(params, dict(batch))
    outputs["masked_lm_logits"] = outputs["masked_lm_logits"][..., : config.vocab_size]
    return jax.device_get(outputs)


def run_transformers(
    folder: str | Path, batch: Mapping[str, np.ndarray], task: TaskMetadata | None = None
) -> dict[str, np.ndarray]:
    """The same outputs from `transformers`, of those heads that the folder holds."""
    import torch

    transformers = _quiet_transformers()
    config, _, _ = configs.read(Path(folder))
    family = FAMILIES[config.model_type]
    kind = kind_named(task.kind) if task else None
    model_class = getattr(transformers, family.class_name(kind, bool(family.pairs)))
    model, info = model_class.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    names = ("input_ids", "attention_mask", *(("token_type_ids",) if config.type_vocab_size else ()))
    arrays = {name: kind.transformers_inputs(batch[name]) if kind else batch[name] for name in names}
    inputs = {name: torch.tensor(array) for name, array in arrays.items()}
    with torch.no_grad():
        outputs = model.eval()(**inputs, output_hidden_states=not task)
    if kind:
        return {"logits": kind.transformers_logits(outputs)}
    missing = tuple(info["missing_keys"])
    found = {"hidden": outputs.hidden_states[-1]}
    if not any(name.startswith(family.masked_lm[0]) for name in missing):
        found["masked_lm_logits"] = outputs["prediction_logits" if family.pairs else "logits"]
    if family.pairs and not any(name.startswith((family.base + family.pooler, family.pair_head)) for name in missing):
        found[f"{family.pairs}_logits"] = outputs[family.pair_logits]
    return {name: value.numpy() for name, value in found.items()}


def _quiet_transformers() -> Any:
    """The library, which alarms where there is nothing to do: what a folder lacks is acted on here."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers
