"""Paths that cannot be written, or are not on this machine, are refused before any work is done."""

import subprocess

import pytest

from bertjax.errors import UserError
from bertjax.storage.files import check_room
from tests.support.commands import assert_refused, run


@pytest.mark.parametrize(
    ("command", "arguments", "named"),
    [
        ("train", ["--config=configs/tiny.py", "--workdir=gs://bucket/run", "--config.corpus=nowhere"], "--workdir"),
        ("train", ["--config=configs/tiny.py", "--workdir=run", "--config.init_from=s3://b/m"], "config.init_from"),
        (
            "finetune",
            ["--config=configs/glue.py:sst2", "--workdir=gs://bucket/run", "--config.init_from=m"],
            "--workdir",
        ),
        (
            "finetune",
            ["--config=configs/glue.py:sst2", "--workdir=run", "--config.init_from=m", "--config.data_dir=gs://b/d"],
            "config.data_dir",
        ),
        ("prepare", ["--source=pydoc:", "--output=gs://bucket/corpus"], "--output"),
        ("prepare", ["--source=pydoc:", "--output=corpus", "--tokenizer=gs://bucket/t"], "the tokenizer"),
        ("predict", ["fill-mask", "--checkpoint=gs://bucket/run", "a [MASK]"], "the model"),
        ("predict", ["embed", "--checkpoint=run", "--output=s3://bucket/x.npy", "a text"], "--output"),
        ("evaluate", ["--checkpoint=gs://bucket/run"], "the model"),
        ("convert", ["--from=run", "--to=gs://bucket/model"], "--to"),
        ("adapt", ["--from=run", "--source=text:x", "--workdir=s3://bucket/run"], "--workdir"),
    ],
)
def test_remote_paths_are_refused_immediately(command, arguments, named, tmp_path):
    assert_refused(run(command, *arguments), "a path on this machine", named)


def test_a_file_in_place_of_a_folder_is_refused(tmp_path):
    """A file also stops root, unlike permissions."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file: cannot be written to \(Not a directory\); choose another --output"):
        check_room(tmp_path / "file", "--output")
    check_room(tmp_path / "not/there/yet", "--output")


def test_free_space_is_checked(tmp_path):
    """On a real small file system."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("needs permission to mount a tmpfs")
    try:
        check_room(disk / "run", "--workdir", 3 * 2**20, "a checkpoint")
        with pytest.raises(UserError, match=r"4 MB free, but a checkpoint needs 9 MB; free some space, or choose"):
            check_room(disk / "run", "--workdir", 9 * 10**6, "a checkpoint")
        (disk / "full").write_bytes(bytes(4 * 2**20))
        with pytest.raises(UserError, match=r"cannot be written to \(No space left on device\)"):
            check_room(disk, "--workdir")
        assert [path.name for path in disk.iterdir()] == ["full"]
    finally:
        subprocess.run(["umount", disk], check=True)
