"""The train command: shipped configs, its files, stopping and resuming, and refused input."""

import contextlib
import dataclasses
import gzip
import json
import os
import runpy
import shutil
import signal
import subprocess
import threading

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from bertjax.checkpoints import store
from bertjax.config.layout import LayoutConfig
from bertjax.config.optimizer import OptimizerConfig
from bertjax.config.parse import from_config_dict, to_dict
from bertjax.config.pretraining import Phase
from bertjax.corpus import format
from bertjax.corpus.format import Corpus
from bertjax.errors import UserError
from bertjax.interop.loading import load_model
from bertjax.pretraining.run import train
from bertjax.storage.files import exclusive_lock
from bertjax.text.tokenizer import load_tokenizer
from bertjax.trainer import metrics
from bertjax.trainer.loop import StopSignal
from tests.support import synthetic
from tests.support.batches import FAMILIES
from tests.support.commands import ROOT, TINY_MODEL, assert_refused, command, flip_a_bit, overrides, run
from tests.support.damage import edit_sealed


def test_large_runs_both_phases_shrunk_by_flags_only(corpus, tmp_path):
    """`python -m bertjax.train --config=configs/large.py`, the command of the README."""
    settings = TINY_MODEL | {
        "corpus": corpus,
        "phases": '({"steps":6,"length":32,"batch":8},{"steps":3,"length":64,"batch":4})',
        "log_every": 1,
    }
    result = run("train", "--config=configs/large.py", f"--workdir={tmp_path}/run", *overrides(settings))
    assert result.returncode == 0, result.stderr
    records = metrics.read(tmp_path / "run/metrics.jsonl")
    assert [record["step"] for record in records if "train/loss" in record] == list(range(1, 10))
    names = {name for record in records for name in record}
    assert names >= {
        *("train/loss", "train/mlm_loss", "train/nsp_loss", "train/grad_norm", "train/learning_rate"),
        *("eval/mlm_loss", "eval/mlm_accuracy", "eval/nsp_accuracy", "eval/unigram_entropy", "eval/mlm_perplexity"),
    }
    perf = metrics.read(tmp_path / "run/perf.jsonl")
    assert {"perf/tokens_per_second", "perf/input_wait", "perf/model_flops_per_second"} <= set(perf[-1])
    for name in ("config.json", "curves.png", "tokenizer/vocab.txt", "checkpoints/9"):
        assert (tmp_path / "run" / name).exists()
    assert any((tmp_path / "run/tensorboard").iterdir())
    assert "next: python -m bertjax.predict fill-mask" in result.stderr
    noise = [line for line in result.stderr.splitlines() if "WARNING" in line or "oneDNN" in line or "absl" in line]
    assert not noise


def test_help_is_printed_and_unknown_flags_are_refused():
    result = run("train", "--help")
    assert result.returncode == 0 and "--workdir" in result.stdout
    assert_refused(run("train", "--config=configs/tiny.py", "--config.sead=1"), "sead", "seed")
    assert_refused(run("train", "--config=configs/none.py", "--workdir=x"), "configs/none.py")
    assert_refused(run("train", "--confg=configs/tiny.py"), "config")
    assert_refused(run("train", "--config=configs/tiny.py", "--workdir=x"), "config.corpus")


def test_training_reduces_the_held_out_loss(tiny_config, tmp_path):
    config = dataclasses.replace(
        tiny_config,
        phases=(Phase(120, 32, 16),),
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=10),
        eval_every=10,
        checkpoint_every=1000,
    )
    train(config, tmp_path / "run")
    losses = [r["eval/mlm_loss"] for r in metrics.read(tmp_path / "run/metrics.jsonl") if "eval/mlm_loss" in r]
    assert losses[-1] < losses[0] - 0.4


def test_phases_may_have_different_rotary_bases(tiny_config, tmp_path):
    """The model's base is that of the last phase, e.g. of the extension to a longer context."""
    shape = dataclasses.replace(FAMILIES["modernbert"], vocab_size=0, num_hidden_layers=2)
    config = dataclasses.replace(
        tiny_config,
        model=shape,
        next_sentence=False,
        optimizer=dataclasses.replace(tiny_config.optimizer, schedule="constant"),
    )
    phases = (Phase(3, 32, 8, global_rope_theta=20.0), Phase(2, 32, 8))
    varied = dataclasses.replace(config, phases=phases, checkpoint_every=3)
    train(varied, tmp_path / "varied")
    constant = dataclasses.replace(shape, global_rope_theta=20.0)
    phases = (Phase(3, 32, 8), Phase(2, 32, 8))
    train(dataclasses.replace(config, model=constant, phases=phases), tmp_path / "constant")
    varied_losses, constant_losses = (
        [record["train/loss"] for record in metrics.read(tmp_path / name / "metrics.jsonl") if "train/loss" in record]
        for name in ("varied", "constant")
    )
    assert varied_losses[:3] == constant_losses[:3] and varied_losses[3] != constant_losses[3]
    # A checkpoint has the base of its own phase.
    for step, theta in ((3, 20.0), (5, 2_000.0)):
        model = load_model(tmp_path / f"varied/checkpoints/{step}")
        assert model.config.model.global_rope_theta == theta
    with pytest.raises(UserError, match=r"phases\[-1\].global_rope_theta is .* must be 0 or model.global_rope_theta"):
        from_config_dict(to_dict(dataclasses.replace(varied, phases=varied.phases[:1])))


