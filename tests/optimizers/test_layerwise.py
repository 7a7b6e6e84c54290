"""Layer-wise learning rates scale an update by its number of layers below the heads."""

import jax
import numpy as np

from bertjax.arrays.trees import named_leaves
from bertjax.model.finetuning import FinetuningModel
from bertjax.model.partitioning import layers_above
from bertjax.optimizers.layerwise import scale_by_layer
from tests.support.batches import FAMILIES, SMALL, random_batch


def test_each_layer_has_its_own_rate():
    model = FinetuningModel(SMALL, 2, pooled=True)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), random_batch(SMALL, 1, 8, 2))["params"])
    ones = jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes)
    scale = scale_by_layer(0.5, SMALL)
    updates, _ = scale.update(ones, scale.init(ones), ones)
    assert SMALL.num_hidden_layers == 3
    for name, update in named_leaves(updates).items():
        if name.startswith("encoder/"):
            expected = np.array([0.125, 0.25, 0.5])  # the last layer is one below the heads
            expected = expected.reshape(3, *[1] * (update.ndim - 1))
        else:
            expected = 0.0625 if name.startswith("embeddings/") else 1
        np.testing.assert_array_equal(update, np.broadcast_to(expected, update.shape), err_msg=name)


def test_layers_are_counted_across_stacks():
    config = FAMILIES["modernbert"]
    layers = ("segment_0/layer_0", "segment_1/layer_0", "segment_1/layer_1", "segment_1/layer_2", "segment_2/layer_0")
    depths = [layers_above(f"encoder/{layer}/output/kernel", config) for layer in layers]
    assert depths == [[8], [7, 4], [6, 3], [5, 2], [1]]
    assert layers_above("embeddings/layer_norm/scale", config) == 9
    assert layers_above("encoder/final_layer_norm/scale", config) == 0  # above all layers, like heads
