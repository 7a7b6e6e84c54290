"""Compares the results of bertjax with those of `transformers` and `sentence-transformers` for the same model."""

import types
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from bertjax.arrays.types import Batch, Params
from bertjax.checkpoints.pretrained import Pretrained
from bertjax.config.model import ModelConfig
from bertjax.data.batch import HostBatch
from bertjax.errors import UserError
from bertjax.interop import configs
from bertjax.interop.families import FAMILIES
from bertjax.interop.hard_lines import hard_lines
from bertjax.model.pretraining import PretrainingModel, pairs_of
from bertjax.tasks.encoding import EncodedExample, padded_inputs
from bertjax.tasks.kinds.catalog import kind_named
from bertjax.tasks.metadata import TaskMetadata
from bertjax.text.tokenizer import Tokenizer

# Largest difference of scores in f32 (the parity law), relative to the largest score, or absolute if that is below 1.
TOLERANCE = 1e-4
# Tokens in the longest row: four of ModernBERT's windows, because local attention is computed in blocks.
_LENGTH = 512
_ID_LINES = 3000
_VECTOR_LINES = 200

Embed = Callable[[list[str]], np.ndarray]

_SENTENCES = (
    "The old man went to the harbor every morning.",
    "He bought 3.5 kg of fish, and his wife laughed about it!",
    "Rain.",
)


def verify(model: Pretrained, folder: str | Path, embed: Embed | None = None) -> str:
    """Compares a model with a Hugging Face folder, and returns the results as one line.

    Compares the token ids of `hard_lines`, and hidden states and scores for a small padded batch: those of the task for
    a fine-tuned model, else those of the pre-training heads that the folder has. For a folder of sentence-transformers
    it also compares the vectors of hard lines. Needs `transformers` and `torch`, and `sentence_transformers` for
    vectors.

    Args:
      model: the model in bertjax.
      folder: the Hugging Face folder.
      embed: texts → vectors [texts, width] in bertjax; None skips the vectors.

    Raises:
      UserError: token ids differ, or scores differ by more than TOLERANCE.
    """
    lines = _compare_ids(model.tokenizer, Path(folder))
    results = [f"ids of {lines:,} lines are equal"]
    if embed and is_sentence_transformer(folder):
        results.append(_compare_vectors(model.tokenizer, folder, embed))
    if not (model.task and kind_named(model.task.kind).bi_encoder):
        results.append(_compare_scores(model, folder))
    return "; ".join(results)


def is_sentence_transformer(folder: str | Path) -> bool:
    """Whether a folder holds a model of `sentence-transformers`."""
    return (Path(folder) / "modules.json").is_file()


def _compare_scores(model: Pretrained, folder: str | Path) -> str:
    batch = sample_batch(model.config.model, model.tokenizer)
    actual = run_bertjax(model.config.model, model.params, batch, model.task)
    expected = run_transformers(folder, batch, model.task)
    mask = batch["attention_mask"] != 0
    differences = {}
    for name, values in expected.items():
        selected = mask if values.ndim == 3 else slice(None)  # outputs per token are undefined at the padding
        largest = max(1, np.max(np.abs(values[selected])))
        differences[name] = float(np.max(np.abs(actual[name][selected] - values[selected])) / largest)
    text = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    if not all(value <= TOLERANCE for value in differences.values()):  # also if one is NaN
        raise UserError(
            f"{folder}: the scores differ from transformers' by more than {TOLERANCE} of the largest ({text}); do not "
            "use the result"
        )
    return f"largest relative difference from transformers: {text}"


def _compare_vectors(tokenizer: Tokenizer, folder: str | Path, embed: Embed) -> str:
    import sentence_transformers

    lines = [line for line in _plain_lines(tokenizer, _VECTOR_LINES) if line.strip()]
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    expected = model.encode(lines, show_progress_bar=False)
    difference = float(np.max(np.abs(embed(lines) - expected)) / max(1, np.max(np.abs(expected))))
    if not difference <= TOLERANCE:
        raise UserError(
            f"{folder}: the vectors differ from sentence-transformers' by {difference:.1e} of the largest number, more "
            f"than {TOLERANCE}; do not use the result"
        )
    return f"largest relative difference of {len(lines)} vectors from sentence-transformers: {difference:.1e}"


def _plain_lines(tokenizer: Tokenizer, count: int = _ID_LINES) -> list[str]:
    """Hard lines without names of special tokens, which are plain text in bertjax and tokens in `transformers`."""
    names = [tokenizer.id_to_token(index) for index in tokenizer.special_ids]
    return [line for line in hard_lines(count) if not any(name in line for name in names)]


