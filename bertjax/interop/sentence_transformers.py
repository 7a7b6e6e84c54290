"""What `sentence-transformers` wants beside a model of `transformers`: how states become one vector."""

import json
from pathlib import Path
from typing import Any

from bertjax.errors import UserError
from bertjax.tasks.metadata import SentenceMetadata

_MODULE = "sentence_transformers.models."
_MODES = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "max": "pooling_mode_max_tokens"}


def write(folder: Path, hidden_size: int, length: int, pooling: str, normalize: bool) -> None:
    """Writes modules.json and the modules' settings into the folder of an exported encoder.

    `length`: tokens of a text, at most.
    """
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] if normalize else [])]
    described = [
        {"idx": number, "name": str(number), "path": path, "type": _MODULE + name}
        for number, (path, name) in enumerate(modules)
    ]
    _write(folder / "modules.json", described)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": length, "do_lower_case": False})
    _write(folder / "config_sentence_transformers.json", {"similarity_fn_name": "cosine"})
    chosen = {mode: name == pooling for name, mode in _MODES.items()}
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden_size, **chosen})
    if normalize:
        (folder / "2_Normalize").mkdir()


def read(folder: Path) -> SentenceMetadata | None:
    """How such a folder turns texts into vectors; None for any other folder.

    Raises:
      UserError: its files cannot be read, or make vectors in a way that bertjax has not.
    """
    if not (folder / "modules.json").is_file():
        return None
    try:
        modules = [module["type"].rpartition(".")[2] for module in json.loads((folder / "modules.json").read_bytes())]
        settings = json.loads((folder / "1_Pooling" / "config.json").read_bytes())
        chosen = [name for name in settings if name.startswith("pooling_mode_") and settings[name] is True]
        texts = _optional(folder / "sentence_bert_config.json")
        prompt = _optional(folder / "config_sentence_transformers.json").get("default_prompt_name")
        length = texts.get("max_seq_length")
        length = None if length is None else int(length)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder}: modules.json or what belongs to it (1_Pooling/config.json, …) cannot be read ({error}); "
            "get it again"
        ) from error
    if unknown := [name for name in modules if name not in ("Transformer", "Pooling", "Normalize")]:
        raise UserError(f"{folder} makes vectors with {', '.join(unknown)}, which bertjax has not; take another model")
    pooling = next((name for name, mode in _MODES.items() if chosen == [mode]), None)
    if pooling is None:
        raise UserError(f"{folder} pools by {', '.join(chosen) or 'nothing'}; bertjax has {', '.join(_MODES)}")
    if texts.get("do_lower_case") or prompt:
        what = "a prompt before each text" if prompt else "texts that are lower-cased before they are tokenized"
        raise UserError(f"{folder} makes vectors of {what}, which bertjax has not; take another model")
    return SentenceMetadata(pooling, "Normalize" in modules, length=length)


def _optional(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes()) if path.is_file() else {}


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
