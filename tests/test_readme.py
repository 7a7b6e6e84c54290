"""The README's commands do what the README says, in the order in which a reader types them."""

import re
import shlex
import shutil
import subprocess
import sys

from tests.conftest import ROOT, TINY_MODEL, overrides

# Added behind the README's own arguments, so that the run ends within seconds.
SHRUNK = {
    "train": overrides(
        TINY_MODEL | {"phases": '({"steps":4,"length":32,"batch":4},)', "optimizer.warmup_steps": 1, "log_every": 1}
    ),
}


def test_the_commands_of_the_readme_run(tmp_path, text_file):
    """Prepare, train, evaluate, predict and convert as the README's first block has them."""
    section = (ROOT / "README.md").read_text().split("## Pre-train on your own text")[1]
    lines = re.search(r"```\n(.*?)```", section, re.DOTALL)[1].strip().splitlines()
    assert [shlex.split(line)[2] for line in lines] == [
        f"bertjax.{name}" for name in ("prepare", "train", "evaluate", "predict", "convert")
    ]
    (tmp_path / "my_texts").mkdir()
    shutil.copy(text_file, tmp_path / "my_texts" / "topics.txt")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "python"
        extra = SHRUNK.get(arguments[1].removeprefix("bertjax."), [])
        result = subprocess.run(
            [sys.executable, *arguments, *extra], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )
        assert result.returncode == 0, f"{line}\n{result.stderr}"
    assert (tmp_path / "runs/mine/curves.png").is_file()
    assert (tmp_path / "exports/mine/model.safetensors").is_file()
