"""Extensions from outside: the files of examples/, run by the commands, and what happens without their module."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bertjax
from bertjax.config.data import MaskingConfig
from bertjax.config.pretraining import Phase
from bertjax.config.registry import Registry, Source, load_extension
from bertjax.data.masking import UNITS, _separate_special
from bertjax.data.token_info import Vocabulary
from bertjax.objectives.terms import weighted
from bertjax.pretraining.objectives import OBJECTIVES
from tests.support.commands import ROOT, TINY_MODEL, assert_refused, overrides, run

RUN = {"phases": '({"steps":4,"length":32,"batch":8},)', "optimizer.warmup_steps": 1, "log_every": 1, "eval_every": 0}
ALL = '''
"""The examples for pre-training, all in one run."""
import bertjax
from bertjax.config.pretraining import Phase
from bertjax.config.registry import load_extension
NAMES = ("objective", "objective_with_head", "optimizer", "masking_unit")
examples = [load_extension(f"{ROOT}/examples/{name}.py") for name in NAMES]

@bertjax.register_objective("both")
def both(config, base):
    return examples[1].masked_count(config, examples[0].z_loss(config, base))

def get_config():
    config = examples[0].get_config()
    config.objective, config.optimizer.name, config.masking.unit = "both", "lion", "block"
    return config
'''


@pytest.fixture(scope="module")
def extended(corpus, tmp_path_factory):
    """A run with an objective, an optimizer and a masking unit from examples/, registered by its config file."""
    folder = tmp_path_factory.mktemp("extended")
    (folder / "mine.py").write_text(ALL.replace("{ROOT}", str(ROOT)))
    result = run(
        "train",
        f"--config={folder / 'mine.py'}",
        *overrides(TINY_MODEL | RUN),
        f"--config.corpus={corpus}",
        f"--workdir={folder / 'run'}",
    )
    assert result.returncode == 0, result.stderr
    return folder / "run"


def test_a_run_with_extensions_trains_and_logs_the_terms(extended):
    lines = [json.loads(line) for line in (extended / "metrics.jsonl").read_text().splitlines()]
    assert all(line["train/z_loss"] > 0 for line in lines if "train/loss" in line)
    assert any(line.keys() >= {"eval/z_loss", "eval/count_loss"} for line in lines)
    losses = next(line for line in lines if "train/loss" in line)
    scales = {"train/mlm_loss": 1, "train/nsp_loss": 1, "train/z_loss": 1, "train/count_loss": 0.1}
    total = sum(scale * losses[name] for name, scale in scales.items())
    assert losses["train/loss"] == pytest.approx(total, rel=1e-5)


def test_evaluation_names_the_missing_module_and_takes_it(extended):
    without = run("evaluate", f"--checkpoint={extended}", "--batch=8")
    module = extended.parent / "mine.py"
    assert_refused(without, extended, "needs the objective 'both'", f"--import={module}")
    scored = run("evaluate", f"--checkpoint={extended}", "--batch=8", f"--import={module}")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["eval/z_loss"] > 0
    filled = run("predict", "fill-mask", f"--checkpoint={extended}", "a [MASK]")
    assert filled.returncode == 0, filled.stderr  # prediction needs no objective


def test_a_task_kind_of_ones_own(trained, tmp_path):
    for split in ("train", "dev"):
        (tmp_path / f"{split}.csv").write_text("text,label\nYou have won!,spam\nSee you at eight,ham\n")
    workdir, example = tmp_path / "mail", f"{ROOT}/examples/task_kind.py"
    tuned = run(
        "finetune",
        f"--config={example}",
        f"--workdir={workdir}",
        f"--config.init_from={trained}",
        f"--config.data_dir={tmp_path}",
        "--config.table.train=train.csv",
        "--config.table.dev=dev.csv",
        "--config.length=32",
    )
    assert tuned.returncode == 0, tuned.stderr
    assert json.loads((workdir / "results.json").read_text())["metric"] == "f1_macro"
    without = run("predict", "classify", f"--checkpoint={workdir}", "You have won!")
    assert_refused(without, "needs the task kind 'focal_classification'", f"--import={example}")
    found = run("predict", "classify", f"--import={example}", f"--checkpoint={workdir}", "You have won!")
    assert found.returncode == 0 and json.loads(found.stdout)["label"] in ("spam", "ham"), found.stderr
    loaded = bertjax.load_model(workdir, extensions=[example])
    assert loaded.classify("You have won!")["label"] == json.loads(found.stdout)["label"]
    exported = run("convert", f"--import={example}", f"--from={workdir}", f"--to={tmp_path / 'export'}")
    assert exported.returncode == 0 and "warning: " in exported.stderr, exported.stderr
    assert bertjax.load_model(tmp_path / "export").task.kind == "classification"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("objective=masked_lmm", "config.objective: unknown objective 'masked_lmm'; did you mean 'masked_lm'?"),
        ("optimizer.name=adam", "config.optimizer.name: unknown optimizer 'adam'; did you mean 'adamw'?"),
        ("masking.unit=words", "config.masking.unit: unknown masking unit 'words'; did you mean 'word'?"),
    ],
)
def test_unknown_names_are_refused_before_anything_is_read(setting, message, tmp_path):
    words = (
        "--config=configs/tiny.py",
        f"--config.{setting}",
        "--config.corpus=nowhere",
        f"--workdir={tmp_path / 'run'}",
    )
    assert_refused(run("train", *words), message)


def test_a_module_that_cannot_be_imported_is_named(trained, tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    for source in (tmp_path / "broken.py", tmp_path / "missing.py", "no_such_module"):
        assert_refused(run("predict", f"--import={source}", f"--checkpoint={trained}", "fill-mask", "[MASK]"), source)


def test_names_belong_to_the_module_that_registered_them():
    registry, first = Registry("thing", {"a": 1}), Source("first", "/first.py")
    registry.add("b", 2, first)
    registry.add("b", 3, Source("/first.py", "/first.py"))  # executed again, by its path
    registry.add("b", 3, first)
    assert (registry.get("b"), registry.source("b"), registry.source("a")) == (3, "first", "")
    with pytest.raises(bertjax.UserError, match="'a' is already registered by bertjax"):
        registry.add("a", 2, first)
    with pytest.raises(bertjax.UserError, match="'b' is already registered by first"):
        registry.add("b", 2, Source("second", "/second.py"))


def test_a_decorator_without_its_name_is_refused():
    with pytest.raises(bertjax.UserError, match=r"write the decorator as @bertjax.…\('lion'\)"):

        @bertjax.register_optimizer
        def lion(config, schedule):
            return None


def test_an_extension_of_an_interactive_session_needs_a_file():
    variables = {"bertjax": bertjax, "__name__": "__main__"}
    exec("@bertjax.register_objective('mine')\ndef mine(config, base):\n    return base", variables)
    assert OBJECTIVES.source("mine") == "an interactive session"
    with pytest.raises(bertjax.UserError, match=r"put its definition into a \.py file and add --import=FILE"):
        Registry("objective", {}).require("mine", "an interactive session", "runs/x")


def test_an_objective_may_have_terms_of_its_own_only(tiny_config, tmp_path):
    """Without the masked-LM loss there is no perplexity to report; the run ends all the same."""

    @bertjax.register_objective("norms")
    def norms(config, base):
        def terms(outputs, batch):
            norms = jax.nn.logsumexp(outputs["masked_lm_logits"], axis=-1)
            return {"norm_loss": weighted(norms**2, batch["masked_lm_weights"])}

        return dataclasses.replace(
            base, terms=terms, weights=lambda batch: {"norm_loss": jnp.sum(batch["masked_lm_weights"])}
        )

    config = dataclasses.replace(tiny_config, objective="norms", phases=(Phase(2, 32, 8),))
    events = list(bertjax.iter_pretraining(config, tmp_path / "run"))
    assert "eval/norm_loss" in events[-1].metrics and "eval/mlm_perplexity" not in events[-1].metrics


def test_special_tokens_are_units_of_their_own_in_any_unit():
    """Also where the registered unit numbers them together with their neighbors."""
    special = np.array([[True, False, False, False, True, False, True]])
    assert _separate_special(np.zeros((1, 7), int), special).tolist() == [[0, 1, 1, 1, 2, 3, 4]]
    assert MaskingConfig(unit="anything").unit == "anything"  # checked where batches are built
    vocabulary = Vocabulary(4, 0, 1, 2, 3, np.array([3]), np.array([True, True, True, False]))
    words = UNITS.get("word")(np.array([[0, 2, 3, 2, 1, 3, 1]]), special, vocabulary)
    assert _separate_special(words, special).tolist() == [[0, 1, 1, 2, 3, 4, 5]]


def test_modules_are_imported_by_path_or_name():
    assert load_extension("json") is json
    assert load_extension(f"{ROOT}/examples/masking_unit.py").TOKENS_PER_BLOCK == 4
