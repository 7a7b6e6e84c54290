"""A task kind of your own: classification with the focal loss, for tables with a rare class.

python -m bertjax.finetune --config=examples/task_kind.py --workdir=runs/mail --config.init_from=runs/books
  --config.data_dir=data/mail --config.table.train=train.csv --config.table.dev=dev.csv
python -m bertjax.predict classify --import=examples/task_kind.py --checkpoint=runs/mail "You have won! Call now."

The focal loss (Lin et al. 2017, arXiv:1708.02002) weighs the cross-entropy of an example by (1 - p)^2, where p is the
predicted probability of its class, so that many easy examples do not outweigh a few hard ones.
"""

import jax.numpy as jnp

import bertjax
from bertjax.config.finetuning import FinetuneConfig
from bertjax.config.parse import default_config
from bertjax.tasks.kinds.classification import Classification

GAMMA = 2.0


@bertjax.register_task_kind
class FocalClassification(Classification):
    """Classification with the focal loss, whose best run is the one with the best macro F1."""

    name = "focal_classification"

    def losses(self, outputs, batch):
        """Returns the focal loss of each example, [batch]."""
        cross_entropy = super().losses(outputs, batch)
        return (1 - jnp.exp(-cross_entropy)) ** GAMMA * cross_entropy

    def default_score(self, labels):
        """Accuracy and macro F1; selects by macro F1, which weighs a rare class like a frequent one."""
        score, _ = super().default_score(labels)
        return score, "f1_macro"


def get_config():
    """BERT's recipe on a table with the columns `text` and `label`; the macro F1 selects the best run."""
    config = default_config(FinetuneConfig)
    config.task = "table/focal_classification"
    config.learning_rates = (3e-5,)
    return config
