"""Seals: changed files are refused, and files are sealed again after a deliberate edit."""

import dataclasses
import json
import shutil

import pytest
from safetensors.numpy import load_file, save_file

from bertjax.config.pretraining import Phase
from bertjax.corpus.format import Corpus
from bertjax.errors import UserError
from bertjax.interop import export_seal
from bertjax.interop.huggingface import export_model
from bertjax.interop.loading import load_model
from bertjax.pretraining.run import train
from tests.support.commands import assert_refused, flip_a_bit, run
from tests.support.damage import edit_sealed


@pytest.fixture
def export(trained, tmp_path):
    export_model(load_model(trained), tmp_path / "export")
    return tmp_path / "export"


def reseal(folder):
    result = run("convert", "--reseal", f"--from={folder}")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "vocab.txt"])
def test_exports_with_a_flipped_bit_or_a_missing_file_are_refused(export, name):
    load_model(export)
    content = (export / name).read_bytes()
    (export / name).write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    with pytest.raises(UserError, match=rf"{name}: (changed since the export|not valid).*--reseal --from={export}"):
        load_model(export)
    (export / name).unlink()
    with pytest.raises(UserError, match=rf"{name}: missing"):
        load_model(export)
    (export / name).write_bytes(content)
    load_model(export)


def test_exports_need_their_seal_until_another_program_saves_them(export, tmp_path):
    seal = export / export_seal.NAME
    content = seal.read_text()
    seal.write_text(content.replace('"bytes": ', '"bytes": 1', 1))
    with pytest.raises(UserError, match="checksum mismatch"):
        load_model(export)
    edit_sealed(seal, lambda values: values["files"].update({"../outside": next(iter(values["files"].values()))}))
    with pytest.raises(
        UserError, match=rf"{export_seal.NAME}: not valid \(a key of files: Expected `str` in a different format"
    ):
        load_model(export)
    seal.unlink()
    with pytest.raises(UserError, match=f"names {export_seal.NAME}, which is missing"):
        load_model(export)
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForPreTraining.from_pretrained(export)
    model.save_pretrained(tmp_path / "again")
    transformers.AutoTokenizer.from_pretrained(export).save_pretrained(tmp_path / "again")
    assert "bertjax_manifest" in (tmp_path / "again/config.json").read_text()
    load_model(tmp_path / "again")


def test_edited_exports_are_resealed(export):
    tensors = load_file(export / "model.safetensors")
    tensors["bert.pooler.dense.bias"] += 1
    save_file(tensors, export / "model.safetensors")
    assert_refused(run("convert", f"--from={export}", f"--to={export}-2"), "model.safetensors", "--reseal")
    reseal(export)
    bias = load_model(export).params["pooler"]["bias"]
    assert (bias == tensors["bert.pooler.dense.bias"]).all()


def test_edited_corpora_are_resealed(corpus, tmp_path):
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    path = folder / "corpus.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"statistics": {"by": "hand"}}))
    with pytest.raises(UserError, match="checksum mismatch"):
        Corpus.open(folder)
    reseal(folder)
    assert Corpus.open(folder).fingerprint == Corpus.open(corpus).fingerprint


def edit_lines(path, edit):
    lines = path.read_text().splitlines(keepends=True)
    edit(lines)
    path.write_text("".join(lines))


