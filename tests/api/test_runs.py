"""Runs in Python: callbacks, an iterator that is left early, and configs from files."""

import dataclasses
import json

import pytest

import bertjax
from bertjax.checkpoints import store
from bertjax.config.finetuning import FinetuneConfig
from tests.support.commands import TINY_MODEL


def metrics(workdir):
    return (workdir / "metrics.jsonl").read_text()


def test_leaving_the_loop_saves_and_the_next_call_continues_to_the_same_bits(tiny_config, trained, tmp_path):
    """Law 2 for the iterator: left after any event, also between checkpoints."""
    for step in (1, 6):
        for event in bertjax.iter_pretraining(tiny_config, tmp_path / "run"):
            if event.step == step:
                break
        assert store.steps(tmp_path / "run/checkpoints")[-1] >= step  # between the checkpoints of the config, too
    assert bertjax.run_pretraining(tiny_config, tmp_path / "run") == tmp_path / "run"
    assert metrics(tmp_path / "run") == metrics(trained)


def test_callbacks_receive_every_logged_step_and_evaluation(tiny_config, tmp_path):
    events = []
    bertjax.run_pretraining(tiny_config, tmp_path / "run", callbacks=(events.append,))
    assert [event.step for event in events if "train/loss" in event.metrics] == list(range(1, 9))
    assert [event.step for event in events if "eval/mlm_loss" in event.metrics] == [8]
    logged = [json.loads(line) for line in metrics(tmp_path / "run").splitlines()]
    assert [event.metrics["train/loss"] for event in events[:-1]] == [
        x["train/loss"] for x in logged if "train/loss" in x
    ]


def test_a_sweep_reports_its_runs(trained, tmp_path):
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text("text,label\nYou have won!,spam\nSee you at eight,ham\n" * 4)
    config = bertjax.load_config(
        "configs/classify.py",
        {"table.train": "train.csv", "table.dev": "dev.csv"},
        init_from=str(trained),
        data_dir=str(tmp_path),
        length=32,
        epochs=(1,),
        log_every=1,
    )
    assert isinstance(config, FinetuneConfig)
    events = []
    results = bertjax.run_finetuning(config, tmp_path / "mail", callbacks=(events.append,))
    assert {event.run for event in events} == {config.runs()[0].name}
    assert (
        "train/loss" in events[0].metrics
        and events[-1].metrics["dev/accuracy"] == results["best"]["scores"]["dev"]["accuracy"]
    )


def test_configs_are_loaded_with_changes_and_checked(corpus):
    changes = {"optimizer.learning_rate": 3e-4, "phases": ({"steps": 1, "length": 32, "batch": 8},), **TINY_MODEL}
    config = bertjax.load_config("configs/tiny.py", changes, corpus=str(corpus))
    assert (config.optimizer.learning_rate, config.corpus, config.model.hidden_size) == (3e-4, str(corpus), 32)
    assert bertjax.load_config("configs/glue.py:sst2", init_from="x", data_dir="y").task == "glue/sst2"
    assert dataclasses.replace(config, seed=1).seed == 1


@pytest.mark.parametrize(
    ("path", "changes", "message"),
    [
        ("configs/nothing.py", {}, "configs/nothing.py: there is no such file"),
        ("configs/tiny.py:large", {}, "takes no argument"),
        ("configs/tiny.py", {"lr": 1e-4}, "unknown key config.lr; set config.optimizer.learning_rate"),
        ("configs/tiny.py", {"optimizer.rate": 1e-4}, r"did you mean config.optimizer.\w+\?"),
        ("configs/tiny.py", {"optim.rate": 1e-4}, "config has no section optim"),
        ("configs/tiny.py", {"seed": "x"}, "must be of type int"),
        ("configs/tiny.py", {"task": "glue/sst2"}, "unknown key config.task"),
    ],
)
def test_wrong_configs_are_refused(path, changes, message):
    with pytest.raises(bertjax.UserError, match=message):
        bertjax.load_config(path, changes)


def test_the_kind_of_config_is_checked(tiny_config, tmp_path):
    every = bertjax.load_config("configs/glue.py", init_from="x", data_dir="y")
    with pytest.raises(bertjax.UserError, match="call it once per task"):
        bertjax.run_finetuning(every, tmp_path)
    with pytest.raises(bertjax.UserError, match="give a Config"):
        bertjax.iter_pretraining(every, tmp_path)
    with pytest.raises(bertjax.UserError, match=r"config\.corpus is not set"):
        bertjax.iter_batches(dataclasses.replace(tiny_config, corpus=""))
    with pytest.raises(bertjax.UserError, match="give a FinetuneConfig"):
        bertjax.run_finetuning(tiny_config, tmp_path)
