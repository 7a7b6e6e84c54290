"""Bi-encoders: losses, ranks, training, search, and export to sentence-transformers."""

import dataclasses
import json

import numpy as np
import pytest

from bertjax.config.finetuning import FinetuneConfig, SentenceConfig, TableConfig, TaskDistillationConfig
from bertjax.errors import UserError
from bertjax.finetuning.run import finetune
from bertjax.inference import predictor
from bertjax.interop.huggingface import export_model
from bertjax.interop.loading import load_model
from bertjax.model.sentence import pool
from bertjax.objectives.sentence import retrieval_losses
from bertjax.tasks.examples import ChoiceExample
from bertjax.tasks.kinds.retrieval import ranked
from bertjax.tasks.kinds.similarity import Similarity
from bertjax.tasks.metadata import SentenceMetadata
from tests.support.commands import run
from tests.support.damage import unsealed

NOUNS = ["list", "string", "class", "value"]
VERBS = ["returns", "is", "has", "takes"]


def pairs(count: int, seed: int) -> list[dict]:
    """Random records of two texts, similar if they share a noun, and of a third text about another noun."""
    rng = np.random.default_rng(seed)
    records = []
    for _ in range(count):
        noun, other = rng.permutation(NOUNS)[:2]
        first, second, third = (f"the {subject} {rng.choice(VERBS)} a name" for subject in (noun, noun, other))
        same = bool(rng.integers(2))
        label = {"score": 5 if same else 1, "class": "same" if same else "other"}
        records.append({"text": first, "second": second if same else third, "partner": second, "wrong": third} | label)
    return records


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    for name, count, seed in (("train", 400, 0), ("dev", 60, 1)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, pairs(count, seed))))
    return folder


def config_of(folder, trained, kind: str, **columns) -> FinetuneConfig:
    return FinetuneConfig(
        task=f"table/{kind}",
        data_dir=str(folder),
        table=TableConfig(train="train.jsonl", dev="dev.jsonl", **columns),
        init_from=str(trained),
        learning_rates=(3e-3,),
        epochs=(4,),
        length=24,
        batch=16,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        sentence=SentenceConfig(bi_encoder=kind != "retrieval", lowest=1.0),
    )


@pytest.fixture(scope="module")
def similar(folder, trained, tmp_path_factory):
    """(config, workdir, results) of a sweep on the similarity of texts."""
    config = config_of(folder, trained, "regression", second="second", label="score")
    workdir = tmp_path_factory.mktemp("similar") / "run"
    return config, workdir, finetune(config, workdir)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_pooling_ignores_padding(pooling):
    hidden = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
    mask = np.arange(5) < np.array([[5], [2], [1]])
    pooled = pool(hidden, mask, pooling)
    for row, size in enumerate((5, 2, 1)):
        text = hidden[row, :size]
        expected = {"mean": text.mean(axis=0), "cls": text[0], "max": text.max(axis=0)}[pooling]
        np.testing.assert_allclose(pooled[row], expected, rtol=1e-6)


@pytest.mark.parametrize("texts", [2, 3])
def test_losses_match_pytorch(texts):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(6, texts, 8)).astype(np.float32)
    weights = np.array([1, 1, 1, 1, 0, 0], np.float32)
    real = torch.nn.functional.normalize(torch.tensor(vectors[:4]), dim=-1)
    scores = 20 * real[:, 0] @ real[:, 1:].reshape(-1, 8).T
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(4) * (texts - 1))
    loss = retrieval_losses(vectors, weights, 20.0)[:4].mean()
    assert float(loss) == pytest.approx(expected.item(), rel=1e-5)
    # Similarity: labels from 1 to 5, repeated in each row of an example.
    cosines, labels = rng.uniform(-1, 1, 6).astype(np.float32), rng.uniform(1, 5, 6).astype(np.float32)
    outputs = {"logits": np.repeat(cosines, texts)[:, None]}
    term = Similarity(SentenceConfig(lowest=1.0), texts).terms(outputs, {"labels": labels, "weights": weights})[
        "task_loss"
    ]
    assert float(term.mean()) == pytest.approx(np.mean((cosines - (labels - 1) / 4)[:4] ** 2), rel=1e-5)