DAMAGES = {
    "changed digit": lambda lines: lines.__setitem__(1, lines[1].replace("1", "2")),
    "missing line": lambda lines: lines.pop(0),
    "repeated line": lambda lines: lines.insert(0, lines[0]),
    "exchanged lines": lambda lines: lines.__setitem__(slice(0, 2), [lines[1], lines[0]]),
    "wrong type": lambda lines: lines.__setitem__(0, '{"step": "1"}\n'),
    "truncated before the checkpoint": lambda lines: lines.__delitem__(slice(3, None)),
    "empty": lambda lines: lines.clear(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_metrics_that_contradict_the_checkpoint_are_refused(trained, tiny_config, tmp_path, damage):
    workdir = shutil.copytree(trained, tmp_path / "run")
    edit_lines(workdir / "metrics.jsonl", DAMAGES[damage])
    before = (workdir / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"metrics\.jsonl: not valid \(its first .* bytes .*\); restore.*--reseal"):
        train(tiny_config, workdir)
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_metrics_after_the_checkpoint_are_truncated(trained, tiny_config, tmp_path):
    """Whatever they are: a partial line, zeros, steps that will be repeated."""
    expected = (trained / "metrics.jsonl").read_bytes()
    for tail in (b'{"step": 9, "train/lo', b"\0" * 100, b'{"step": 9}\n' * 3, b"\xff\n"):
        workdir = shutil.copytree(trained, tmp_path / str(len(tail)))
        with (workdir / "metrics.jsonl").open("ab") as file:
            file.write(tail)
        with (workdir / "perf.jsonl").open("ab") as file:
            file.write(tail)
        train(tiny_config, workdir)
        assert (workdir / "metrics.jsonl").read_bytes() == expected


def test_edited_workdirs_are_resealed(trained, tiny_config, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    edit_lines(workdir / "metrics.jsonl", DAMAGES["changed digit"])
    edited = (workdir / "metrics.jsonl").read_bytes()
    meta = workdir / "checkpoints/8/meta/metadata"
    meta.write_text(meta.read_text().replace('"log_every": 1', '"log_every": 2'))
    reseal(workdir)
    train(tiny_config, workdir)
    assert (workdir / "metrics.jsonl").read_bytes() == edited
    assert load_model(workdir).config.log_every == 2


def test_contradictory_contents_are_not_resealed(trained, tiny_config, corpus, tmp_path):
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    vocabulary = (folder / "tokenizer/vocab.txt").read_text().split("\n")
    shutil.rmtree(folder / "tokenizer")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer/vocab.txt").write_text("\n".join([*vocabulary[:5], *reversed(vocabulary[5:-1])]) + "\n")
    assert_refused(run("convert", "--reseal", f"--from={folder}"), "not the tokenizer that", "was made with")
    workdir = shutil.copytree(trained, tmp_path / "run")
    (workdir / "checkpoints/8/meta/metadata").write_text("[]")
    assert_refused(run("convert", "--reseal", f"--from={workdir}"), "metadata: not valid", "Expected `object`")


def test_checkpoints_without_a_record_of_metrics_keep_them(trained, tiny_config, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    expected = (workdir / "metrics.jsonl").read_bytes()
    edit_sealed(workdir / "checkpoints/8/meta/metadata", lambda values: values.update(metrics=None))
    train(tiny_config, workdir)
    assert (workdir / "metrics.jsonl").read_bytes() == expected


def test_other_folders_are_not_resealed(tmp_path):
    assert_refused(run("convert", "--reseal", f"--from={tmp_path}"), "no corpus, export or workdir of bertjax")


def test_damaged_checkpoints_are_skipped(trained, tmp_path):
    workdir = shutil.copytree(trained, tmp_path / "run")
    flip_a_bit(workdir / "checkpoints/8/meta/metadata")
    assert load_model(workdir).step == 4


def test_symlinks_are_read_but_not_written_through(trained, tiny_config, tmp_path):
    """Caches of models consist of symlinks, whose targets must stay unchanged."""
    elsewhere, workdir = tmp_path / "elsewhere", shutil.copytree(trained, tmp_path / "run")
    elsewhere.mkdir()
    linked = ("metrics.jsonl", "perf.jsonl", "config.json", "curves.png", "tokenizer/tokenizer.json")
    for name in linked:
        target = elsewhere / name.rpartition("/")[2]
        shutil.move(workdir / name, target)
        (workdir / name).symlink_to(target)
    before = {path.name: path.read_bytes() for path in elsewhere.iterdir()}
    train(dataclasses.replace(tiny_config, phases=(Phase(9, 32, 8),)), workdir)
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == before
    assert not any((workdir / name).is_symlink() for name in linked)
    assert len((workdir / "metrics.jsonl").read_bytes()) > len(before["metrics.jsonl"])
    export_model(load_model(workdir), tmp_path / "export")
    links = tmp_path / "links"
    links.mkdir()
    for path in (tmp_path / "export").iterdir():
        (links / path.name).symlink_to(path)
    assert load_model(links).step == 0
