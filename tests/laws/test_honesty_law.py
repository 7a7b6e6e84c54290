"""Law 7: unknown config keys are refused, and a run resumes only with its corpus, tokenizer and computation."""

import dataclasses
import json
import shutil

import pytest

from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.layout import LayoutConfig, MeshConfig
from bertjax.config.parse import from_config_dict, to_dict
from bertjax.config.pretraining import Config, Phase
from bertjax.config.resume import resume_conflict
from bertjax.errors import UserError
from bertjax.finetuning.run import finetune
from bertjax.pretraining.run import train
from tests.support.commands import run


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modle": {}}, "config.modle; did you mean config.model?"),
        ({"model": {"hiden_size": 8}}, "config.model.hiden_size; did you mean config.model.hidden_size?"),
        ({"phases": ({"steps": 1, "lenght": 8, "batch": 2},)}, "did you mean config.phases[0].length?"),
    ],
)
def test_unknown_keys_are_refused(values, message):
    with pytest.raises(UserError) as error:
        from_config_dict(values)
    assert message in str(error.value)


def test_resuming_may_change_logging_and_later_steps_only():
    saved = Config()
    extended = dataclasses.replace(
        saved, phases=(*saved.phases[:1], Phase(200_000, 512, 256)), log_every=7, corpus="moved"
    )
    assert resume_conflict(saved, extended, step=950_000) is None
    assert "seed" in resume_conflict(saved, dataclasses.replace(saved, seed=1), step=1)
    wider = dataclasses.replace(saved, model=dataclasses.replace(saved.model, hidden_size=1536))
    assert "model.hidden_size" in resume_conflict(saved, wider, step=1)
    other_batch = dataclasses.replace(saved, phases=(Phase(900_000, 128, 512), saved.phases[1]))
    assert "phases" in resume_conflict(saved, other_batch, step=1)
    assert resume_conflict(saved, other_batch, step=0) is None
    rewarmed = dataclasses.replace(saved, phases=(saved.phases[0], Phase(100_000, 512, 256, learning_rate=1e-4)))
    assert resume_conflict(saved, rewarmed, step=900_000) is None
    assert "phases" in resume_conflict(saved, rewarmed, step=900_001)


def test_sweeps_may_change_runs_paths_and_layouts_only():
    saved = FinetuneConfig(task="glue/cola", init_from="runs/base")
    free = {"data_dir": "moved", "init_from": "moved", "learning_rates": (1e-4,), "epochs": (4,), "seeds": (1, 2)}
    free |= {"mesh": MeshConfig(fsdp=8), "layout": LayoutConfig(accumulation=2), "log_every": 7, "features_memory": 1.0}
    assert resume_conflict(saved, dataclasses.replace(saved, **free)) is None
    others = {field.name: getattr(saved, field.name) for field in dataclasses.fields(saved) if field.name not in free}
    for name, value in others.items():
        if dataclasses.is_dataclass(value):
            inner = dataclasses.fields(value)[0].name
            value, name = dataclasses.replace(value, **{inner: "changed"}), f"{name}.{inner}"
        else:
            value = "changed"
        new = dataclasses.replace(saved, **{name.split(".")[0]: value})
        assert resume_conflict(saved, new).startswith(f"{name} was "), name


def test_finetuning_refuses_other_workdirs(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_dict(Config())))
    with pytest.raises(UserError, match=r"config\.json: not the config of a sweep \(unknown key config\.corpus"):
        finetune(FinetuneConfig(task="glue/cola", init_from="runs/base"), tmp_path)


def _other_model(config, **changes):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))


def test_workdirs_of_other_runs_are_refused_and_unchanged(tiny_config, trained, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    refusals = {
        "config.model.hidden_size was 32 at the start and is now 64": _other_model(tiny_config, hidden_size=64),
        "config.seed": dataclasses.replace(tiny_config, seed=5),
        "config.phases": dataclasses.replace(tiny_config, phases=(Phase(8, 32, 4),)),
    }
    for message, config in refusals.items():
        with pytest.raises(UserError) as error:
            train(config, workdir)
        assert message in str(error.value)
    assert before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def test_other_corpora_and_tokenizers_are_refused(tiny_config, trained, text_file, corpus, tmp_path):
    for name, tokenizer, message in (
        ("same tokenizer", f"--tokenizer={corpus}/tokenizer", "another corpus"),
        ("other tokenizer", "--tokenizer=new:wordpiece:400", "another tokenizer"),
    ):
        folder = tmp_path / name
        result = run("prepare", f"--source=text:{text_file}", tokenizer, "--heldout=0.2", f"--output={folder}")
        assert result.returncode == 0, result.stderr
        with pytest.raises(UserError, match=message):
            train(_other_model(dataclasses.replace(tiny_config, corpus=str(folder)), vocab_size=600), trained)
    with pytest.raises(UserError, match="has another tokenizer than the corpus"):
        config = dataclasses.replace(tiny_config, corpus=str(folder), init_from=str(trained))
        train(config, tmp_path / "new")
