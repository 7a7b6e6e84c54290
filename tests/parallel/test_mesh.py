"""The mesh: sizes that fit devices, model and batch, and sizes that are refused."""

import jax
import pytest

from bertjax.config.layout import MeshConfig
from bertjax.config.pretraining import Config
from bertjax.errors import UserError
from bertjax.parallel import sharding
from bertjax.parallel.mesh import make_mesh
from bertjax.pretraining import build


def mesh_of(devices: int, **axes: int) -> jax.sharding.Mesh:
    """Returns a mesh over `devices` references to the one local device."""
    return make_mesh(MeshConfig(**axes), jax.devices()[:1] * devices)


def test_minus_one_takes_the_remaining_devices():
    assert dict(mesh_of(8, fsdp=2, tensor=2).shape) == {"data": 2, "fsdp": 2, "sequence": 1, "tensor": 2}
    assert dict(mesh_of(8, data=1, fsdp=-1).shape) == {"data": 1, "fsdp": 8, "sequence": 1, "tensor": 1}


@pytest.mark.parametrize("axes", [{"fsdp": 3}, {"data": 2, "fsdp": 2}, {"data": 16}])
def test_a_mesh_that_does_not_use_all_devices_is_refused(axes):
    with pytest.raises(UserError, match="8 devices"):
        mesh_of(8, **axes)


@pytest.mark.parametrize(
    ("axes", "setting"),
    [
        ({"tensor": 8}, "config.model.num_attention_heads is 12"),
        ({"data": 1, "fsdp": 7}, "config.model.hidden_size is 768"),
    ],
)
def test_a_mesh_that_does_not_divide_the_model_is_refused(axes, setting):
    devices = 7 if "fsdp" in axes else 8
    with pytest.raises(UserError, match=setting):
        build.check_mesh(Config(), mesh_of(devices, **axes))


def test_data_fsdp_and_microbatches_must_divide_the_batch():
    mesh = mesh_of(8, fsdp=2)
    sharding.check_divides("batch", 32, mesh, "the batch", accumulation=4)
    with pytest.raises(UserError, match=r"the batch is 32, not a multiple of 64 \(mesh.data × mesh.fsdp × "):
        sharding.check_divides("batch", 32, mesh, "the batch", accumulation=8)
