"""The plan command, with the TPU compiler but without a TPU."""

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


def test_fsdp_on_a_tpu_gathers_parameters_layer_by_layer_and_never_the_batch():
    pytest.importorskip("libtpu")
    mesh = {"mesh.data": 1, "mesh.fsdp": 8, "layout.remat": "bert"}
    result = plan("--topology=v5e:2x4", "--json", **mesh)
    assert result.returncode == 0, result.stderr
    values = json.loads(result.stdout)
    assert values["attention"] == "splash"
    assert values["fits"] and values["bound"] in ("compute", "HBM", "links") and not values["unread_loops"]

    hidden, inner, words = 512, 1024, 1024
    kernels = 3 * (4 * hidden * hidden + 2 * hidden * inner) + 2 * hidden * hidden
    tables = (words + 128 + 2) * hidden
    assert values["parameters"] == pytest.approx(4 * (kernels + tables) / 8, rel=0.05)  # others are replicated
    assert values["optimizer"] == pytest.approx(2 * values["parameters"], rel=0.01)
    assert values["parameters"] + values["optimizer"] + values["activations"] == values["total"] < values["limit"]
    assert 1 < values["program_flops"] / values["model_flops"] < 1.1  # attention scores are recomputed

    operations = values["collectives"]
    gathered = [array for item in operations if item["kind"] == "all-gather" for array in item["arrays"]]
    assert gathered and all(array.startswith("bf16[") for array in gathered), gathered
    largest = max(math.prod(map(int, array[5:-1].split(","))) for array in gathered)
    assert largest == max(hidden * inner, words * hidden)
    assert {tuple(item["axes"]) for item in operations} == {("fsdp",)}
    layers = sum(item["times"] for item in operations if item["arrays"] == ["bf16[1,512,1024]"])
    assert layers == 3 + 2  # forward, and again backward except for the last layer, which is still gathered


def test_local_accelerators_are_ignored_and_the_vocabulary_size_is_required():
    """Without JAX_PLATFORMS, JAX would use a local accelerator."""
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    flags = overrides(SMALL | {"layout.attention_impl": "xla"})
    result = run("plan", "--config=configs/tiny.py", *flags, "--topology=cpu:4", "--json", env=environment)
    assert result.returncode == 0, result.stderr
    values = json.loads(result.stdout)
    assert values["mesh"]["data"] == 4 and values["fits"] is None  # the memory of a CPU is unknown
    assert_refused(plan("--topology=cpu:4", **{"model.vocab_size": 0}), "config.model.vocab_size is 0")


def test_a_phase_that_does_not_fit_is_reported_with_remedies():
    pytest.importorskip("libtpu")
    result = plan("--topology=v5e:1x1", **{"phases": '({"steps":1,"length":128,"batch":8192},)'})
    assert result.returncode == 1, result.stderr
    assert "does not fit" in result.stdout and "GiB too much" in result.stdout
    assert "--config.layout.remat=bert" in result.stdout


@pytest.mark.parametrize(
    ("topology", "parts"),
    [("v9:4x4", ("v9:4x4", "v5e")), ("v4:4x4", ("3 dimensions", "v4:4x4x4")), ("cpu:7", ("config.mesh", "7 devices"))],
)
def test_an_unknown_topology_is_refused(topology, parts):
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
def test_the_data_axis_spans_slices(name, axes, shape):
    pytest.importorskip("libtpu")
    described = topology.describe(name)
    mesh = make_mesh(MeshConfig(**axes), described.devices)
    assert mesh.devices.shape == shape
    slices = [{device.slice_index for device in row.flat} for row in mesh.devices] if described.slices > 1 else []
    assert slices == [{0}] * (len(slices) // 2) + [{1}] * (len(slices) // 2)
