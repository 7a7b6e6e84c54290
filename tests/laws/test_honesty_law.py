"""Law 7: an unknown config key is an error, and another corpus, tokenizer or mathematics is no way to resume."""

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
    ("values", "says"),
    [
        ({"modle": {}}, "config.modle; did you mean config.model?"),
        ({"model": {"hiden_size": 8}}, "config.model.hiden_size; did you mean config.model.hidden_size?"),
        ({"phases": ({"steps": 1, "lenght": 8, "batch": 2},)}, "did you mean config.phases[0].length?"),
    ],
)
def test_an_unknown_key_is_an_error(values, says):
    with pytest.raises(UserError) as error:
        from_config_dict(values)
    assert says in str(error.value)


def test_resuming_may_change_logging_and_later_steps_but_not_the_mathematics():
    saved = Config()
    more = dataclasses.replace(saved, phases=(*saved.phases[:1], Phase(200_000, 512, 256)), log_every=7, corpus="moved")
    assert resume_conflict(saved, more, step=950_000) is None
    assert "seed" in resume_conflict(saved, dataclasses.replace(saved, seed=1), step=1)
    wider = dataclasses.replace(saved, model=dataclasses.replace(saved.model, hidden_size=1536))
    assert "model.hidden_size" in resume_conflict(saved, wider, step=1)
    other_batch = dataclasses.replace(saved, phases=(Phase(900_000, 128, 512), saved.phases[1]))
    assert "phases" in resume_conflict(saved, other_batch, step=1)
    assert resume_conflict(saved, other_batch, step=0) is None
    rewarmed = dataclasses.replace(saved, phases=(saved.phases[0], Phase(100_000, 512, 256, learning_rate=1e-4)))
    assert resume_conflict(saved, rewarmed, step=900_000) is None
    assert "phases" in resume_conflict(saved, rewarmed, step=900_001)


def test_a_sweep_may_get_other_runs_places_and_layouts_but_no_other_mathematics():
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
        assert resume_conflict(saved, new).startswith(f"{name} (was "), name


def test_a_workdir_of_no_sweep_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(to_dict(Config())))
    with pytest.raises(UserError, match=r"config\.json cannot be read as a sweep's \(unknown key config\.corpus"):
        finetune(FinetuneConfig(task="glue/cola", init_from="runs/base"), tmp_path)


def _other_model(config, **changes):
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **changes))


def test_a_workdir_of_another_run_is_refused_and_left_as_it_is(tiny_config, trained, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    refusals = {
        "config.model.hidden_size (was 32, now 64)": _other_model(tiny_config, hidden_size=64),
        "config.seed": dataclasses.replace(tiny_config, seed=5),
        "config.phases": dataclasses.replace(tiny_config, phases=(Phase(8, 32, 4),)),
    }
    for says, config in refusals.items():
        with pytest.raises(UserError) as error:
            train(config, workdir)
        assert says in str(error.value)
    assert before == {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}


def test_another_corpus_and_another_tokenizer_are_refused(tiny_config, trained, text_file, corpus, tmp_path):
    for name, tokenizer, says in (
        ("same tokenizer", f"--tokenizer={corpus}/tokenizer", "another corpus"),
        ("other tokenizer", "--tokenizer=new:wordpiece:400", "another tokenizer"),
    ):
        folder = tmp_path / name
        made = run("prepare", f"--source=text:{text_file}", tokenizer, "--heldout=0.2", f"--output={folder}")
        assert made.returncode == 0, made.stderr
        with pytest.raises(UserError, match=says):
            train(_other_model(dataclasses.replace(tiny_config, corpus=str(folder)), vocab_size=600), trained)
    with pytest.raises(UserError, match="has another tokenizer than the corpus"):
        config = dataclasses.replace(tiny_config, corpus=str(folder), init_from=str(trained))
        train(config, tmp_path / "new")
