"""End-to-end fine-tuning of published tasks, from small files in the official formats to the final reports."""

import dataclasses
import json
import shutil
import zipfile

import jax
import numpy as np
import pytest

from bertjax.checkpoints import pretrained
from bertjax.config.finetuning import FinetuneConfig, SentenceConfig, TableConfig
from bertjax.errors import UserError
from bertjax.finetuning import evaluation
from bertjax.finetuning.run import finetune, finetune_all
from bertjax.inference import predictor
from bertjax.interop.huggingface import export_model
from bertjax.interop.loading import load_model
from bertjax.tasks import glue, squad_scores
from bertjax.tasks.examples import Answer
from bertjax.tasks.metadata import TaskMetadata
from bertjax.tasks.registry import open_task
from tests.support.commands import assert_refused, run

WORDS = ("the", "returns", "a", "value", "of", "class", "method", "name", "object", "is", "function", "list")
HEADERS = {  # columns before the texts and labels, whose number matters
    "MNLI": [f"c{number}" for number in range(7)],
    "STS-B": [f"c{number}" for number in range(6)],
}
SPLITS = {
    "MNLI": {"train": 8, "dev_matched": 6, "dev_mismatched": 6, "test_matched": 3, "test_mismatched": 4},
}


def text(rng, count: int = 5) -> str:
    return " ".join(rng.choice(WORDS, count))


def write_glue(folder, name: str) -> None:
    """Writes random examples of a task in its official format."""
    spec, rng = glue.TASKS[name], np.random.default_rng(0)
    labels = spec.codes or spec.labels
    task_folder = folder / spec.folders[0]
    task_folder.mkdir()
    for split, count in SPLITS.get(spec.folders[0], {"train": 8, "dev": 6, "test": 3}).items():
        test = split in spec.test
        lines = []
        if split not in spec.headless:
            lines.append([spec.index, *HEADERS.get(spec.folders[0], []), *spec.texts, *([] if test else [spec.label])])
        for number in range(count):
            label = labels[number % len(labels)] if labels else f"{5 * rng.random():.2f}"
            if split in spec.headless:
                lines.append(["gj04", label, "", text(rng)])
            else:
                between = ["x"] * len(HEADERS.get(spec.folders[0], []))
                lines.append([str(number), *between, *(text(rng) for _ in spec.texts), *([] if test else [label])])
        (task_folder / f"{split}.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def glue_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("glue")
    for name in glue.TASKS:
        if name != "ax":
            write_glue(folder, name)
    (folder / "diagnostic").mkdir()
    lines = [f"{number}\tone list\ttwo\n" for number in range(5)]
    (folder / "diagnostic/diagnostic.tsv").write_text("".join(["index\tsentence1\tsentence2\n", *lines]))
    return folder


@pytest.fixture(scope="module")
def config(glue_folder, trained) -> FinetuneConfig:
    return FinetuneConfig(
        task="glue/all",
        data_dir=str(glue_folder),
        init_from=str(trained),
        learning_rates=(1e-3,),
        epochs=(1,),
        length=32,
        batch=4,
    )


def test_all_of_glue_ends_with_the_leaderboard_and_a_submission(config, glue_folder, tmp_path, capsys):
    *tables, leaderboard = finetune_all(config, tmp_path / "run")
    assert len(tables) == len(glue.TASKS) - 1 and not capsys.readouterr().out
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["scores"].keys() == {*glue.AVERAGED, "WNLI"}
    matched = json.loads((tmp_path / "run/mnli/results.json").read_text())["best"]["scores"]["dev_matched"]
    assert results["scores"]["MNLI-m"] == matched["accuracy"]
    assert results["averages"] == glue.averages(results["scores"])
    line = next(line for line in leaderboard.splitlines() if line.startswith("this sweep (dev)"))
    assert [f"{value:.1f}" for value in results["averages"].values()] == line.split()[-2:]
    with zipfile.ZipFile(tmp_path / "run/submission/submission.zip") as archive:
        assert sorted(archive.namelist()) == sorted(f"{column}.tsv" for column in glue.COLUMNS.values())
        ax = archive.read("AX.tsv").decode().splitlines()
    # The model of MNLI predicts the diagnostics.
    predict = predictor.load_predictor(tmp_path / "run/mnli")
    label = predict([("one list", "two")])[0]["label"]
    assert ax == ["index\tprediction", *(f"{number}\t{label}" for number in range(5))]


def test_class_names_may_contain_dollar_signs(table, tmp_path):
    """Matplotlib reads them as the start of a formula."""
    for name in ("train", "dev"):
        (tmp_path / f"{name}.csv").write_text("text,label\na list,under $5_$x\nthe list,100%_$x_$\n")
    finetune(table, tmp_path / "run")
    assert (tmp_path / "run/confusion-dev.png").is_file()


def test_submitted_similarities_of_a_bi_encoder_have_the_scale_of_the_labels(config, tmp_path):
    sentence = SentenceConfig(bi_encoder=True, lowest=1.0, highest=4.0)
    results = finetune(dataclasses.replace(config, task="glue/stsb", sentence=sentence), tmp_path / "run")
    model = predictor.load_predictor(tmp_path / "run")
    examples = open_task("glue/stsb", config.data_dir).read("test")
    vectors = [model.array([getattr(example, name) for example in examples]) for name in ("text", "text_pair")]
    first, second = (array / np.linalg.norm(array, axis=1, keepdims=True) for array in vectors)
    expected = 1 + 3 * np.sum(first * second, axis=1)
    lines = (tmp_path / "run/submission/STS-B.tsv").read_text().splitlines()[1:]
    np.testing.assert_allclose([float(line.split("\t")[1]) for line in lines], np.clip(expected, 0, 5), atol=2e-3)
    task_model = evaluation.open_scoring(load_model(tmp_path / "run"), scoring_config(config), None)
    predictions = task_model.predictions(load_model(tmp_path / "run").params, task_model.split("dev"))
    assert task_model.scores(task_model.split("dev"), predictions) == pytest.approx(results["best"]["scores"]["dev"])
    lines = [json.loads(line) for line in (tmp_path / "run/predictions/dev.jsonl").read_text().splitlines()]
    assert [line["prediction"] for line in lines] == pytest.approx(
        [prediction.value for prediction in predictions], abs=1e-5
    )


def scoring_config(config: FinetuneConfig) -> FinetuneConfig:
    """The config that `evaluate` uses."""
    return FinetuneConfig(data_dir=config.data_dir, batch=4)


def write_questions(path, count: int, seed: int) -> None:
    """Writes random questions, a third of them without an answer."""
    rng = np.random.default_rng(seed)
    paragraphs = []
    for number in range(count):
        passage = text(rng, 60)
        word = rng.choice([word for word in passage.split() if word not in ("a", "the")])  # the metric ignores articles
        answers = [{"text": word, "answer_start": passage.index(word)}] if number % 3 else []
        question = {"id": f"q{number}", "question": f"is it {text(rng, 2)}", "answers": answers}
        paragraphs.append({"context": passage, "qas": [question | {"is_impossible": not answers}]})
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "", "paragraphs": paragraphs}]}))


