"""The commands of the README run, in the order of the README."""

import re
import shlex
import shutil

from tests.support.commands import ROOT, TINY_MODEL, overrides, run

# Appended to the arguments of train in the README, to finish within seconds.
SHRUNK = overrides(
    TINY_MODEL | {"phases": '({"steps":4,"length":32,"batch":4},)', "optimizer.warmup_steps": 1, "log_every": 1}
)
EXTRA_ARGUMENTS = {"train": SHRUNK, "finetune": ["--config.length=32", "--config.epochs=(1,)"]}
SECTIONS = {
    "## Pre-train on your own text": ["prepare", "train", "evaluate", "predict", "convert"],
    "## Fine-tune and use a model": ["finetune", "evaluate", "predict", "convert"],
}


def test_readme_commands_run(tmp_path, text_file):
    """Later commands use the results of earlier ones."""
    (tmp_path / "my_texts").mkdir()
    shutil.copy(text_file, tmp_path / "my_texts" / "topics.txt")
    (tmp_path / "data/mail").mkdir(parents=True)
    for split in ("train", "dev"):
        (tmp_path / f"data/mail/{split}.csv").write_text("text,label\nYou have won!,spam\nSee you at eight,ham\n")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for section, names in SECTIONS.items():
        text = (ROOT / "README.md").read_text().split(section)[1]
        lines = re.search(r"```\n(.*?)```", text, re.DOTALL)[1].strip().splitlines()
        commands = [shlex.split(line) for line in lines]
        assert [words[:3] for words in commands] == [["python", "-m", f"bertjax.{name}"] for name in names]
        for name, (_, _, _, *arguments) in zip(names, commands, strict=True):
            result = run(name, *arguments, *EXTRA_ARGUMENTS.get(name, []), cwd=tmp_path)
            assert result.returncode == 0, f"{name} {arguments}\n{result.stderr}"
    assert (tmp_path / "runs/mine/curves.png").is_file()
    assert (tmp_path / "runs/mail/results.json").is_file()
    for export in ("mine", "mail"):
        assert (tmp_path / f"exports/{export}/model.safetensors").is_file()