def test_more_steps_continue_a_finished_run(tiny_config, trained, tmp_path, messages, monkeypatch):
    """`StopSignal.due` is called once per step."""
    workdir = shutil.copytree(trained, tmp_path / "run")
    due_calls = []
    monkeypatch.setattr(StopSignal, "due", lambda self, step: due_calls.append(step))
    train(dataclasses.replace(tiny_config, phases=(Phase(10, 32, 8),), log_every=2), workdir)
    assert "continuing at step 8 of 10" in " ".join(messages)
    assert store.steps(workdir / "checkpoints")[-1] == 10
    assert due_calls == [9, 10]
    before = (trained / "metrics.jsonl").read_text()
    assert (workdir / "metrics.jsonl").read_text().startswith(before)


def test_a_finished_run_stays_unchanged(tiny_config, trained, tmp_path, messages):
    workdir = shutil.copytree(trained, tmp_path / "run")
    train(tiny_config, workdir)
    assert "at step 8 of 8" in " ".join(messages)
    assert (workdir / "metrics.jsonl").read_bytes() == (trained / "metrics.jsonl").read_bytes()


def test_a_non_finite_loss_stops_the_run_and_names_the_last_good_checkpoint(tiny_config, tmp_path):
    config = dataclasses.replace(
        tiny_config,
        phases=(Phase(40, 32, 8),),
        checkpoint_every=1,
        optimizer=OptimizerConfig(learning_rate=1e30, warmup_steps=3, clip_norm=0.0),
    )
    with pytest.raises(UserError) as error:
        train(config, tmp_path / "run")
    steps = store.steps(tmp_path / "run/checkpoints")
    assert "at step" in str(error.value) and f"the last good checkpoint is step {steps[-1]}" in str(error.value)
    for record in metrics.read(tmp_path / "run/metrics.jsonl"):
        assert np.isfinite(list(record.values())).all()


def test_two_processes_do_not_train_in_one_workdir(corpus, tiny_config, tmp_path):
    settings = TINY_MODEL | {"corpus": corpus, "phases": '({"steps":100000,"length":32,"batch":8},)'}
    first = subprocess.Popen(
        command("train", "--config=configs/tiny.py", f"--workdir={tmp_path}/run", *overrides(settings)),
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "starting at step 0" in first.stderr.readline()
        with pytest.raises(UserError, match="another run is active here"):
            train(tiny_config, tmp_path / "run")
    finally:
        first.kill()
        first.communicate()
    with exclusive_lock(tmp_path / "run", "", ""):
        pass  # the lock was released with the process


def test_ctrl_c_before_the_first_step_ends_in_one_line(tmp_path):
    """The command blocks on reading a config from a pipe."""
    config = tmp_path / "config.py"
    os.mkfifo(config)
    # Programs started by a shell in the background ignore SIGINT, and their children inherit that.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command("train", f"--config={config}", "--workdir=x"), cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    signal.signal(signal.SIGINT, previous)
    errors = None
    with config.open("w"):  # returns once the command reads it
        for _ in range(3):
            if errors is not None:
                break
            process.send_signal(signal.SIGINT)
            # Repeated, as a signal just before the blocking call does not interrupt it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (130, "interrupted\n")


def test_signals_are_handled_until_the_last_checkpoint_is_finished(tiny_config, tmp_path):
    """The last save finishes in the background; until then SIGTERM has a handler."""
    previous = signal.getsignal(signal.SIGTERM)
    handled, released_early = threading.Event(), threading.Event()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.0005):
            if signal.getsignal(signal.SIGTERM) is not previous:
                handled.set()
            elif handled.is_set() and not (tmp_path / "run/checkpoints/8").exists():
                released_early.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        train(tiny_config, tmp_path / "run")
    finally:
        ended.set()
        watcher.join()
    assert handled.is_set() and not released_early.is_set()


