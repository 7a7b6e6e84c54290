"""Folders of sentence-transformers: equal vectors in both libraries after import and after export."""

import json
import logging
import shutil
import warnings

import numpy as np
import pytest

from bertjax.checkpoints import pretrained
from bertjax.errors import UserError
from bertjax.inference import predictor
from bertjax.interop.huggingface import export_model
from bertjax.interop.loading import load_model
from bertjax.interop.verification import TOLERANCE
from bertjax.pretraining import evaluation
from tests.support.commands import run

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
sentence_transformers = pytest.importorskip("sentence_transformers")

from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer  # noqa: E402

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", *(f"##{x}" for x in "aeinst")]
TEXTS = ["a bat sits", "the east tests it in an instant " * 4, "s", "  x  ", "unten an den seen"]
SHAPE = {"vocab_size": len(PIECES), "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder of `transformers` with large random weights."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = transformers.BertConfig(**SHAPE, intermediate_size=32, max_position_embeddings=64, initializer_range=0.3)
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def save(encoder, folder, *modules, length=32, **options):
    """Saves an encoder with further modules through sentence-transformers, and returns the model it loads again."""
    model = sentence_transformers.SentenceTransformer(
        modules=[Transformer(str(encoder), max_seq_length=length), *modules], device="cpu", **options
    )
    model.save(str(folder))
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


def assert_close(actual, expected):
    assert np.max(np.abs(actual - expected)) <= TOLERANCE * max(1, np.max(np.abs(expected)))


CASES = {
    "mean": (Pooling(24, "mean"),),
    "cls": (Pooling(24, "cls"), Normalize()),
    "max": (Pooling(24, "max"),),
    "dense": (Pooling(24, "mean"), Dense(24, 16), Normalize()),
    "two dense layers": (
        Pooling(24, "cls"),
        Dense(24, 40, activation_function=torch.nn.GELU()),
        Dense(40, 8, bias=False, activation_function=torch.nn.Identity()),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_vectors_are_equal_after_import_and_after_export(encoder, case, tmp_path, caplog):
    reference = save(encoder, tmp_path / "st", *CASES[case])
    model = load_model(tmp_path / "st")
    expected = reference.encode(TEXTS)
    assert_close(predictor.make_predictor(model, "embed").array(TEXTS), expected)
    assert model.sentence.length == 32  # the same truncation of long texts
    pretrained.save(tmp_path / "run", model)
    export_model(load_model(tmp_path / "run"), tmp_path / "out")
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        back = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu")
        vectors = back.encode(TEXTS)
    assert not [record.getMessage() for record in caplog.records if record.name.startswith("sentence_tr")]
    np.testing.assert_array_equal(vectors, expected)
    assert load_model(tmp_path / "out").sentence == model.sentence


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("include", [True, False])
def test_prompts_are_prepended_and_optionally_pooled(encoder, include, pooling, tmp_path):
    prompts = {"query": "tests: ", "passage": "a seat in ", "nothing": ""}
    reference = save(
        encoder, tmp_path / "st", Pooling(24, pooling, include), prompts=prompts, default_prompt_name="query"
    )
    model, texts = load_model(tmp_path / "st"), TEXTS
    assert_close(predictor.make_predictor(model, "embed").array(texts), reference.encode(texts))
    for name in ("passage", "nothing"):
        options = predictor.PredictOptions(prompt=name)
        assert_close(
            predictor.make_predictor(model, "embed", options).array(texts), reference.encode(texts, prompt_name=name)
        )
    results = predictor.make_predictor(model, "search", predictor.PredictOptions(texts=texts, top=len(texts)))(
        ["tin ants"]
    )[0]["found"]
    queries, documents = reference.encode_query(["tin ants"]), reference.encode_document(texts)
    expected = sentence_transformers.util.cos_sim(queries, documents)[0].numpy()
    assert [result["place"] for result in results] == np.argsort(-expected, kind="stable").tolist()
    options = predictor.PredictOptions(texts=texts, top=1, prompt="nothing")
    nearest = predictor.make_predictor(model, "search", options)(["tin ants"])[0]["found"][0]
    plain = sentence_transformers.util.cos_sim(
        *(reference.encode(batch, prompt_name="nothing") for batch in (["tin ants"], texts))
    )
    assert nearest["place"] == int(plain[0].argmax())
    with pytest.raises(UserError, match="no prompt 'none'; choose from document, nothing, passage, query"):
        predictor.make_predictor(model, "embed", predictor.PredictOptions(prompt="none"))
    export_model(model, tmp_path / "out")
    back = sentence_transformers.SentenceTransformer(str(tmp_path / "out"), device="cpu")
    np.testing.assert_array_equal(back.encode(texts), reference.encode(texts))


@pytest.mark.parametrize(
    ("pooling", "mode"),
    [
        ({"word_embedding_dimension": 24, "pooling_mode_max_tokens": True}, "max"),
        ({"word_embedding_dimension": 24, "pooling_mode_mean_tokens": False}, "mean"),
        ({"embedding_dimension": 24, "pooling_mode": ["cls"], "pooling_mode_max_tokens": True}, "cls"),
        ({"embedding_dimension": 24}, "mean"),
    ],
)
def test_older_formats_are_read_as_by_the_library(encoder, pooling, mode, tmp_path):
    save(encoder, tmp_path / "st", Pooling(24, "mean"))
    (tmp_path / "st/1_Pooling/config.json").write_text(json.dumps(pooling))
    (tmp_path / "st/sentence_bert_config.json").unlink()
    (tmp_path / "st/sentence_roberta_config.json").write_text('{"max_seq_length": 12, "do_lower_case": false}')
    model = load_model(tmp_path / "st")
    assert (model.sentence.pooling, model.sentence.length) == (mode, 12)
    reference = sentence_transformers.SentenceTransformer(str(tmp_path / "st"), device="cpu")
    assert_close(predictor.make_predictor(model, "embed").array(TEXTS), reference.encode(TEXTS))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", "{", r"modules\.json: not valid \(not JSON"),
        ("modules.json", "{}", "Expected `array`, got `object`"),
        ("modules.json", '[{"type": "sentence_transformers.models.Transformer", "path": "../x"}]', r"\[0\]\.path"),
        (
            "modules.json",
            '[{"type": "sentence_transformers.models.Transformer"}]',
            r"modules\.json: unsupported modules",
        ),
        (
            "1_Pooling/config.json",
            '{"pooling_mode": "lasttoken"}',
            r"1_Pooling/config\.json: pooling by lasttoken is not supported; expected one of mean, cls, max",
        ),
        ("1_Pooling/config.json", '{"pooling_mode": ["mean", "max"]}', r"pooling by mean \+ max is not supported"),
        ("1_Pooling/config.json", '{"pooling_mode": 3}', "pooling_mode: Expected"),
        ("2_Dense/config.json", '{"in_features": 24, "out_features": 9}', r"linear.weight is \(16, 24\)"),
        ("2_Dense/config.json", '{"in_features": 24, "out_features": 16, "use_residual": true}', "use_residual"),
        ("2_Dense/config.json", '{"in_features": 24, "out_features": 1e300}', "out_features: Expected `int`"),
        ("2_Dense/config.json", '{"in_features": 24, "out_features": 16, "activation_function": "x.Y"}', "activation"),
        ("sentence_bert_config.json", '{"max_seq_length": 0}', "max_seq_length: Expected `int` >= 1"),
        (
            "config_sentence_transformers.json",
            '{"default_prompt_name": "x"}',
            "default prompt 'x' is not one of the prompts",
        ),
        ("config_sentence_transformers.json", '{"prompts": {"x": 3}}', r"prompts\[\.\.\.\]: Expected"),
        ("config_sentence_transformers.json", '{"model_type": "CrossEncoder"}', "model_type"),
    ],
)
def test_unsupported_and_damaged_files_are_refused(encoder, file, content, message, tmp_path):
    save(encoder, tmp_path / "st", Pooling(24, "mean"), Dense(24, 16))
    (tmp_path / "st" / file).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        load_model(tmp_path / "st")
    assert "\n" not in str(error.value)


def test_verify_compares_the_vectors(encoder, tmp_path):
    save(encoder, tmp_path / "st", *CASES["dense"])
    result = run("convert", f"--from={tmp_path / 'st'}", f"--to={tmp_path / 'run'}", "--verify")
    assert result.returncode == 0, result.stderr
    assert "vectors from sentence-transformers: " in result.stdout
    # A different kernel in the dense layer.
    shutil.copytree(tmp_path / "st", tmp_path / "other")
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "other/2_Dense/model.safetensors"
    save_file({name: tensor * 1.01 for name, tensor in load_file(path).items()}, path)
    from bertjax.interop import verification

    embed = predictor.make_predictor(load_model(tmp_path / "st"), "embed").array
    with pytest.raises(UserError, match="the vectors differ from sentence-transformers'"):
        verification.verify(load_model(tmp_path / "st"), tmp_path / "other", embed)


@pytest.fixture(scope="module")
def headless(encoder, tmp_path_factory):
    """A folder of sentence-transformers: an encoder with a pooler, without a masked-LM head."""
    folder = tmp_path_factory.mktemp("headless") / "model"
    save(encoder, folder, Pooling(24, "mean"))
    return folder


def test_a_model_without_a_masked_lm_head_does_not_fill_masks(headless, tmp_path):
    """Also after a conversion to bertjax; vectors and search need no head."""
    pretrained.save(tmp_path / "run", load_model(headless))
    for folder in (headless, tmp_path / "run"):
        model = load_model(folder)
        assert model.untrained_heads == ("masked_lm_head", "next_sentence_head")
        with pytest.raises(UserError, match=r"no masked-LM head .*; train it first \(config\.init_from\), or use"):
            predictor.make_predictor(model, "fill-mask")
        with pytest.raises(UserError, match="supports embed, search, but not classify"):
            predictor.make_predictor(model, "classify")
        with pytest.raises(UserError, match="model has no masked-LM head"):
            evaluation.score(model, tmp_path, 32, 4)
        assert predictor.make_predictor(model, "embed").array(["a bat"]).shape == (1, 24)
    output = run("predict", "fill-mask", f"--checkpoint={headless}", "a [MASK]")
    assert output.returncode == 2 and "no masked-LM head" in output.stderr


def test_a_model_without_heads_is_exported_as_an_encoder(headless, tmp_path, caplog):
    """Bit for bit, with its pooler; both libraries load all of it and find nothing else."""
    pretrained.save(tmp_path / "run", load_model(headless))
    export_model(load_model(tmp_path / "run"), tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["architectures"] == ["BertModel"]
    before, report = transformers.BertModel.from_pretrained(headless, output_loading_info=True)
    after, report = transformers.BertModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(report.values()), report
    assert before.state_dict().keys() == after.state_dict().keys()
    assert all(torch.equal(tensor, after.state_dict()[name]) for name, tensor in before.state_dict().items())
    vectors = [sentence_transformers.SentenceTransformer(str(x), device="cpu") for x in (headless, tmp_path / "out")]
    np.testing.assert_array_equal(*(model.encode(TEXTS) for model in vectors))
    assert load_model(tmp_path / "out").untrained_heads == load_model(headless).untrained_heads