def _compare_ids(tokenizer: Tokenizer, folder: Path) -> int:
    """Compares the token ids of `hard_lines`, and returns the number of lines.

    Raises:
      UserError: a line has other ids.
    """
    transformers_tokenizer = _quiet_transformers().AutoTokenizer.from_pretrained(folder)
    lines = _plain_lines(tokenizer)
    expected = transformers_tokenizer(lines, add_special_tokens=False)["input_ids"]
    differing = [
        line for line, ids, other in zip(lines, tokenizer.encode_batch(lines), expected, strict=True) if ids != other
    ]
    if differing:
        raise UserError(
            f"{folder}: the tokenizer gives other ids in transformers than in bertjax for {len(differing):,} of "
            f"{len(lines):,} lines, such as {differing[0][:60]!r}; do not use the result, and check that "
            "tokenizer_config.json names the class and the case that the model was trained with"
        )
    return len(lines)


def sample_batch(config: ModelConfig, tokenizer: Tokenizer) -> HostBatch:
    """Returns a fixed batch of sentence pairs of several lengths, padded, with all positions as prediction positions.

    The longest row has `_LENGTH` tokens, or as many as the model reads.
    """
    rows, length = [], min(_LENGTH, config.max_position_embeddings)
    long = " ".join(_SENTENCES * (_LENGTH // 16))  # the three sentences have more than 16 words
    for text_a, text_b in zip(_SENTENCES, (long, *_SENTENCES[:2]), strict=True):
        segment_a = [tokenizer.cls_id, *tokenizer.encode(text_a), tokenizer.sep_id]
        ids = [*segment_a, *tokenizer.encode(text_b), tokenizer.sep_id]
        rows.append(EncodedExample(0, ids[:length], len(segment_a)))
    shape = (len(rows), max(len(row.input_ids) for row in rows))
    batch = padded_inputs(rows, shape, tokenizer.pad_id)
    batch["token_type_ids"] = np.minimum(batch["token_type_ids"], max(0, config.type_vocab_size - 1))
    return batch | {"masked_lm_positions": np.tile(np.arange(shape[1], dtype=np.int32), (shape[0], 1))}


def run_bertjax(config: ModelConfig, params: Params, batch: HostBatch, task: TaskMetadata | None = None) -> HostBatch:
    """Returns bertjax's outputs by name, in f32."""
    if task:
        tuned = kind_named(task.kind).model(config, task.labels)
        return jax.device_get(jax.jit(tuned.apply)({"params": params}, dict(batch)))
    model = PretrainingModel(config, pairs_of(params))

    @jax.jit
    def run(params: Params, batch: Batch) -> dict[str, jax.Array]:
        variables = {"params": params}
        hidden = model.apply(variables, batch, method="encode")
        return model.apply(variables, batch) | {"hidden": hidden}  # pyright: ignore[reportOperatorIssue]  # not a tuple

    outputs = run(params, dict(batch))
    outputs["masked_lm_logits"] = outputs["masked_lm_logits"][..., : config.vocab_size]
    return jax.device_get(outputs)


def run_transformers(folder: str | Path, batch: HostBatch, task: TaskMetadata | None = None) -> HostBatch:
    """Returns the same outputs of `transformers`, without those of heads that the folder lacks."""
    import torch

    transformers = _quiet_transformers()
    config, _, _ = configs.read_config(Path(folder))
    family = FAMILIES[config.model_type]
    kind = kind_named(task.kind) if task else None
    model_class = getattr(transformers, family.class_name(kind, bool(family.pair_task)))
    model, info = model_class.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    names = ("input_ids", "attention_mask", *(("token_type_ids",) if config.type_vocab_size else ()))
    arrays = {name: kind.transformers_inputs(batch[name]) if kind else batch[name] for name in names}
    inputs = {name: torch.tensor(array) for name, array in arrays.items()}
    with torch.no_grad():
        outputs = model.eval()(**inputs, output_hidden_states=not task)
    if kind:
        return {"logits": kind.transformers_logits(outputs)}
    missing = tuple(info["missing_keys"])
    tensors = {"hidden": outputs.hidden_states[-1]}
    if not any(name.startswith(family.masked_lm[0]) for name in missing):
        tensors["masked_lm_logits"] = outputs["prediction_logits" if family.pair_task else "logits"]
    pair_prefixes = (family.prefix + family.pooler, family.pair_head)
    if family.pair_task and not any(name.startswith(pair_prefixes) for name in missing):
        tensors[f"{family.pair_task}_logits"] = outputs[family.pair_logits]
    return {name: value.numpy() for name, value in tensors.items()}


def _quiet_transformers() -> types.ModuleType:
    """The library, without its progress bars and its warnings about missing heads, which are handled here."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers
