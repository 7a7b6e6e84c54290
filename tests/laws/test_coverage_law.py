"""Law 6: every parameter matches exactly one rule for sharding, weight decay, layer and Muon; no catch-all."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from bertjax.arrays.trees import named_leaves
from bertjax.config.model import DenseLayer, ModelConfig
from bertjax.config.pretraining import Config, Phase
from bertjax.errors import UserError
from bertjax.interop import families
from bertjax.model import partitioning
from bertjax.model.finetuning import FinetuningModel
from bertjax.model.partitioning import PARAMETER_RULES, Rule, decay_mask, layers_above, parameter_rule
from bertjax.model.pretraining import PretrainingModel
from bertjax.model.sentence import SentenceModel, VectorLayers
from bertjax.optimizers.muon import optimizer_labels
from bertjax.parallel.sharding import MESH_AXES
from bertjax.pretraining import build
from tests.support.batches import FAMILIES

CONFIG = Config(
    model=ModelConfig(vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16),
    phases=(Phase(1, 16, 2),),
)


class WithDenseLayers(SentenceModel):
    """A sentence model with dense layers after pooling."""

    def setup(self):
        super().setup()
        self.sentence_dense = VectorLayers(self.config, (DenseLayer(6, "tanh"), DenseLayer(4, "relu")))

    def __call__(self, batch, dropout_keys=None):
        return self.sentence_dense(super().__call__(batch, dropout_keys)["vectors"])


VARIANTS = {
    "pre-training": build.make_objective(CONFIG).model,
    "pre-training without next_sentence": build.make_objective(dataclasses.replace(CONFIG, next_sentence=False)).model,
    "fine-tuning on [CLS]": FinetuningModel(CONFIG.model, 3, True),
    "fine-tuning on all tokens": FinetuningModel(CONFIG.model, 3, False),
    "bi-encoder": SentenceModel(CONFIG.model, 3),
    "bi-encoder with dense layers": WithDenseLayers(CONFIG.model),
    "features of all layers": FinetuningModel(CONFIG.model, 3, True, features="weighted_sum"),
    **{name: PretrainingModel(shape, families.FAMILIES[name].pair_task) for name, shape in FAMILIES.items()},
    **{f"{name} on all tokens": FinetuningModel(shape, 3, False) for name, shape in FAMILIES.items()},
    "modernbert with biases": PretrainingModel(dataclasses.replace(FAMILIES["modernbert"], use_bias=True), ""),
}


def abstract_params(variant: str) -> dict:
    batch = build.abstract_batch(CONFIG, CONFIG.phases[0])
    return jax.eval_shape(lambda b: VARIANTS[variant].init(jax.random.key(0), b)["params"], batch)


@pytest.mark.parametrize("variant", VARIANTS)
def test_coverage_law_of_sharding(variant):
    """Every parameter has a rule with as many axes as it has dimensions."""
    for name, leaf in named_leaves(abstract_params(variant)).items():
        assert len(parameter_rule(name).axes) == leaf.ndim, name


def test_every_rule_and_axis_is_used():
    names = {name for variant in VARIANTS for name in named_leaves(abstract_params(variant))}
    for rule in PARAMETER_RULES:
        assert any(re.fullmatch(rule.pattern, name) for name in names), rule
    assert {axis for name in names for axis in parameter_rule(name).axes} | {"batch", "length"} == set(MESH_AXES)


def test_two_rules_for_a_parameter_are_refused(monkeypatch):
    monkeypatch.setattr(
        partitioning, "PARAMETER_RULES", (*PARAMETER_RULES, Rule(r"pooler/kernel", ("embed", "small"), decay=True))
    )
    with pytest.raises(ValueError, match="optimizer/mu/pooler/kernel: 2 parameter rules match"):
        parameter_rule("optimizer/mu/pooler/kernel")


@pytest.mark.parametrize("variant", VARIANTS)
def test_coverage_law_of_weight_decay(variant):
    """LayerNorms, biases and mixtures do not decay, all other parameters do."""
    params = abstract_params(variant)
    decisions = named_leaves(decay_mask(params))
    for name, decays in decisions.items():
        assert decays == (not re.search("bias|norm|mixture", name)), name
    assert set(decisions.values()) == {True, False}
    assert {rule.decay for rule in PARAMETER_RULES} == {True, False}


@pytest.mark.parametrize("variant", VARIANTS)
def test_coverage_law_of_muon(variant):
    """Muon trains exactly the matrices of layers, each [layers, in, out]."""
    params = abstract_params(variant)
    decisions = named_leaves(optimizer_labels(params))
    for name, kind in decisions.items():
        assert (kind == "muon") == (name.startswith("encoder/") and name.endswith("/kernel")), name
    assert all(leaf.ndim == 3 for name, leaf in named_leaves(params).items() if decisions[name] == "muon")
    assert set(decisions.values()) == {"muon", "adamw"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_coverage_law_of_layers(variant):
    """Every stacked parameter has one layer per repeat; together they cover all layers."""
    config, covered = VARIANTS[variant].config, set()
    for name, leaf in named_leaves(abstract_params(variant)).items():
        above = layers_above(name, config)
        if isinstance(above, list):
            assert len(above) == leaf.shape[0], name
            covered.update(above)
        else:
            assert above == (config.num_hidden_layers + 1 if name.startswith("embeddings/") else 0), name
    shared = config.num_hidden_groups
    step = config.num_hidden_layers // shared if shared else 1
    assert covered == set(range(1, config.num_hidden_layers + 1, step))


@pytest.mark.parametrize("decision", [parameter_rule, lambda name: decay_mask({name: jnp.zeros(2)})])
def test_a_parameter_without_a_rule_is_an_error(decision):
    with pytest.raises(UserError, match="mystery: no rule for this parameter"):
        decision("mystery")
