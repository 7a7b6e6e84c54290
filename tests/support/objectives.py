"""Random model outputs and labels."""

import numpy as np


def example(batch: int = 4, predictions: int = 3, seed: int = 0) -> tuple[dict, dict]:
    rng = np.random.default_rng(seed)
    outputs = {
        "masked_lm_logits": rng.normal(size=(batch, predictions, 11)).astype(np.float32) * 5,
        "next_sentence_logits": rng.normal(size=(batch, 2)).astype(np.float32),
    }
    labels = {
        "masked_lm_ids": rng.integers(0, 11, (batch, predictions)).astype(np.int32),
        "masked_lm_weights": (rng.random((batch, predictions)) < 0.7).astype(np.float32),
        "next_sentence_labels": rng.integers(0, 2, batch).astype(np.int32),
    }
    labels["masked_lm_ids"][:, 0] = outputs["masked_lm_logits"][:, 0].argmax(-1)
    return outputs, labels
