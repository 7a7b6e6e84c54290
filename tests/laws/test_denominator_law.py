"""Law 5: each loss term is divided once, by its own global weight, so that every prediction counts the same."""

import numpy as np

from bertjax.objectives.pretraining import terms
from tests.support.objectives import example


def test_sums_add_over_microbatches_of_unequal_weight():
    outputs, batch = example(8)
    whole = terms(outputs, batch)
    halves = [
        terms(*({k: v[rows] for k, v in x.items()} for x in (outputs, batch))) for rows in (slice(3), slice(3, 8))
    ]
    assert halves[0]["mlm_loss"].weight != halves[1]["mlm_loss"].weight
    for name, term in whole.items():
        np.testing.assert_allclose(term.sum, sum(half[name].sum for half in halves), rtol=1e-6)
        np.testing.assert_allclose(term.weight, sum(half[name].weight for half in halves))
