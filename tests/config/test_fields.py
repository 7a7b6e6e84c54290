"""Every config field has a description, and its allowed values decide which configs are refused."""

import dataclasses
import typing

import pytest

from bertjax.config.fields import Range, setting_of
from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.model import ModelConfig
from bertjax.config.pretraining import Config
from bertjax.config.validation import validate
from bertjax.errors import UserError


def config_classes(cls: type) -> set[type]:
    """`cls` and the dataclasses of its fields, items of tuples included."""
    types = [item for field in dataclasses.fields(cls) for item in (field.type, *typing.get_args(field.type))]
    return {cls}.union(*(config_classes(item) for item in types if dataclasses.is_dataclass(item)))


FIELDS = {
    f"{cls.__name__}.{field.name}": field
    for cls in config_classes(Config) | config_classes(FinetuneConfig)
    for field in dataclasses.fields(cls)
}


def test_every_field_has_a_meaning():
    assert len(FIELDS) > 100 and {"Phase.steps", "TableConfig.label", "MeshConfig.data"} <= FIELDS.keys()
    for name, field in FIELDS.items():
        meaning = setting_of(field).meaning
        assert meaning and meaning == meaning.strip() and meaning.endswith("."), name


def test_every_default_is_allowed():
    for name, field in FIELDS.items():
        allowed = setting_of(field).allowed
        if allowed is not None and field.default is not dataclasses.MISSING:
            for value in field.default if isinstance(field.default, tuple) else (field.default,):
                assert value in allowed, name
    validate(Config())
    validate(FinetuneConfig(task="glue/cola", init_from="runs/base"))


@pytest.mark.parametrize(
    ("allowed", "inside", "outside", "words"),
    [
        (Range(at_least=1), (1, 7), (0, float("nan")), "at least 1"),
        (Range(above=0, at_most=1), (1e-9, 1), (0, 1.1), "above 0 and at most 1"),
        (Range(at_least=0, below=1, special=-1), (-1, 0, 0.9), (-0.5, 1), "-1, or at least 0 and below 1"),
    ],
)
def test_ranges(allowed, inside, outside, words):
    assert all(value in allowed for value in inside) and not any(value in allowed for value in outside)
    assert str(allowed) == words


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("", {"log_every": 0}, "config.log_every is 0; it must be at least 1"),
        ("", {"learning_rates": (1e-3, 0.0)}, "config.learning_rates[1] is 0.0; it must be above 0"),
        ("", {"features": "first"}, "it must be one of '', last, concat_last_4, weighted_sum"),
        ("mesh", {"data": 0}, "config.mesh.data is 0; it must be -1, or at least 1"),
        ("mesh", {"fsdp": -1}, "it must be -1 on one axis at most"),
        ("layout", {"attention_impl": "flash"}, "config.layout.attention_impl is 'flash'; it must be one of auto, xla"),
        (
            "optimizer",
            {"schedule": "wsd"},
            "config.optimizer.schedule is 'wsd'; it must be one of linear, cosine, const",
        ),
        ("sentence", {"lowest": 5.0}, "config.sentence.highest is 5.0; it must be larger than sentence.lowest (5.0)"),
    ],
)
def test_messages_name_the_setting_its_value_and_the_rule(section, change, message):
    config = FinetuneConfig(task="glue/cola", init_from="runs/base")
    change = {section: dataclasses.replace(getattr(config, section), **change)} if section else change
    with pytest.raises(UserError) as error:
        validate(dataclasses.replace(config, **change))
    assert message in str(error.value)


def test_validate_prefixes_names_with_the_path_of_the_section():
    with pytest.raises(UserError, match=r"config\.model\.hidden_size is 0; it must be at least 1"):
        validate(ModelConfig(hidden_size=0), "model.")
