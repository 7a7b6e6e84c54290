"""plan: the real TPU compiler, without a TPU."""

import json
import math
import os

import pytest

from bertjax.config.layout import MeshConfig
from bertjax.parallel.mesh import make_mesh
from bertjax.planning import topology
from tests.support.commands import assert_refused, overrides, run

# libtpu 0.0.42 crashes at smaller sizes.
SMALL = {
    "model.vocab_size": 1000,
    "model.hidden_size": 512,
    "model.num_hidden_layers": 3,
    "model.num_attention_heads": 4,
    "model.intermediate_size": 1024,
    "model.max_position_embeddings": 128,
    "model.attention_probs_dropout_prob": 0.0,
    "layout.attention_impl": "splash",
    "phases": '({"steps":1,"length":128,"batch":64},)',
}


def plan(*arguments: str, **settings):
    return run("plan", "--config=configs/tiny.py", *overrides(SMALL | settings), *arguments)


def test_fsdp_on_a_tpu_gathers_a_layer_at_a_time_and_never_the_batch():
    pytest.importorskip("libtpu")
    mesh = {"mesh.data": 1, "mesh.fsdp": 8, "layout.remat": "bert"}
    result = plan("--topology=v5e:2x4", "--json", **mesh)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["attention"] == "splash"
    assert found["fits"] and found["bound"] in ("compute", "HBM", "links") and not found["unread_loops"]

    hidden, inner, words = 512, 1024, 1024
    kernels = 3 * (4 * hidden * hidden + 2 * hidden * inner) + 2 * hidden * hidden
    tables = (words + 128 + 2) * hidden
    assert found["parameters"] == pytest.approx(4 * (kernels + tables) / 8, rel=0.05)  # the rest is not split
    assert found["optimizer"] == pytest.approx(2 * found["parameters"], rel=0.01)
    assert found["parameters"] + found["optimizer"] + found["activations"] == found["total"] < found["limit"]
    assert 1 < found["program_flops"] / found["model_flops"] < 1.1  # attention's scores are computed again

    gathered = [array for one in found["collectives"] if one["kind"] == "all-gather" for array in one["arrays"]]
    assert gathered and all(array.startswith("bf16[") for array in gathered), gathered
    largest = max(math.prod(map(int, array[5:-1].split(","))) for array in gathered)
    assert largest == max(hidden * inner, words * hidden)
    assert {tuple(one["axes"]) for one in found["collectives"]} == {("fsdp",)}
    layers = sum(one["times"] for one in found["collectives"] if one["arrays"] == ["bf16[1,512,1024]"])
    assert layers == 3 + 2  # forward, and again in the backward pass, except the last, which is still there


def test_what_is_here_is_not_what_is_planned_for():
    """Without being told, JAX would take the accelerator that is here; and the corpus decides no vocabulary here."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    flags = overrides(SMALL | {"layout.attention_impl": "xla"})
    result = run("plan", "--config=configs/tiny.py", *flags, "--topology=cpu:4", "--json", env=environment)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["mesh"]["data"] == 4
    assert_refused(plan("--topology=cpu:4", **{"model.vocab_size": 0}), "config.model.vocab_size is 0")


def test_what_does_not_fit_is_said_with_a_remedy():
    pytest.importorskip("libtpu")
    result = plan("--topology=v5e:1x1", **{"phases": '({"steps":1,"length":128,"batch":8192},)'})
    assert result.returncode == 1, result.stderr
    assert "does not fit" in result.stdout and "GiB too much" in result.stdout
    assert "--config.layout.remat=bert" in result.stdout


@pytest.mark.parametrize(
    ("topology", "parts"),
    [("v9:4x4", ("v9:4x4", "v5e")), ("v4:4x4", ("3 dimensions", "v4:4x4x4")), ("cpu:7", ("config.mesh", "7 devices"))],
)
def test_a_topology_that_is_not_there_is_refused(topology, parts):
    assert_refused(plan(f"--topology={topology}", **{"mesh.data": 2, "layout.attention_impl": "xla"}), *parts)


@pytest.mark.parametrize(
    ("name", "axes", "shape"),
    [
        ("v6e:16x16", {"fsdp": 8}, (32, 8, 1, 1)),
        ("v5p:4x4x4", {"fsdp": 8, "tensor": 2}, (4, 8, 1, 2)),
        ("v4:4x4x8", {"fsdp": 2}, (64, 2, 1, 1)),
        ("2*v5e:4x4", {"fsdp": 8}, (4, 8, 1, 1)),
    ],
)
def test_meshes_lie_on_slices_and_data_runs_between_them(name, axes, shape):
    pytest.importorskip("libtpu")
    described = topology.describe(name)
    mesh = make_mesh(MeshConfig(**axes), described.devices)
    assert mesh.devices.shape == shape
    slices = [{device.slice_index for device in row.flat} for row in mesh.devices] if described.slices > 1 else []
    assert slices == [{0}] * (len(slices) // 2) + [{1}] * (len(slices) // 2)