def test_ranks_count_the_texts_before_the_right_one():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 3, 6)).astype(np.float32)
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    others = unit[:, 1:].reshape(-1, 6)
    examples = [ChoiceExample("", "", "a", (f"{number} b", f"{number} c"), 0) for number in range(50)]
    for number, prediction in enumerate(ranked(vectors, examples)):
        order = np.argsort(-(others @ unit[number, 0]), kind="stable")
        assert prediction.value == 1 + list(order).index(2 * number)
    # Ties count against the right text, except for equal texts.
    assert [prediction.value for prediction in ranked(np.ones((50, 3, 6)), examples)] == [100] * 50
    equal_texts = [ChoiceExample("", "", "a", ("b", "c"), 0)] * 50
    assert [prediction.value for prediction in ranked(np.ones((50, 3, 6)), equal_texts)] == [51] * 50


def test_cosines_learn_similarity(similar):
    _, workdir, results = similar
    assert results["metric"] == "spearman" and results["best"]["scores"]["dev"]["spearman"] > 70
    metadata = SentenceMetadata("mean", normalize=False, lowest=1.0, highest=5.0)
    assert load_model(workdir).task.sentence == metadata
    scored = run(
        "evaluate",
        f"--checkpoint={workdir}",
        f"--data_dir={similar[0].data_dir}",
        "--dev=dev.jsonl",
    )  # the columns default to those of the training
    assert scored.returncode == 0, scored.stderr
    spearman = json.loads(scored.stdout)["dev"]["spearman"]
    assert spearman == pytest.approx(results["best"]["scores"]["dev"]["spearman"], abs=0.1)  # near ties


def test_a_softmax_over_both_vectors_learns_similarity(folder, trained, tmp_path):
    results = finetune(config_of(folder, trained, "classification", second="second", label="class"), tmp_path / "run")
    assert results["best"]["scores"]["dev"]["accuracy"] > 75


def test_retrieval_finds_partners_among_all_texts(folder, trained, tmp_path):
    config = config_of(folder, trained, "retrieval", second="partner", negative="wrong")
    results = finetune(config, tmp_path / "run")
    scores = results["best"]["scores"]["dev"]
    assert scores["recall@1"] <= scores["recall@5"] <= scores["recall@10"] and scores["mrr"] > 20
    records = [json.loads(line) for line in (tmp_path / "run/predictions/dev.jsonl").open()]
    assert scores["mrr"] == pytest.approx(100 * np.mean([1 / record["rank"] for record in records]))
    again = run("evaluate", f"--checkpoint={tmp_path}/run", f"--data_dir={folder}", "--dev=dev.jsonl")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["dev"]["recall@10"] == pytest.approx(scores["recall@10"], abs=2)  # near ties
    refused = [
        ({"layout": dataclasses.replace(config.layout, accumulation=2)}, "cannot be split into microbatches"),
        ({"features": "last"}, "config.features is not supported for bi-encoders"),
        (
            {"distillation": TaskDistillationConfig(teacher=str(trained))},
            "config.distillation.teacher is not supported for bi-encoders",
        ),
    ]
    for changes, message in refused:
        with pytest.raises(UserError, match=message):
            finetune(dataclasses.replace(config, **changes), tmp_path / "refused")


