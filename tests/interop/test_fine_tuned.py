"""Export and import of fine-tuned models: class, labels and scores of each kind of task in `transformers`."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from bertjax.checkpoints import pretrained
from bertjax.config.model import ModelConfig
from bertjax.errors import UserError
from bertjax.inference.fill_mask import FillMask
from bertjax.inference.runner import PredictOptions
from bertjax.interop import families, verification
from bertjax.interop.huggingface import export_model, import_model
from bertjax.interop.loading import load_model
from bertjax.pretraining import build
from bertjax.tasks.kinds.catalog import kind_named
from bertjax.tasks.metadata import TaskMetadata
from tests.support.batches import FAMILIES, SMALL, random_batch
from tests.support.damage import unsealed
from tests.support.models import from_parts
from tests.support.parity import assert_attention_is_sharp, difference, random_params

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##a"]
TASKS = {
    "classification": ["not_entailment", "entailment", "möglich"],
    "multi_label": ["anger", "joy", "surprise", "fear"],
    "regression": [],
    "choice": [],
    "tagging": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
    "span": [],
}


def make_task(kind: str) -> TaskMetadata:
    return TaskMetadata("mine", kind, tuple(TASKS[kind]))


def make_params(task: TaskMetadata, config: ModelConfig = SMALL) -> dict:
    return random_params(kind_named(task.kind).model(config, task.labels))


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return folder


@pytest.fixture
def export(tokenizer_folder, tmp_path):
    """A function that exports a model of a kind of task and returns the folder."""

    def write(kind: str, config: ModelConfig = SMALL):
        task = make_task(kind)
        export_model(from_parts(config, make_params(task, config), tokenizer_folder, task), tmp_path / kind)
        return unsealed(tmp_path / kind)

    return write


def reconfigure(folder, **changes) -> None:
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value != "absent"}))


# The kinds with their own class in `transformers`.
OTHER_FAMILIES = [
    (family, kind)
    for family in FAMILIES
    if family != "bert"
    for kind in ("classification", "choice", "tagging", "span")
]


@pytest.mark.parametrize(("family", "kind"), [*(("bert", kind) for kind in TASKS), *OTHER_FAMILIES])
def test_exports_score_equally_in_transformers_and_round_trip(family, kind, export, tmp_path):
    transformers = pytest.importorskip("transformers")
    shape = FAMILIES[family]
    folder = export(kind, shape)
    model, info = getattr(transformers, families.FAMILIES[family].class_name(kind_named(kind))).from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info.values()), info
    if TASKS[kind]:
        assert model.config.id2label == dict(enumerate(TASKS[kind]))
        assert model.config.label2id == {label: i for i, label in enumerate(TASKS[kind])}
    batch = random_batch(shape, 5, 31, 4)
    assert_attention_is_sharp(model, batch)
    expected = verification.run_transformers(folder, batch, make_task(kind))["logits"]
    actual = verification.run_bertjax(shape, make_params(make_task(kind), shape), batch, make_task(kind))["logits"]
    assert actual.shape == expected.shape
    selected = batch["attention_mask"] == 1 if actual.ndim == 3 else slice(None)
    assert difference(actual[selected], expected[selected]) <= 1
    model.save_pretrained(tmp_path / "again")
    config, params, task, _ = import_model(tmp_path / "again")
    assert (config, task) == (shape, make_task(kind))
    assert jax.tree.all(jax.tree.map(np.array_equal, params, make_params(task, shape)))


def test_problem_type_determines_the_kind_of_a_classifier(export):
    """Incomplete configs follow the defaults of `transformers`, without names of the labels and the task."""
    folder = export("classification")
    absent = dict.fromkeys(("id2label", "label2id", "problem_type", "finetuning_task"), "absent")
    reconfigure(folder, **absent, num_labels=3)
    labels = ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert import_model(folder)[2] == TaskMetadata("", "classification", tuple(labels))
    folder = export("regression")
    reconfigure(folder, problem_type="absent")
    assert import_model(folder)[2] == make_task("regression")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id2label": {"0": "a", "2": "b"}}, "id2label"),
        ({"id2label": {"0": "a", "1": "b"}}, r"classifier.weight has shape \(3, 24\).* says \(2, 24\)"),
        ({"problem_type": "ranking"}, "problem_type='ranking'"),
        ({"problem_type": "regression"}, "regression with 3 outputs"),
        ({"architectures": "BertModel"}, "architectures: Expected `array | null`, got `str`"),
        ({"architectures": ["BertForQuestionAnswering"]}, "lacks qa_outputs.weight"),
    ],
)
def test_configs_that_contradict_the_weights_are_refused(changes, message, export):
    folder = export("classification")
    reconfigure(folder, **changes)
    with pytest.raises(UserError, match=message) as error:
        import_model(folder)
    assert "\n" not in str(error.value)


def test_checkpoints_of_imported_fine_tuned_models_keep_the_task(export, tmp_path):
    loaded = load_model(export("tagging"))
    assert loaded.task == make_task("tagging")
    pretrained.save(tmp_path / "run", loaded)
    saved = load_model(tmp_path / "run")
    assert saved.task == loaded.task
    export_model(saved, tmp_path / "back")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("tagging", "back"))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_tokenizers_larger_than_the_model_are_refused(export):
    folder = export("regression")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join([*PIECES, *map(str, range(1000))]) + "\n")
    with pytest.raises(UserError, match="the tokenizer has 1008 entries, the model only 97"):
        load_model(folder)


def test_tokenizers_far_smaller_than_the_model_are_refused(tmp_path, messages):
    shape = dataclasses.replace(SMALL, vocab_size=300)
    task = make_task("regression")
    export_model(from_parts(shape, make_params(task, shape), task=task), tmp_path / "out")
    unsealed(tmp_path / "out")
    (tmp_path / "out/tokenizer.json").unlink()
    for pieces, remark in ((120, None), (160, "check that it is the model's own"), (300, "")):
        (tmp_path / "out/vocab.txt").write_text("\n".join([*PIECES, *map(str, range(pieces - len(PIECES)))]) + "\n")
        messages.clear()
        if remark is None:
            with pytest.raises(UserError, match="has 120 entries, less than half of the model's 300"):
                load_model(tmp_path / "out")
        else:
            load_model(tmp_path / "out")
            assert any("entries" in line and remark in line for line in messages) == bool(remark)


def test_verification_compares_the_scores_of_the_task(export):
    pytest.importorskip("transformers")
    folder = export("span")
    model = load_model(folder)
    assert "logits" in verification.verify(model, folder)
    path = folder / "tokenizer_config.json"
    written = path.read_text()
    path.write_text(written.replace('"do_lower_case": true', '"do_lower_case": false'))
    with pytest.raises(
        UserError, match=r"span: the tokenizer gives other ids in transformers than in bertjax for .* of 2,999 lines"
    ):
        verification.verify(model, folder)
    path.write_text(written)
    model.params["task_head"]["bias"][1] += 0.001
    with pytest.raises(UserError, match="scores differ from transformers"):
        verification.verify(model, folder)


def test_verification_covers_several_attention_windows(export):
    pytest.importorskip("transformers")
    config = dataclasses.replace(FAMILIES["modernbert"], max_position_embeddings=600, local_attention=128)
    folder = export("tagging", config)
    model = load_model(folder)
    assert "logits" in verification.verify(model, folder)
    reconfigure(folder, local_attention=126)
    with pytest.raises(UserError, match="scores differ from transformers"):
        verification.verify(model, folder)


def test_fine_tuned_models_are_refused_where_pretraining_heads_are_needed(export):
    model = load_model(export("classification"))
    with pytest.raises(UserError, match="has no heads of pre-training"):
        FillMask(model, PredictOptions())
    config = dataclasses.replace(model.config, init_from=str(model.path))
    with pytest.raises(UserError, match="has no heads of pre-training"):
        build.load_initial_params(config, None, model.tokenizer)


def test_num_labels_takes_precedence_over_an_id2label_of_another_size(export, messages):
    """As in `transformers`, which warns and numbers the labels."""
    folder = export("classification")
    reconfigure(folder, num_labels=3, id2label={"0": "no", "1": "yes"})
    messages.clear()
    assert import_model(folder)[2].labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert any("id2label has 2 names for num_labels=3" in line for line in messages)
    config = pytest.importorskip("transformers").AutoConfig.from_pretrained(folder)
    assert config.id2label == dict(enumerate(import_model(folder)[2].labels))
    reconfigure(folder, num_labels=3, id2label={"0": "a", "1": "b", "2": "c"})
    assert import_model(folder)[2].labels == ("a", "b", "c")
