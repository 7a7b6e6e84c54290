"""bertjax: pre-training and fine-tuning of BERT-family encoders in JAX/Flax.

Models     load_model  Model  export_model  load_tokenizer
Data       open_corpus  iter_batches
Runs       load_config  run_pretraining  iter_pretraining  run_finetuning
Extending  register_task_kind  register_objective  register_optimizer  register_masking_unit
Errors     UserError

help(bertjax.load_model) explains a name, with an example; python -m bertjax.train --help a command. Messages are
logged to logging.getLogger("bertjax").
"""

import typing

__version__ = "0.1.0"

if typing.TYPE_CHECKING:
    from bertjax.api.data import iter_batches as iter_batches
    from bertjax.api.data import load_tokenizer as load_tokenizer
    from bertjax.api.data import open_corpus as open_corpus
    from bertjax.api.model import Model as Model
    from bertjax.api.model import export_model as export_model
    from bertjax.api.model import load_model as load_model
    from bertjax.api.registration import register_masking_unit as register_masking_unit
    from bertjax.api.registration import register_objective as register_objective
    from bertjax.api.registration import register_optimizer as register_optimizer
    from bertjax.api.registration import register_task_kind as register_task_kind
    from bertjax.api.runs import iter_pretraining as iter_pretraining
    from bertjax.api.runs import load_config as load_config
    from bertjax.api.runs import run_finetuning as run_finetuning
    from bertjax.api.runs import run_pretraining as run_pretraining
    from bertjax.errors import UserError as UserError

# The public names and the modules that define them, which are imported at first use (PEP 562).
_MODULES = {
    "UserError": "bertjax.errors",
    "Model": "bertjax.api.model",
    "export_model": "bertjax.api.model",
    "iter_batches": "bertjax.api.data",
    "iter_pretraining": "bertjax.api.runs",
    "load_config": "bertjax.api.runs",
    "load_model": "bertjax.api.model",
    "load_tokenizer": "bertjax.api.data",
    "open_corpus": "bertjax.api.data",
    "register_masking_unit": "bertjax.api.registration",
    "register_objective": "bertjax.api.registration",
    "register_optimizer": "bertjax.api.registration",
    "register_task_kind": "bertjax.api.registration",
    "run_finetuning": "bertjax.api.runs",
    "run_pretraining": "bertjax.api.runs",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'bertjax' has no attribute {name!r}")
    import importlib

    from bertjax.environment import quiet_libraries

    quiet_libraries()
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