def test_squad_predictions_match_the_official_script_and_the_saved_model(config, tmp_path):
    write_questions(tmp_path / "train-v2.0.json", 12, 0)
    write_questions(tmp_path / "dev-v2.0.json", 15, 1)
    config = dataclasses.replace(config, task="squad/v2.0", data_dir=str(tmp_path), length=48, stride=16)
    results = finetune(config, tmp_path / "run")
    scores, written = results["best"]["scores"]["dev"], tmp_path / "run/predictions"
    examples = open_task("squad/v2.0", str(tmp_path)).read("dev")
    answers, odds = (json.loads((written / f"dev.{name}").read_text()) for name in ("json", "null_odds.json"))
    predicted = [Answer(answers[example.id], odds[example.id]) for example in examples]
    assert squad_scores.score_v2(examples, predicted) == pytest.approx(scores)

    # dev.jsonl has the scored predictions, which are also those of the saved model.
    lines = [json.loads(line) for line in (written / "dev.jsonl").read_text().splitlines()]
    decided = [Answer(line["prediction"], -1.0) for line in lines]
    rescored = squad_scores.score_v2(examples, decided, threshold=0.0)
    assert (rescored["exact"], rescored["f1"]) == pytest.approx((scores["exact"], scores["f1"]))
    predict = predictor.load_predictor(tmp_path / "run")
    answered = predict([(example.question, example.passage) for example in examples])
    # The threshold equals the odds of a question, whose decision may depend on rounding.
    sure = [abs(odds[example.id] - scores["best_f1_thresh"]) > 1e-4 for example in examples]
    pairs = [(record["answer"], line["prediction"]) for record, line in zip(answered, lines, strict=True)]
    assert all(answer == written for (answer, written), is_sure in zip(pairs, sure, strict=True) if is_sure)
    assert "" in [answer for answer, _ in pairs] and sum(sure) > 10

    # Other data is scored with the threshold of the checkpoint.
    model = load_model(tmp_path / "run")
    assert model.task.threshold == scores["best_f1_thresh"]
    changed = dataclasses.replace(model, task=dataclasses.replace(model.task, threshold=1e9))
    task_model = evaluation.open_scoring(changed, scoring_config(config), None)
    dev = task_model.split("dev")
    assert task_model.scores(dev, task_model.predictions(model.params, dev)) == pytest.approx(
        squad_scores.score_v2(examples, predicted, threshold=1e9)
    )

    # An export has no token limits: the default is all that the model can read.
    export_model(model, tmp_path / "out")
    exported = load_model(tmp_path / "out")
    export_config = dataclasses.replace(scoring_config(config), task="squad/v2.0")
    assert evaluation.open_scoring(exported, export_config, None).limits.length == 64
    assert evaluation.open_scoring(exported, export_config, 40).limits.length == 40


