"""Compares a model with what `transformers` computes from a Hugging Face folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bertjax.config.model import ModelConfig
from bertjax.errors import UserError
from bertjax.interop import configs
from bertjax.interop.families import FAMILIES
from bertjax.interop.parameter_map import class_name
from bertjax.model.pretraining import PretrainingModel, pairs_of
from bertjax.tasks.kinds.catalog import kind_named
from bertjax.tasks.metadata import TaskMetadata
from bertjax.text.tokenizer import Tokenizer

# The parity law's bound on a score, absolute, in f32.
TOLERANCE = 1e-4

_SENTENCES = (
    "The old man went to the harbour every morning.",
    "He bought 3.5 kg of fish, and his wife laughed about it!",
    "Rain.",
)


def verify(
    config: ModelConfig,
    params: Mapping[str, Any],
    folder: str | Path,
    tokenizer: Tokenizer,
    task: TaskMetadata | None = None,
) -> str:
    """Compares states and scores on a few padded sentences; one line with the largest difference of each.

    Of a model that is fine-tuned for a `task` the task's scores. Heads that the folder lacks are not compared. Needs
    `transformers` and `torch`.

    Raises:
      UserError: a difference is above TOLERANCE.
    """
    batch = sample(config, tokenizer)
    ours = run_ours(config, params, batch, task)
    theirs = run_transformers(folder, batch, task)
    real = batch["attention_mask"] != 0
    differences = {}
    for name, values in theirs.items():
        each_token = values.ndim == 3  # what stands at the padding means nothing
        mine, values = (ours[name][real], values[real]) if each_token else (ours[name], values)
        differences[name] = float(np.max(np.abs(mine - values)))
    text = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    if not all(value <= TOLERANCE for value in differences.values()):  # also where one is NaN
        raise UserError(f"the scores differ from transformers' by more than {TOLERANCE}: {text}; do not use the result")
    return f"largest difference from transformers: {text}"


def sample(config: ModelConfig, tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    """A fixed batch: [CLS] A [SEP] B [SEP] of sentence pairs of several lengths, padded; every position is scored."""
    rows, types = [], []
    for first, second in zip(_SENTENCES, _SENTENCES[1:] + _SENTENCES[:1], strict=True):
        a, b = tokenizer.encode(first), tokenizer.encode(second)
        row = [tokenizer.cls_id, *a, tokenizer.sep_id, *b, tokenizer.sep_id]
        rows.append(row[: config.max_position_embeddings])
        types.append(
            ([0] * (len(a) + 2) + [max(0, min(1, config.type_vocab_size - 1))] * (len(b) + 1))[: len(rows[-1])]
        )
    length = max(map(len, rows))

    def pad(lists: list[list[int]], value: int) -> np.ndarray:
        return np.array([row + [value] * (length - len(row)) for row in lists], np.int32)

    return {
        "input_ids": pad(rows, tokenizer.pad_id),
        "token_type_ids": pad(types, 0),
        "attention_mask": pad([[1] * len(row) for row in rows], 0),
        "masked_lm_positions": np.tile(np.arange(length, dtype=np.int32), (len(rows), 1)),
    }


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
    import transformers

    # Its report of missing heads is acted on below, and alarms where there is nothing to do.
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    config, _, _ = configs.read(Path(folder))
    family = FAMILIES[config.model_type]
    with_pairs, alone = family.pretraining
    kind = kind_named(task.kind) if task else None
    model_class = getattr(transformers, class_name(config, kind) if kind else with_pairs or alone)
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
    if not any(name.startswith(family.masked_lm["dense"]) for name in missing):
        found["masked_lm_logits"] = outputs["prediction_logits" if with_pairs else "logits"]
    if with_pairs and not any(name.startswith((family.base + family.pooler, family.pair_head)) for name in missing):
        found[f"{family.pairs}_logits"] = outputs[family.pair_logits]
    return {name: value.numpy() for name, value in found.items()}
