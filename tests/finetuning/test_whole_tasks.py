"""Whole fine-tunings of published tasks from small files in their official layout, to what users find in the end."""

import dataclasses
import json
import shutil
import zipfile

import jax
import numpy as np
import pytest

from bertjax.checkpoints import pretrained
from bertjax.config.finetuning import FinetuneConfig, SentenceConfig, Table
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
HEADERS = {  # of the columns before texts and labels, which count
    "MNLI": [f"c{place}" for place in range(7)],
    "STS-B": [f"c{place}" for place in range(6)],
}
SPLITS = {
    "MNLI": {"train": 8, "dev_matched": 6, "dev_mismatched": 6, "test_matched": 3, "test_mismatched": 4},
}


def text(rng, count: int = 5) -> str:
    return " ".join(rng.choice(WORDS, count))


def write_glue(folder, name: str) -> None:
    """Random examples of a task, as its official files hold them."""
    spec, rng = glue.TASKS[name], np.random.default_rng(0)
    labels = spec.codes or spec.labels
    place = folder / spec.folders[0]
    place.mkdir()
    for split, count in SPLITS.get(spec.folders[0], {"train": 8, "dev": 6, "test": 3}).items():
        test = split in spec.test
        rows = []
        if split not in spec.headless:
            rows.append([spec.index, *HEADERS.get(spec.folders[0], []), *spec.texts, *([] if test else [spec.label])])
        for number in range(count):
            label = labels[number % len(labels)] if labels else f"{5 * rng.random():.2f}"
            if split in spec.headless:
                rows.append(["gj04", label, "", text(rng)])
            else:
                between = ["x"] * len(HEADERS.get(spec.folders[0], []))
                rows.append([str(number), *between, *(text(rng) for _ in spec.texts), *([] if test else [label])])
        (place / f"{split}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))


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


def test_all_of_glue_ends_in_the_leaderboard_s_row_and_a_submission(config, glue_folder, tmp_path, capsys):
    finetune_all(config, tmp_path / "run")
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["scores"].keys() == {*glue.AVERAGED, "WNLI"}
    matched = json.loads((tmp_path / "run/mnli/results.json").read_text())["best"]["scores"]["dev_matched"]
    assert results["scores"]["MNLI-m"] == matched["accuracy"]
    assert results["averages"] == glue.averages(results["scores"])
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("this sweep (dev)"))
    assert [f"{value:.1f}" for value in results["averages"].values()] == row.split()[-2:]
    with zipfile.ZipFile(tmp_path / "run/submission/submission.zip") as archive:
        assert sorted(archive.namelist()) == sorted(f"{column}.tsv" for column in glue.COLUMNS.values())
        ax = archive.read("AX.tsv").decode().splitlines()
    # The diagnostics are answered by MNLI's model.
    model = predictor.load(tmp_path / "run/mnli")
    label = model([("one list", "two")])[0]["label"]
    assert ax == ["index\tprediction", *(f"{number}\t{label}" for number in range(5))]


def test_names_of_classes_are_drawn_as_they_are(table, tmp_path):
    """A dollar sign begins a formula elsewhere."""
    for name in ("train", "dev"):
        (tmp_path / f"{name}.csv").write_text("text,label\na list,under $5_$x\nthe list,100%_$x_$\n")
    finetune(table, tmp_path / "run")
    assert (tmp_path / "run/confusion-dev.png").is_file()


def test_similarities_of_a_bi_encoder_are_submitted_on_the_scale_of_the_labels(config, tmp_path):
    sentence = SentenceConfig(bi_encoder=True, lowest=1.0, highest=4.0)
    results = finetune(dataclasses.replace(config, task="glue/stsb", sentence=sentence), tmp_path / "run")
    model = predictor.load(tmp_path / "run")
    examples = open_task("glue/stsb", config.data_dir).read("test")
    vectors = [model.array([getattr(one, name) for one in examples]) for name in ("text", "text_pair")]
    first, second = (array / np.linalg.norm(array, axis=1, keepdims=True) for array in vectors)
    expected = 1 + 3 * np.sum(first * second, axis=1)
    lines = (tmp_path / "run/submission/STS-B.tsv").read_text().splitlines()[1:]
    np.testing.assert_allclose([float(line.split("\t")[1]) for line in lines], np.clip(expected, 0, 5), atol=2e-3)
    again = evaluation.open_scoring(load_model(tmp_path / "run"), config_of(config), None)
    found = again.predictions(load_model(tmp_path / "run").params, again.split("dev"))
    assert again.scores(again.split("dev"), found) == pytest.approx(results["best"]["scores"]["dev"])
    lines = [json.loads(line) for line in (tmp_path / "run/predictions/dev.jsonl").read_text().splitlines()]
    assert [line["prediction"] for line in lines] == pytest.approx([one.value for one in found], abs=1e-5)


