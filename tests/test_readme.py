"""The README's commands do what the README says, in the order in which a reader types them."""

import re
import shlex
import shutil

from tests.conftest import ROOT, TINY_MODEL, overrides, run

# Added behind train's own arguments in the README, so that it ends within seconds.
SHRUNK = overrides(
    TINY_MODEL | {"phases": '({"steps":4,"length":32,"batch":4},)', "optimizer.warmup_steps": 1, "log_every": 1}
)
COMMANDS = ["prepare", "train", "evaluate", "predict", "convert"]


def test_the_commands_of_the_readme_run(tmp_path, text_file):
    """Prepare, train, evaluate, predict and convert as the README's first block has them."""
    section = (ROOT / "README.md").read_text().split("## Pre-train on your own text")[1]
    lines = re.search(r"```\n(.*?)```", section, re.DOTALL)[1].strip().splitlines()
    typed = [shlex.split(line) for line in lines]
    assert [words[:3] for words in typed] == [["python", "-m", f"bertjax.{name}"] for name in COMMANDS]
    (tmp_path / "my_texts").mkdir()
    shutil.copy(text_file, tmp_path / "my_texts" / "topics.txt")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for name, (_, _, _, *arguments) in zip(COMMANDS, typed, strict=True):
        result = run(name, *arguments, *(SHRUNK if name == "train" else []), cwd=tmp_path)
        assert result.returncode == 0, f"{name} {arguments}\n{result.stderr}"
    assert (tmp_path / "runs/mine/curves.png").is_file()
    assert (tmp_path / "exports/mine/model.safetensors").is_file()
