"""The README's commands do what the README says, in the order in which a reader types them."""

import re
import shlex
import shutil

from tests.support.commands import ROOT, TINY_MODEL, overrides, run

# Added behind train's own arguments in the README, so that it ends within seconds.
SHRUNK = overrides(
    TINY_MODEL | {"phases": '({"steps":4,"length":32,"batch":4},)', "optimizer.warmup_steps": 1, "log_every": 1}
)
MORE = {"train": SHRUNK, "finetune": ["--config.length=32", "--config.epochs=(1,)"]}
SECTIONS = {
    "## Pre-train on your own text": ["prepare", "train", "evaluate", "predict", "convert"],
    "## Fine-tune, score and use it": ["finetune", "evaluate", "predict", "convert"],
}


def test_the_commands_of_the_readme_run(tmp_path, text_file):
    """In the order in which the README's sections have them, the later on what the earlier left."""
    (tmp_path / "my_texts").mkdir()
    shutil.copy(text_file, tmp_path / "my_texts" / "topics.txt")
    (tmp_path / "data/mail").mkdir(parents=True)
    for split in ("train", "dev"):
        (tmp_path / f"data/mail/{split}.csv").write_text("text,label\nYou have won!,spam\nSee you at eight,ham\n")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for section, names in SECTIONS.items():
        text = (ROOT / "README.md").read_text().split(section)[1]
        lines = re.search(r"```\n(.*?)```", text, re.DOTALL)[1].strip().splitlines()
        typed = [shlex.split(line) for line in lines]
        assert [words[:3] for words in typed] == [["python", "-m", f"bertjax.{name}"] for name in names]
        for name, (_, _, _, *arguments) in zip(names, typed, strict=True):
            result = run(name, *arguments, *MORE.get(name, []), cwd=tmp_path)
            assert result.returncode == 0, f"{name} {arguments}\n{result.stderr}"
    assert (tmp_path / "runs/mine/curves.png").is_file()
    assert (tmp_path / "runs/mail/results.json").is_file()
    for export in ("mine", "mail"):
        assert (tmp_path / f"exports/{export}/model.safetensors").is_file()