def config_of(config: FinetuneConfig) -> FinetuneConfig:
    """What `evaluate` knows."""
    return FinetuneConfig(data_dir=config.data_dir, batch=4)


def write_questions(path, count: int, seed: int) -> None:
    """Of a third nothing in the passage is the answer."""
    rng = np.random.default_rng(seed)
    paragraphs = []
    for number in range(count):
        passage = text(rng, 60)
        word = rng.choice([word for word in passage.split() if word not in ("a", "the")])  # of which nothing is left
        answers = [{"text": word, "answer_start": passage.index(word)}] if number % 3 else []
        asked = {"id": f"q{number}", "question": f"is it {text(rng, 2)}", "answers": answers}
        paragraphs.append({"context": passage, "qas": [asked | {"is_impossible": not answers}]})
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "", "paragraphs": paragraphs}]}))


def test_squad_leaves_what_its_script_takes_and_a_model_that_answers_so(config, tmp_path):
    write_questions(tmp_path / "train-v2.0.json", 12, 0)
    write_questions(tmp_path / "dev-v2.0.json", 15, 1)
    config = dataclasses.replace(config, task="squad/v2.0", data_dir=str(tmp_path), length=48, stride=16)
    results = finetune(config, tmp_path / "run")
    scores, written = results["best"]["scores"]["dev"], tmp_path / "run/predictions"
    examples = open_task("squad/v2.0", str(tmp_path)).read("dev")
    answers, odds = (json.loads((written / f"dev.{name}").read_text()) for name in ("json", "null_odds.json"))
    found = [Answer(answers[one.id], odds[one.id]) for one in examples]
    assert squad_scores.score_v2(examples, found) == pytest.approx(scores)

    # What stands beside each question is what counted, and what the model answers when it is asked.
    lines = [json.loads(line) for line in (written / "dev.jsonl").read_text().splitlines()]
    decided = [Answer(line["prediction"], -1.0) for line in lines]
    counted = squad_scores.score_v2(examples, decided, threshold=0.0)
    assert (counted["exact"], counted["f1"]) == pytest.approx((scores["exact"], scores["f1"]))
    model = predictor.load(tmp_path / "run")
    asked = model([(one.question, one.passage) for one in examples])
    # The threshold is the odds of some question, which rounding may decide in either way.
    sure = [abs(odds[one.id] - scores["best_f1_thresh"]) > 1e-4 for one in examples]
    pairs = [(one["answer"], line["prediction"]) for one, line in zip(asked, lines, strict=True)]
    assert all(answer == written for (answer, written), known in zip(pairs, sure, strict=True) if known)
    assert "" in [answer for answer, _ in pairs] and sum(sure) > 10

    # Other data is scored with the threshold of the checkpoint, not with one tuned on it.
    kept = load_model(tmp_path / "run")
    assert kept.task.threshold == scores["best_f1_thresh"]
    moved = dataclasses.replace(kept, task=dataclasses.replace(kept.task, threshold=1e9))
    setup = evaluation.open_scoring(moved, config_of(config), None)
    assert setup.scores(setup.split("dev"), setup.predictions(kept.params, setup.split("dev"))) == pytest.approx(
        squad_scores.score_v2(examples, found, threshold=1e9)
    )

    # An export does not know the windows: all that the model reads, or what is asked for.
    export_model(kept, tmp_path / "out")
    there = load_model(tmp_path / "out")
    asks = dataclasses.replace(config_of(config), task="squad/v2.0")
    assert evaluation.open_scoring(there, asks, None).limits.length == 64
    assert evaluation.open_scoring(there, asks, 40).limits.length == 40


def test_scores_that_are_not_numbers_are_refused(config, tmp_path):
    model = load_model(config.init_from)
    parts = {name: model.params[name] for name in ("embeddings", "encoder", "pooler")}
    head = {"kernel": np.zeros((32, 1), np.float32), "bias": np.ones(1, np.float32)}  # always says the same
    task = TaskMetadata("glue/stsb", "regression")
    model = dataclasses.replace(model, params=parts | {"task_head": head}, task=task)
    setup = evaluation.open_scoring(model, config_of(config), 32)
    dev = setup.split("dev")
    with pytest.raises(UserError, match="glue/stsb: pearson on dev is nan"):
        setup.scores(dev, setup.predictions(jax.device_put(model.params), dev))
    broken = jax.tree.map(lambda leaf: leaf * np.nan, model.params)
    with pytest.raises(UserError, match="what the model says of dev is not finite"):
        setup.predictions(broken, dev)