def test_scores_that_are_not_numbers_are_refused(config, tmp_path):
    model = load_model(config.init_from)
    parts = {name: model.params[name] for name in ("embeddings", "encoder", "pooler")}
    head = {"kernel": np.zeros((32, 1), np.float32), "bias": np.ones(1, np.float32)}  # constant output
    task = TaskMetadata("glue/stsb", "regression")
    model = dataclasses.replace(model, params=parts | {"task_head": head}, task=task)
    task_model = evaluation.open_scoring(model, scoring_config(config), 32)
    dev = task_model.split("dev")
    with pytest.raises(UserError, match="glue/stsb: pearson on dev is nan"):
        task_model.scores(dev, task_model.predictions(jax.device_put(model.params), dev))
    broken = jax.tree.map(lambda leaf: leaf * np.nan, model.params)
    with pytest.raises(UserError, match="glue/stsb: the outputs of the model for dev are not finite"):
        task_model.predictions(broken, dev)


def test_dev_labels_that_are_all_equal_are_refused(table, tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na list,1\nthe list,2\n")
    (tmp_path / "dev.csv").write_text("text,label\na list,1\nthe list,1\n")
    with pytest.raises(
        UserError, match=r"dev\.csv, row 2: all labels of dev are 1, but a correlation needs labels that differ"
    ):
        finetune(dataclasses.replace(table, task="table/regression"), tmp_path / "run")
    assert not (tmp_path / "run/runs").exists()


@pytest.fixture
def table(config, tmp_path) -> FinetuneConfig:
    """A sweep on tables."""
    rows = "".join(f"{text(np.random.default_rng(i))},{i % 2}\n" for i in range(8))
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{rows}")
    names = TableConfig(train="train.csv", dev="dev.csv")
    return dataclasses.replace(config, task="table/classification", data_dir=str(tmp_path), table=names)


def test_a_dev_split_is_required(table, tmp_path):
    for names in (TableConfig(train="train.csv"), TableConfig(train="train.csv", test="test.csv")):
        with pytest.raises(
            UserError,
            match=r"table/classification: there is no dev split to select the best run; set config\.table\.dev",
        ):
            finetune(dataclasses.replace(table, table=names), tmp_path / "run")
    (tmp_path / "test.csv").write_text("text,label\na list,\nthe list\n")
    with pytest.raises(UserError, match=r"test\.csv, row 3: 1 cells"):
        finetune(dataclasses.replace(table, table=dataclasses.replace(table.table, test="test.csv")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_workdir_with_other_data_or_another_model_is_refused(table, trained, tmp_path):
    finetune(table, tmp_path / "run")
    dev = tmp_path / "dev.csv"
    dev.write_text(dev.read_text().replace(",1\n", ",0\n", 1))
    again = dataclasses.replace(table, seeds=(0, 1))
    with pytest.raises(UserError, match=r"used other examples or models \(changed: dev\)"):
        finetune(again, tmp_path / "run")
    shutil.copyfile(tmp_path / "test.csv", dev)
    model = load_model(trained)
    pretrained.save(tmp_path / "moved", model)  # the same model in another folder
    moved = dataclasses.replace(again, init_from=str(tmp_path / "moved"))
    assert len(finetune(moved, tmp_path / "run")["runs"]) == 2
    twice = jax.tree.map(lambda leaf: 2 * leaf, model.params)
    pretrained.save(tmp_path / "other", dataclasses.replace(model, params=twice))
    with pytest.raises(UserError, match=r"used other examples or models \(changed: init_from\)"):
        finetune(dataclasses.replace(again, init_from=str(tmp_path / "other")), tmp_path / "run")
    pretrained.save(tmp_path / "model", load_model(trained))
    with pytest.raises(UserError, match="contains a model that is not from a sweep; use a new workdir"):
        finetune(dataclasses.replace(table, init_from=str(tmp_path / "model")), tmp_path / "model")
    assert load_model(tmp_path / "model").step == 8


def test_an_unwritable_output_is_refused_before_anything_is_computed(table, tmp_path):
    finetune(table, tmp_path / "run")
    (tmp_path / "file").write_text("")
    flags = [f"--checkpoint={tmp_path}/run", f"--data_dir={tmp_path}", "--dev=dev.csv"]
    assert_refused(run("evaluate", *flags, f"--output={tmp_path}/file/out"), "cannot be written to", "--output")
    scored = run("evaluate", *flags, f"--output={tmp_path}/out", "--length=40", "--task=table/classification")
    assert scored.returncode == 0, scored.stderr
    records = [json.loads(line) for line in (tmp_path / "out/predictions/dev.jsonl").open()]
    right = np.mean([record["prediction"] == record["label"] for record in records])
    assert json.loads(scored.stdout)["dev"]["accuracy"] == pytest.approx(100 * right)


def test_confusion_matrices_of_many_classes_have_a_limited_size(table, tmp_path):
    for name in ("train", "dev"):
        rows = "".join(f"{text(np.random.default_rng(i))},{i}\n" for i in range(300))
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{rows}")
    finetune(dataclasses.replace(table, batch=100), tmp_path / "run")
    picture = (tmp_path / "run/confusion-dev.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and int.from_bytes(picture[16:20], "big") < 4000
