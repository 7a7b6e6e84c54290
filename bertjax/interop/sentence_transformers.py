"""What `sentence-transformers` wants beside a model of `transformers`: how states become one vector."""

import json
from pathlib import Path

_MODULE = "sentence_transformers.models."


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
    modes = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "max": "pooling_mode_max_tokens"}
    chosen = {mode: name == pooling for name, mode in modes.items()}
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": hidden_size, **chosen})
    if normalize:
        (folder / "2_Normalize").mkdir()


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