def test_search_matches_numpy(similar, tmp_path):
    texts = [record["text"] for record in pairs(40, 2)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    result = run(
        "predict",
        "search",
        f"--checkpoint={similar[1]}",
        f"--texts={tmp_path}/texts.txt",
        "--top=10",
        "the list is a name",
    )
    assert result.returncode == 0, result.stderr
    nearest = json.loads(result.stdout)["found"]
    embed = predictor.load_predictor(similar[1], "embed", normalize=True)
    vectors = embed.array([*texts, "the list is a name"])
    expected = np.argsort(-(vectors[:-1] @ vectors[-1]), kind="stable")[:10]
    assert [text["place"] for text in nearest] == expected.tolist()
    assert [text["text"] for text in nearest] == [texts[i] for i in expected]


def test_exports_load_in_sentence_transformers_with_the_same_vectors(similar, tmp_path):
    model = load_model(similar[1])
    export_model(dataclasses.replace(model, sentence=SentenceMetadata("max", normalize=True)), tmp_path / "out")
    unsealed(tmp_path / "out")  # its files are changed below
    modules = json.loads((tmp_path / "out/modules.json").read_text())
    assert [module["type"].rpartition(".")[2] for module in modules] == ["Transformer", "Pooling", "Normalize"]
    settings = json.loads((tmp_path / "out/1_Pooling/config.json").read_text())
    assert settings["pooling_mode_max_tokens"] and not settings["pooling_mode_mean_tokens"]
    # Vectors of transformers, pooled by hand.
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    reference = transformers.AutoModel.from_pretrained(tmp_path / "out").eval()
    texts = ["the list is a name", "a value"]
    with torch.no_grad():
        states = [reference(**tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in texts]
    expected = torch.nn.functional.normalize(torch.stack([state.max(dim=0).values for state in states]), dim=-1)
    ours = predictor.make_predictor(model, "embed", predictor.PredictOptions(pooling="max", normalize=True)).array(
        texts
    )
    np.testing.assert_allclose(ours, expected, atol=1e-5)
    # A model that is loaded from the folder uses its settings.
    back = load_model(tmp_path / "out")
    np.testing.assert_allclose(predictor.make_predictor(back, "embed").array(texts), expected, atol=1e-5)
    unnormalized = predictor.make_predictor(back, "embed", predictor.PredictOptions(normalize=False)).array(texts)
    np.testing.assert_allclose(unnormalized, [state.max(dim=0).values for state in states], atol=1e-4)
    # Texts are truncated to `max_seq_length`; unsupported settings are refused.
    limits = tmp_path / "out/sentence_bert_config.json"
    limits.write_text('{"max_seq_length": 8}')
    back = load_model(tmp_path / "out")
    long = tokenizer("the list is a name " * 3, truncation=True, max_length=8)["input_ids"]
    with torch.no_grad():
        states = reference(torch.tensor([long])).last_hidden_state[0]
    short = torch.nn.functional.normalize(states.max(dim=0).values, dim=0)
    np.testing.assert_allclose(
        predictor.make_predictor(back, "embed").array(["the list is a name " * 3])[0], short, atol=1e-5
    )
    limits.write_text('{"max_seq_length": 24, "do_lower_case": true}')
    with pytest.raises(UserError, match=r"sentence_bert_config\.json: do_lower_case=true is not supported"):
        load_model(tmp_path / "out")
    limits.write_text('{"max_seq_length": 24}')
    # Conversion to either format keeps the settings.
    for name, flags in (("bertjax", ()), ("huggingface", ("--format=huggingface",))):
        converted = run("convert", f"--from={tmp_path}/out", f"--to={tmp_path}/{name}", *flags)
        assert converted.returncode == 0, converted.stderr
        again = load_model(tmp_path / name)
        np.testing.assert_allclose(predictor.make_predictor(again, "embed").array(texts), expected, atol=1e-5)
        assert again.sentence.length == 24
    # Fine-tuning replaces the settings.
    tuned = dataclasses.replace(similar[0], init_from=str(tmp_path / "out"), seeds=(0,), epochs=(1,))
    finetune(tuned, tmp_path / "tuned")
    assert load_model(tmp_path / "tuned").sentence == model.sentence
    # Unknown modules are refused.
    (tmp_path / "out/modules.json").write_text(json.dumps([*modules, modules[-1] | {"type": "x.models.Dense"}]))
    with pytest.raises(
        UserError, match=r"modules\.json: unsupported modules .*x\.models\.Dense\); expected Transformer"
    ):
        load_model(tmp_path / "out")


def test_single_texts_and_other_kinds_are_refused(folder, trained, tmp_path):
    single = config_of(folder, trained, "regression", label="score")
    with pytest.raises(UserError, match="only one text"):
        finetune(single, tmp_path / "single")
    many = dataclasses.replace(single, task="table/multi_label", table=dataclasses.replace(single.table, label="class"))
    with pytest.raises(UserError, match="table/multi_label is multi_label"):
        finetune(many, tmp_path / "many")