def test_init_from_starts_from_the_parameters_of_another_run(tiny_config, trained, tmp_path, messages):
    config = dataclasses.replace(
        tiny_config,
        init_from=str(trained),
        phases=(Phase(1, 32, 8),),
        optimizer=OptimizerConfig(learning_rate=1e-9, warmup_steps=0),
    )
    train(config, tmp_path / "run")
    assert "starting from the parameters of" in " ".join(messages)
    start, _ = store.read_params(trained / "checkpoints/8")
    end, _ = store.read_params(tmp_path / "run/checkpoints/1")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-7), end, start)


def test_a_vocabulary_smaller_than_the_tokenizer_is_refused(tiny_config, tmp_path):
    small = dataclasses.replace(tiny_config.model, vocab_size=100)
    with pytest.raises(UserError, match=r"config.model.vocab_size is 100, but the tokenizer .* has 600"):
        train(dataclasses.replace(tiny_config, model=small), tmp_path / "run")


def run_tiny(corpus, workdir):
    """Runs the train command on a corpus."""
    settings = TINY_MODEL | {"corpus": corpus, "phases": '({"steps":2,"length":32,"batch":8},)'}
    return run("train", "--config=configs/tiny.py", f"--workdir={workdir}", *overrides(settings))


def test_an_attention_kernel_without_dropout_is_refused_before_the_first_step(tiny_config, tmp_path):
    config = dataclasses.replace(tiny_config, layout=LayoutConfig(attention_impl="splash"))
    with pytest.raises(UserError, match="attention_probs_dropout_prob"):
        train(config, tmp_path / "run")


def test_another_tokenizer_in_the_corpus_is_refused(corpus, tmp_path):
    """It has the same size: every id exists, with another meaning."""
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    vocabulary = load_tokenizer(corpus / "tokenizer")
    pieces = [vocabulary.id_to_token(index) for index in range(vocabulary.vocab_size)]
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer/vocab.txt").write_text("\n".join([*pieces[:5], *reversed(pieces[5:])]) + "\n")
    assert_refused(
        run_tiny(folder, tmp_path / "run"), folder / "tokenizer", "restore the original tokenizer of the corpus"
    )
    assert not (tmp_path / "run").exists()
    format.reseal(folder)
    with pytest.raises(UserError, match=r"not the tokenizer that .* was made with"):
        Corpus.open(folder).load_tokenizer()


