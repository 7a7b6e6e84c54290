"""Google's TensorFlow checkpoints: equality with the same model from Hugging Face, and messages for damaged files."""

import json
import shutil

import jax
import numpy as np
import pytest

from bertjax import host_tensorflow
from bertjax.errors import UserError
from bertjax.interop import verification
from bertjax.interop.loading import load_model
from tests.support.batches import SMALL
from tests.support.commands import flip_a_bit, run
from tests.support.parity import difference, randomize

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz.,!0123456789", "##a", "##e"]
PREFIX = "bert_model.ckpt"


def google_variables(model) -> dict[str, np.ndarray]:
    """The parameters of a BertForPreTraining with the names and orientation of google-research/bert."""
    variables = {}

    def table(name, parameter):
        variables[name] = parameter.detach().numpy()

    def dense(name, module):
        table(f"{name}/bias", module.bias)
        variables[f"{name}/kernel"] = module.weight.detach().numpy().T

    def norm(name, module):
        table(f"{name}/gamma", module.weight)
        table(f"{name}/beta", module.bias)

    bert, heads = model.bert, model.cls
    for kind in ("word", "position", "token_type"):
        name = f"{kind}_embeddings"
        table(f"bert/embeddings/{name}", getattr(bert.embeddings, name).weight)
    norm("bert/embeddings/LayerNorm", bert.embeddings.LayerNorm)
    for i, layer in enumerate(bert.encoder.layer):
        prefix = f"bert/encoder/layer_{i}"
        for kind in ("query", "key", "value"):
            dense(f"{prefix}/attention/self/{kind}", getattr(layer.attention.self, kind))
        dense(f"{prefix}/attention/output/dense", layer.attention.output.dense)
        norm(f"{prefix}/attention/output/LayerNorm", layer.attention.output.LayerNorm)
        dense(f"{prefix}/intermediate/dense", layer.intermediate.dense)
        dense(f"{prefix}/output/dense", layer.output.dense)
        norm(f"{prefix}/output/LayerNorm", layer.output.LayerNorm)
    dense("bert/pooler/dense", bert.pooler.dense)
    dense("cls/predictions/transform/dense", heads.predictions.transform.dense)
    norm("cls/predictions/transform/LayerNorm", heads.predictions.transform.LayerNorm)
    table("cls/predictions/output_bias", heads.predictions.bias)
    table("cls/seq_relationship/output_weights", heads.seq_relationship.weight)
    table("cls/seq_relationship/output_bias", heads.seq_relationship.bias)
    return variables


def write_checkpoint(prefix, variables: dict[str, np.ndarray]) -> None:
    """Writes a TensorFlow 1 checkpoint."""
    tf = host_tensorflow.load()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, value in variables.items():
            tf.compat.v1.get_variable(name, initializer=tf.constant(value))
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver().save(session, str(prefix))


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    """(Google's folder, Hugging Face folder) with the same random weights."""
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    google, huggingface = tmp_path_factory.mktemp("google"), tmp_path_factory.mktemp("huggingface")
    model = transformers.BertForPreTraining(transformers.BertConfig(**vars(SMALL)))
    randomize(model)
    model.save_pretrained(huggingface)
    variables = google_variables(model)
    slots = {f"{name}/{slot}": value for name, value in variables.items() for slot in ("adam_m", "adam_v")}
    write_checkpoint(google / PREFIX, variables | slots | {"global_step": np.int64(1_000_000)})
    config = vars(SMALL) | {"pooler_type": "first_token_transform", "directionality": "bidi"}
    del config["layer_norm_eps"]  # not in Google's configs
    (google / "bert_config.json").write_text(json.dumps(config))
    for folder in (google, huggingface):
        (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return google, huggingface


def test_checkpoints_score_like_the_same_model_in_transformers(twins, tmp_path):
    google, huggingface = twins
    converted = run("convert", f"--from={google}", f"--to={tmp_path / 'run'}")
    assert converted.returncode == 0, converted.stderr
    case, *progress = converted.stderr.splitlines()
    assert "vocab.txt: assuming an uncased vocabulary" in case
    assert [line.split()[0] for line in progress] == ["wrote", "next:"]
    model = load_model(tmp_path / "run")
    assert model.config.model == SMALL and model.config.next_sentence
    assert model.tokenizer.encode("Abe") == model.tokenizer.encode("abe")  # lower-cased, as the vocabulary is
    batch = verification.sample_batch(SMALL, model.tokenizer)
    actual = verification.run_bertjax(SMALL, model.params, batch)
    expected = verification.run_transformers(huggingface, batch)
    assert set(expected) == {"hidden", "masked_lm_logits", "next_sentence_logits"}
    mask = batch["attention_mask"] == 1
    for name, values in expected.items():
        selected = mask if values.ndim == 3 else slice(None)
        assert difference(actual[name][selected], values[selected]) <= 1, name
    twin = load_model(huggingface)
    assert jax.tree.all(jax.tree.map(np.array_equal, model.params, twin.params))


def test_damaged_checkpoints_are_refused(twins, tmp_path):
    data, index = f"{PREFIX}.data-00000-of-00001", f"{PREFIX}.index"
    damages = {
        "no such file": lambda folder: (folder / data).unlink(),
        "less bytes": lambda folder: (folder / data).write_bytes((folder / data).read_bytes()[:-1000]),
        "checksum": lambda folder: flip_a_bit(folder / data),
        "sstable": lambda folder: (folder / index).write_bytes(b"no index"),
        "tensorflow checkpoint": lambda folder: (folder / index).unlink(),
        "2 tensorflow checkpoints": lambda folder: shutil.copy(folder / index, folder / "model.ckpt-7.index"),
        "no .*config.json": lambda folder: (folder / "bert_config.json").unlink(),
        "lacks bert.encoder.layer.3": lambda folder: reconfigure(folder, num_hidden_layers=4),
        "tokenizer": lambda folder: (folder / "vocab.txt").unlink(),
    }
    for number, (message, damage) in enumerate(damages.items()):
        folder = shutil.copytree(twins[0], tmp_path / str(number))
        damage(folder)
        with pytest.raises(UserError, match=f"(?i){message}") as error:
            load_model(folder)
        assert "\n" not in str(error.value)


def reconfigure(folder, **changes) -> None:
    path = folder / "bert_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
