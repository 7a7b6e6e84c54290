"""The predict command, and its use from Python."""

import json
import os

import jax
import numpy as np
import pytest

from bertjax import pretrained
from bertjax.errors import UserError
from bertjax.fill_mask import FillMask
from bertjax.model.pretraining import PretrainingModel
from tests.conftest import assert_refused, run


@pytest.fixture(scope="module")
def model(trained):
    return pretrained.load(trained, print)


def test_fill_mask_is_the_model_s_softmax_whatever_stands_beside_it(model):
    """Against the model itself, one text at a time; batching and padding change nothing."""
    texts = ["the [MASK] of a list", "[MASK]", "a longer text with a [MASK] here and a [MASK] there " * 3]
    for text, answers in zip(texts, FillMask(model)(texts, top=3), strict=True):
        ids = model.tokenizer.encode(text, special_tokens=True)
        ids = np.array([[model.tokenizer.cls_id, *ids, model.tokenizer.sep_id]], np.int32)
        positions = np.nonzero(ids[0] == model.tokenizer.mask_id)[0][None]
        batch = {
            "input_ids": ids,
            "token_type_ids": np.zeros_like(ids),
            "attention_mask": np.ones_like(ids),
            "masked_lm_positions": positions.astype(np.int32),
        }
        logits = PretrainingModel(model.config.model).apply({"params": model.params}, batch)["masked_lm_logits"][0]
        logits = np.array(logits)
        logits[:, list(model.tokenizer.special_ids)] = -np.inf
        probabilities = np.array(jax.nn.softmax(logits, axis=-1))
        assert len(answers) == positions.shape[1]
        for answer, row in zip(answers, probabilities, strict=True):
            best = np.sort(row)[::-1][:3]
            np.testing.assert_allclose([guess["probability"] for guess in answer], best, atol=2e-6)
            assert answer[0]["token"] == model.tokenizer.id_to_token(int(row.argmax()))


def test_command_reads_arguments_files_and_stdin(trained, tmp_path):
    texts = ["the [MASK] of a list", "is [MASK] or [MASK]"]
    file = tmp_path / "texts.txt"
    file.write_text("\n".join([texts[0], "", texts[1]]))
    outputs = [
        run("predict", "fill-mask", f"--checkpoint={trained}", *texts),
        run("predict", "fill-mask", f"--checkpoint={trained}", f"--input={file}"),
        run("predict", "fill-mask", f"--checkpoint={trained}", input="\n".join(texts)),
    ]
    for output in outputs:
        assert output.returncode == 0, output.stderr
        assert output.stdout == outputs[0].stdout
    records = [json.loads(line) for line in outputs[0].stdout.splitlines()]
    assert [record["text"] for record in records] == texts
    assert [len(record["masks"]) for record in records] == [1, 2]
    assert all(len(mask) == 5 for record in records for mask in record["masks"])


def test_bad_input_is_refused(trained, model, tmp_path):
    fill = FillMask(model)
    with pytest.raises(UserError, match=r"there is no \[MASK\]"):
        fill(["no mask"])
    with pytest.raises(UserError, match="at most 64"):
        fill(["[MASK] word" * 100])
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "latin").write_bytes("Stra\xdfe".encode("latin-1"))
    for name, says in (("none", "cannot read"), ("empty", "there is no text"), ("latin", "not UTF-8 at byte 4")):
        assert_refused(run("predict", "fill-mask", f"--checkpoint={trained}", f"--input={tmp_path / name}"), says)
    with (tmp_path / "latin").open("rb") as stdin:
        refused = run("predict", "fill-mask", f"--checkpoint={trained}", stdin=stdin)
    assert_refused(refused, "stdin is not UTF-8 at byte 4")
    latin = os.fsdecode(b"caf\xe9 [MASK]")
    assert_refused(run("predict", "fill-mask", f"--checkpoint={trained}", latin), "is not UTF-8")
    assert_refused(run("predict", "dance", f"--checkpoint={trained}"), "usage")