@pytest.mark.parametrize("damage", ["truncated", "missing", "not a corpus"])
def test_a_damaged_corpus_is_refused(tiny_config, corpus, tmp_path, damage):
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    shard = folder / "train-00000.arrow"
    if damage == "truncated":
        os.truncate(shard, shard.stat().st_size - 100)
    elif damage == "missing":
        shard.unlink()
    else:
        (folder / "corpus.json").unlink()
    with pytest.raises(UserError, match=str(folder)):
        train(dataclasses.replace(tiny_config, corpus=str(folder)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_a_flipped_bit_in_a_corpus_is_refused(corpus, tmp_path, split):
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    shard = folder / f"{split}-00000.arrow"
    flip_a_bit(shard)
    content = shard.read_bytes()
    assert_refused(run_tiny(folder, tmp_path / "run"), shard, "damaged", "copy it again", "prepare")
    assert shard.read_bytes() == content
    assert not (tmp_path / "run").exists()


def test_four_documents_are_enough(corpus, text_file, tmp_path):
    """Two each for training and evaluation, the minimum for next-sentence pairs."""
    folder = prepare_documents(4, corpus, text_file, tmp_path)
    result = run_tiny(folder, tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert metrics.read(tmp_path / "run/metrics.jsonl")[-1]["eval/mlm_loss"] > 0


@pytest.mark.parametrize(("documents", "heldout"), [(20, 0), (3, 0.1)])
def test_a_corpus_without_held_out_documents_is_refused(corpus, text_file, tmp_path, documents, heldout):
    folder = prepare_documents(documents, corpus, text_file, tmp_path, f"--heldout={heldout}")
    refused = run_tiny(folder, tmp_path / "run")
    assert_refused(refused, folder, "no heldout documents", "--heldout above 0", "at least 4 documents")
    assert not (tmp_path / "run").exists()


def test_one_held_out_document_is_refused_before_the_first_step(tiny_config, tmp_path):
    folder = tmp_path / "corpus"
    synthetic.write(folder, {"train": [[[[5, 6, 7]], [[8, 9]]]], "heldout": [[[[5, 6, 7]]]]}, vocab_size=600)
    shutil.copytree(f"{tiny_config.corpus}/tokenizer", folder / "tokenizer")
    tokenizer_hash = load_tokenizer(folder / "tokenizer").hash()
    edit_sealed(folder / "corpus.json", lambda manifest: manifest.update(tokenizer_hash=tokenizer_hash))
    format.reseal(folder)
    with pytest.raises(UserError, match="two heldout documents"):
        train(dataclasses.replace(tiny_config, corpus=str(folder)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def prepare_documents(count, corpus, text_file, tmp_path, *flags):
    """Prepares the first documents of `text_file` with the tokenizer of `corpus`."""
    (tmp_path / "few.txt").write_text("\n\n".join(text_file.read_text().split("\n\n")[:count]))
    folder = tmp_path / "few"
    arguments = [f"--source=text:{tmp_path}/few.txt", f"--output={folder}", f"--tokenizer={corpus}/tokenizer"]
    result = run("prepare", *arguments, *flags)
    assert result.returncode == 0, result.stderr
    return folder


def test_a_workdir_that_cannot_be_written_is_refused(tiny_config, tmp_path):
    """Its parent is a file, which fails for root as well."""
    (tmp_path / "file").write_text("content")
    with pytest.raises(UserError, match="cannot"):
        train(tiny_config, tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "content"


def test_files_that_cannot_be_written_are_named_with_the_reason(tiny_config, trained, tmp_path):
    """A folder of the same name exists."""
    workdir = shutil.copytree(trained, tmp_path / "run")
    (workdir / "curves.png").unlink()
    (workdir / "curves.png").mkdir()
    with pytest.raises(UserError, match=r"curves\.png: cannot be written \(Is a directory\)"):
        train(tiny_config, workdir)
    (workdir / "tokenizer/vocab.txt").unlink()
    (workdir / "tokenizer/vocab.txt").mkdir()
    with pytest.raises(UserError, match=r"run: cannot be written to \(Is a directory\)"):
        train(tiny_config, workdir)


def test_config_json_holds_the_resolved_config(trained, tiny_config):
    written = json.loads((trained / "config.json").read_text())
    assert written["model"]["vocab_size"] == 600  # 0 in the config; resolved from the tokenizer
    assert written["optimizer"]["learning_rate"] == tiny_config.optimizer.learning_rate


@pytest.fixture(scope="module")
def lamb_config(corpus):
    """Returns configs/large_lamb.py, shrunk by settings as from flags, with moments in bfloat16."""
    values = runpy.run_path(str(ROOT / "configs/large_lamb.py"))["get_config"]()
    settings = {
        "corpus": str(corpus),
        # Of one shape, which compiles once.
        "phases": (
            {"steps": 4, "length": 32, "batch": 8},
            {"steps": 4, "length": 32, "batch": 8, "learning_rate": 4e-3, "warmup_steps": 2},
        ),
        "optimizer.warmup_steps": 2,
        "optimizer.state_dtype": "bfloat16",
        "log_every": 1,
        "checkpoint_every": 2,
        "profile_steps": (3, 4),
    }
    values.update_from_flattened_dict(TINY_MODEL | settings)
    return from_config_dict(values)


@pytest.fixture(scope="module")
def trained_with_lamb(lamb_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("lamb") / "run"
    train(lamb_config, workdir)
    return workdir


def test_large_lamb_runs_both_phases_shrunk_by_flags_only(trained_with_lamb):
    records = [r for r in metrics.read(trained_with_lamb / "metrics.jsonl") if "train/loss" in r]
    half = 0.5**0.5  # the square root of the remaining part of a phase
    rates = [0, 3e-3, 6e-3 * half, 3e-3, 0, 2e-3, 4e-3 * half, 2e-3]
    assert [r["train/learning_rate"] for r in records] == pytest.approx(rates)
    assert np.isfinite([r["train/loss"] for r in records]).all()


def test_a_trace_of_the_selected_steps_is_written(trained_with_lamb):
    (trace,) = (trained_with_lamb / "profile").rglob("*.trace.json.gz")
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    steps = {event["args"]["step_num"] for event in events if event.get("name") == "train"}
    assert steps == {"3", "4"}


def test_moments_in_bfloat16_resume_exactly(lamb_config, trained_with_lamb, tmp_path):
    """A run killed between steps 6 and 8 continues; stochastic rounding depends on the step only."""
    workdir = shutil.copytree(trained_with_lamb, tmp_path / "run")
    shutil.rmtree(workdir / "checkpoints/8")
    train(lamb_config, workdir)
    with ocp.StandardCheckpointer() as checkpointer:
        whole, resumed = (checkpointer.restore(run / "checkpoints/8/optimizer") for run in (trained_with_lamb, workdir))
    assert {x.dtype.name for x in jax.tree.leaves(whole) if x.ndim} == {"bfloat16"}
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)