def test_numbers_that_are_all_alike_are_no_dev_data(table, tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na list,1\nthe list,2\n")
    (tmp_path / "dev.csv").write_text("text,label\na list,1\nthe list,1\n")
    with pytest.raises(UserError, match=r"dev\.csv, row 2: all labels of dev are 1; correlations need different ones"):
        finetune(dataclasses.replace(table, task="table/regression"), tmp_path / "run")
    assert not (tmp_path / "run/runs").exists()


@pytest.fixture
def table(config, tmp_path) -> FinetuneConfig:
    """A sweep on files of one's own."""
    rows = "".join(f"{text(np.random.default_rng(i))},{i % 2}\n" for i in range(8))
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{rows}")
    names = Table(train="train.csv", dev="dev.csv")
    return dataclasses.replace(config, task="table/classification", data_dir=str(tmp_path), table=names)


def test_without_dev_data_nothing_is_trained(table, tmp_path):
    for names in (Table(train="train.csv"), Table(train="train.csv", test="test.csv")):
        with pytest.raises(UserError, match=r"no dev data to choose the best run by; give table\.dev"):
            finetune(dataclasses.replace(table, table=names), tmp_path / "run")
    (tmp_path / "test.csv").write_text("text,label\na list,\nthe list\n")
    with pytest.raises(UserError, match=r"test\.csv, row 3: 1 cells"):
        finetune(dataclasses.replace(table, table=dataclasses.replace(table.table, test="test.csv")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_workdir_keeps_to_its_examples_and_no_model_is_overwritten(table, trained, tmp_path):
    finetune(table, tmp_path / "run")
    dev = tmp_path / "dev.csv"
    dev.write_text(dev.read_text().replace(",1\n", ",0\n", 1))
    again = dataclasses.replace(table, seeds=(0, 1))
    with pytest.raises(UserError, match=r"had others \(dev\)"):
        finetune(again, tmp_path / "run")
    shutil.copyfile(tmp_path / "test.csv", dev)
    model = load_model(trained)
    pretrained.save(tmp_path / "moved", model)  # the same model elsewhere is the same
    moved = dataclasses.replace(again, init_from=str(tmp_path / "moved"))
    assert len(finetune(moved, tmp_path / "run")["runs"]) == 2
    twice = jax.tree.map(lambda leaf: 2 * leaf, model.params)
    pretrained.save(tmp_path / "other", dataclasses.replace(model, params=twice))
    with pytest.raises(UserError, match=r"had others \(init_from\)"):
        finetune(dataclasses.replace(again, init_from=str(tmp_path / "other")), tmp_path / "run")
    pretrained.save(tmp_path / "model", load_model(trained))
    with pytest.raises(UserError, match="holds a model that no sweep made; give a new --workdir"):
        finetune(dataclasses.replace(table, init_from=str(tmp_path / "model")), tmp_path / "model")
    assert load_model(tmp_path / "model").step == 8


def test_what_cannot_be_written_is_said_before_anything_is_computed(table, tmp_path):
    finetune(table, tmp_path / "run")
    (tmp_path / "file").write_text("")
    flags = [f"--checkpoint={tmp_path}/run", f"--data_dir={tmp_path}", "--dev=dev.csv"]
    assert_refused(run("evaluate", *flags, f"--output={tmp_path}/file/out"), "cannot be written to", "--output")
    found = run("evaluate", *flags, f"--output={tmp_path}/out", "--length=40", "--task=table/classification")
    assert found.returncode == 0, found.stderr
    records = [json.loads(line) for line in (tmp_path / "out/predictions/dev.jsonl").open()]
    right = np.mean([record["prediction"] == record["label"] for record in records])
    assert json.loads(found.stdout)["dev"]["accuracy"] == pytest.approx(100 * right)


def test_confusions_of_many_classes_are_still_a_picture(table, tmp_path):
    for name in ("train", "dev"):
        rows = "".join(f"{text(np.random.default_rng(i))},{i}\n" for i in range(300))
        (tmp_path / f"{name}.csv").write_text(f"text,label\n{rows}")
    finetune(dataclasses.replace(table, batch=100), tmp_path / "run")
    picture = (tmp_path / "run/confusion-dev.png").read_bytes()
    assert picture.startswith(b"\x89PNG") and int.from_bytes(picture[16:20], "big") < 4000
