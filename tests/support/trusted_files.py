"""Small undamaged files of all kinds that bertjax reads, and their readers."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bertjax import decoding, host_tensorflow
from bertjax.checkpoints import pretrained, store
from bertjax.checkpoints.meta import CheckpointMeta, StoredTokenizer, encode_meta
from bertjax.config.data import Sequencing
from bertjax.config.finetuning import FinetuneConfig, TableConfig
from bertjax.config.parse import to_dict
from bertjax.config.pretraining import Config, Phase
from bertjax.corpus import build, format, shard_worker
from bertjax.corpus.format import Corpus
from bertjax.corpus.manifest import decode_manifest, read_manifest
from bertjax.corpus.shard_worker import BuildJob, BuildOptions
from bertjax.data.epochs import EpochIndex
from bertjax.errors import UserError
from bertjax.finetuning import report
from bertjax.finetuning import run as sweep_run
from bertjax.interop import configs, export_seal, huggingface, sentence_transformers, weights
from bertjax.interop.loading import load_model
from bertjax.model.pretraining import PretrainingModel
from bertjax.tasks.metadata import SentenceMetadata, TaskMetadata, TokenLimits
from bertjax.tasks.registry import open_task
from bertjax.text import sources, tokenizer_training
from bertjax.text.tokenizer import load_tokenizer
from bertjax.trainer import metrics
from tests.support import synthetic
from tests.support.batches import FAMILIES, SMALL
from tests.support.damage import resealed, unsealed
from tests.support.models import from_parts
from tests.support.parity import random_params
from tests.support.tokenizers import sentencepiece_model
from tests.support.trust import Kind, canonical

_PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghijklmnop",
    *(f"##{letter}" for letter in "abcdefghij"),
]
_TEXT = "Abc def, é 漢 [MASK] bad\tcab"
_WORDS = [
    f"{first}{second} the {second}{first} is {first}, and {second}."
    for first in ("abc", "defg", "hij")
    for second in ("klm", "nop", "abcd", "efghi")
]


# -- sealed: the corpus and its caches


def _corpus(folder: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [synthetic.text(rng, size, 3) for size in (4, 3, 3)]
    synthetic.write(folder, {"train": texts[:2], "heldout": texts[2:]})


def _manifest(folder: Path) -> list[str]:
    _corpus(folder)
    return ["corpus.json"]


def _shards(folder: Path) -> list[str]:
    _corpus(folder)
    return [path.name for path in folder.glob("*.arrow")]


def _opened(folder: Path) -> list[Any]:
    """The contents of both splits."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    contents = []
    for split in format.SPLITS:
        corpus = Corpus.open(folder, split)
        arrays = [[shard.document_offsets, shard.sentence_offsets, shard.tokens] for shard in corpus.shards]
        contents.append([corpus.fingerprint, corpus.vocab_size, corpus.tokenizer_hash, arrays])
    return contents


def _resealed_manifest(values: dict[str, Any]) -> dict[str, Any]:
    """Values with new checksums and fingerprint, as by `reseal`."""
    with contextlib.suppress(UserError):
        where = Path("corpus.json")
        values = dataclasses.asdict(decode_manifest(json.dumps(values).encode(), where, resealing=True))
    return resealed(values)


def _same_arrays(value: list[Any], whole: list[Any]) -> bool:
    """Whether all shards have undamaged contents; a manifest may omit shards and name another tokenizer."""
    for actual, expected in zip(value, whole, strict=True):
        shards = [canonical(arrays) for arrays in expected[3]]
        if not all(canonical(arrays) in shards for arrays in actual[3]):
            return False
    return True


def _resealed_shards(folder: Path) -> list[Any]:
    before = (folder / "corpus.json").read_bytes()
    try:
        format.reseal(folder)
        return _opened(folder)
    finally:
        (folder / "corpus.json").write_bytes(before)


def _job(folder: Path) -> BuildJob:
    text = folder / "text.txt"
    options = BuildOptions(str(folder / "given"), seed=1, shard_characters=300)
    return BuildJob(folder / "made", tuple(sources.parse_sources([f"text:{text}"])), options)


def _begun(folder: Path) -> list[str]:
    (folder / "text.txt").write_text("\n\n".join(_WORDS))
    (folder / "given").mkdir()
    _vocabulary(folder / "given")
    build.build_corpus(
        folder / "made", _job(folder).sources, _job(folder).options, processes=1, progress=lambda *_: None
    )
    return ["made/build/plan.json"]


def _continued(folder: Path) -> Any:
    job = _job(folder)
    selection = build._start_or_resume(job, build._build_spec(job), lambda *_: None)
    return [[copies.tolist() for copies in selection.copies], selection.duplicates, selection.thinned]


def _records(folder: Path) -> list[str]:
    _begun(folder)
    return ["made/build/train-00000.arrow.json"]


def _record(folder: Path) -> Any:
    return shard_worker.read_record(folder / "made", "train-00000.arrow")


def _fits_the_shard(record: Any, whole: Any) -> bool:
    return record.shard is None or (record.shard.name, record.shard.tokens) == (
        "train-00000.arrow",
        record.counts.tokens,
    )


def _plan_cache(folder: Path) -> list[str]:
    _corpus(folder)
    _plans(folder)
    return [path.relative_to(folder).as_posix() for path in folder.glob("cache/plan-*/*")]


def _plans(folder: Path) -> Any:
    plans = EpochIndex(Corpus.open(folder), 32, 0, Sequencing())
    return [plans.count(0), hashlib.sha256(plans.examples(0).tobytes()).hexdigest()]


# -- sealed: runs


def _vocabulary(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(_PIECES) + "\n")


@functools.cache
def _tokenizer_files() -> tuple[str, dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder:
        _vocabulary(Path(folder))
        tokenizer = load_tokenizer(folder)
        return tokenizer.hash(), pretrained.tokenizer_files(tokenizer)


def _meta(folder: Path) -> list[str]:
    task = TaskMetadata("table/pairs", "classification", ("no", "yes"), TokenLimits(64, 32), {"text": "first"}, 0.5)
    meta = CheckpointMeta(
        config=Config(phases=(Phase(10, 32, 8), Phase(10, 64, 4))),
        tokenizer=StoredTokenizer(*_tokenizer_files()),
        corpus="fingerprint",
        task=dataclasses.replace(task, run={"seed": 1, "scores": {"dev": {"accuracy": 0.5}}}),
        sentence=SentenceMetadata(length=64),
        step=7,
        metrics=metrics.FilePrefix(100, "0" * 64),
        checksums={"params/a": 2**32 - 1, "params/b": 0},
    )
    (folder / "7" / "meta").mkdir(parents=True)
    (folder / "7" / "meta" / "metadata").write_text(json.dumps(encode_meta(meta)))
    return ["7/meta/metadata"]


def _read_meta(folder: Path) -> Any:
    return store.read_meta(folder / "7")


def _checkpoint(folder: Path) -> list[str]:
    """All files of a model's checkpoint, meta and arrays."""
    with tempfile.TemporaryDirectory() as tokenizer:
        _vocabulary(Path(tokenizer))
        model = from_parts(SMALL, random_params(PretrainingModel(SMALL, "")), Path(tokenizer))
    config = dataclasses.replace(model.config, phases=(Phase(10, 32, 8),))
    pretrained.save(folder / "run", dataclasses.replace(model, config=config))
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _checkpoint_meta(folder: Path) -> list[str]:
    return [name for name in _checkpoint(folder) if name.endswith("meta/metadata")]


def _loaded(folder: Path) -> Any:
    model = load_model(folder / "run")
    return [model.config, jax.tree.map(np.asarray, model.params), model.tokenizer_files, model.task, model.sentence]


def _metrics(folder: Path) -> list[str]:
    records = [{"step": step, "train/loss": 10 / step, "eval/loss": float("nan")} for step in range(1, 21)]
    lines = [json.dumps(record) + "\n" for record in records]
    (folder / "known").write_text(str(sum(map(len, lines[:15]))))
    (folder / "metrics.jsonl").write_text("".join(lines[:15]))
    (folder / "sha256").write_text(metrics.file_prefix(folder / "metrics.jsonl").sha256)
    (folder / "metrics.jsonl").write_text("".join(lines))
    return ["metrics.jsonl"]


def _continued_metrics(folder: Path) -> Any:
    known = metrics.FilePrefix(int((folder / "known").read_text()), (folder / "sha256").read_text())
    metrics.truncate(folder / "metrics.jsonl", known)
    return metrics.read(folder / "metrics.jsonl")


def _read_metrics(folder: Path) -> Any:
    return metrics.read(folder / "metrics.jsonl")


_SWEEP = FinetuneConfig(
    task="table/classification", init_from="model", table=TableConfig("a.csv", "b.csv"), seeds=(0, 1, 2)
)
_USED = {"train": "0" * 64, "dev": "1" * 64, "init_from": "2" * 64}


def _scored(records: dict[str, Any], whole: dict[str, Any]) -> bool:
    """Whether the report of a sweep can be created."""
    summaries = report.summarize("accuracy", "dev", list(records.values()))
    return bool(report.format_table("accuracy", "dev", summaries))


def _sweep(folder: Path) -> list[str]:
    records = []
    for run in _SWEEP.runs():
        scores = {"dev": {"accuracy": 50.0 + run.seed, "mcc": 0.5}}
        results = {"scores": scores, "epoch": 3, "steps": 30, "seconds": 1.5, "examples_per_second": 99.0}
        records.append(json.dumps(decoding.sealed(dataclasses.asdict(run) | results)) + "\n")
    (folder / "runs.jsonl").write_text("".join(records))
    (folder / "config.json").write_text(json.dumps(decoding.sealed(to_dict(_SWEEP))))
    (folder / "data.json").write_text(json.dumps(decoding.sealed(_USED)))
    return ["runs.jsonl", "config.json", "data.json"]


def _resumed_sweep(folder: Path) -> Any:
    """The records of the runs; a run without a record would be repeated, and counts as unchanged."""
    sweep_run._check_same_sweep(_SWEEP, folder)
    sweep_run._check_same_data(_USED, folder)
    records = sweep_run._read_records(folder, ["dev"], "accuracy")
    whole = getattr(_resumed_sweep, "whole", records)
    _resumed_sweep.whole = whole
    return whole | records


# -- exports and files of other programs


def _model(folder: Path, family: str = "bert") -> None:
    model = from_parts(FAMILIES[family], random_params(PretrainingModel(FAMILIES[family], "")), pad_id=0)
    with tempfile.TemporaryDirectory() as tokenizer:
        (Path(tokenizer) / "vocab.txt").write_text("\n".join(_PIECES) + "\n")
        files = store.tokenizer_files(Path(tokenizer))
        model = dataclasses.replace(model, tokenizer=load_tokenizer(tokenizer), tokenizer_files=files)
    folder.rmdir()
    huggingface.export_model(dataclasses.replace(model, sentence=SentenceMetadata("mean", True, length=32)), folder)


def _export(folder: Path) -> list[str]:
    _model(folder)
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _check_export(folder: Path) -> Any:
    export_seal.check_seal(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != export_seal.NAME)
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _export_manifest(folder: Path) -> list[str]:
    _model(folder)
    return [export_seal.NAME]


def _reseal_export(folder: Path) -> Any:
    before = (folder / export_seal.NAME).read_bytes()
    try:
        export_seal.reseal_export(folder)
        return _check_export(folder)
    finally:
        (folder / export_seal.NAME).write_bytes(before)


def _config_of(family: str, folder: Path) -> list[str]:
    _model(folder, family)
    unsealed(folder)
    return ["config.json"]


def _import(folder: Path) -> Any:
    config, params, task, _ = huggingface.import_model(folder)
    return [config, task, sorted(params)]


def _folder(folder: Path) -> list[str]:
    _model(folder)
    unsealed(folder)
    return ["config.json", "model.safetensors"]


def _tensors(folder: Path) -> Any:
    return {name: tensor.shape for name, tensor in weights.read_weights(folder)[0].items()}


def _pickled(folder: Path) -> list[str]:
    import torch

    torch.save({"a": torch.ones(2, 3), "b": torch.ones(4, dtype=torch.float16)}, folder / "pytorch_model.bin")
    return ["pytorch_model.bin"]


def _tensorflow(folder: Path) -> list[str]:
    tf = host_tensorflow.load()
    names = ("bert/pooler/dense/kernel", "bert/x")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = [tf.compat.v1.get_variable(name, initializer=np.ones((2, 3), np.float32)) for name in names]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(variables).save(session, str(folder / "bert_model.ckpt"), write_meta_graph=False)
    return [path.name for path in folder.glob("bert_model.ckpt.*")]


def _safetensors(folder: Path) -> list[str]:
    from safetensors.numpy import save_file

    save_file({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float16)}, folder / "model.safetensors")
    return ["model.safetensors"]


def _index(folder: Path) -> list[str]:
    from safetensors.numpy import save_file

    for name in "ab":
        save_file({name: np.ones((2, 3), np.float32)}, folder / f"{name}.safetensors")
    index = {"metadata": {"total_size": 48}, "weight_map": {name: f"{name}.safetensors" for name in "ab"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return ["model.safetensors.index.json"]


def _read_sentences(folder: Path) -> Any:
    return sentence_transformers.read(folder, 8)


def _sentence_transformers(folder: Path) -> list[str]:
    _model(folder)
    unsealed(folder)
    names = ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json")
    return list(names)


def _tokenizer_folder(folder: Path, *names: str, kind: str = "") -> list[str]:
    if names == ("spiece.model",):
        (folder / names[0]).write_bytes(sentencepiece_model(_WORDS * 5, 300))
    elif kind:
        tokenizer_training.train_tokenizer(f"new:{kind}:300", _WORDS * 5, folder)
    else:
        _vocabulary(folder)
        load_tokenizer(folder).save(folder)
    if "tokenizer.json" not in names:
        (folder / "tokenizer.json").unlink(missing_ok=True)
    if "added_tokens.json" in names:
        (folder / "added_tokens.json").write_text('{"[PAD]": 0, "[MASK]": 4}')
    return list(names)


def _tokenized(folder: Path) -> Any:
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(_TEXT)
    assert all(0 <= index < tokenizer.vocab_size for index in ids), ids
    tokenizer.encode_with_offsets(_TEXT)
    tokenizer.encode_ragged([_TEXT, "a b"])
    return [tokenizer.hash(), ids, tokenizer.encode(_TEXT, special_tokens=True), tokenizer.decode(ids[:3])]


# -- files of tasks


def _squad(folder: Path) -> list[str]:
    answer = {"text": "b c", "answer_start": 2}
    questions = [
        {"id": identity, "question": "what?", "answers": [answer], "is_impossible": False} for identity in "123"
    ]
    questions.append({"id": "4", "question": "why?", "answers": [], "is_impossible": True})
    data = [{"title": "t", "paragraphs": [{"context": "a b c d", "qas": questions}]}]
    (folder / "dev-v2.0.json").write_text(json.dumps({"version": "v2.0", "data": data}))
    return ["dev-v2.0.json"]


def _read_squad(folder: Path) -> Any:
    return open_task("squad/v2.0", str(folder)).read("dev")


def _table(folder: Path, suffix: str) -> list[str]:
    rows = [("a, b", "c", "yes"), ("d\té", "e", "no"), ('f "g"', "h", "yes")] * 3
    if suffix == "jsonl":
        lines = [json.dumps({"text": text, "second": second, "label": label}) for text, second, label in rows]
    else:
        comma = "," if suffix == "csv" else "\t"
        lines = [comma.join(("text", "second", "label"))]
        lines += [comma.join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    (folder / f"a.{suffix}").write_text("\n".join(lines) + "\n")
    return [f"a.{suffix}"]


def _read_table(folder: Path, suffix: str, kind: str = "classification") -> Any:
    file = f"a.{suffix}"
    task = open_task(f"table/{kind}", str(folder), TableConfig(file, file, second="second"))
    return [task.labels, task.read("train")]


def _conll(folder: Path) -> list[str]:
    lines = ["-DOCSTART- -X- -X- O", "", "EU NNP B-NP B-ORG", "rejects VBZ B-VP O", "", "Bonn NNP B-NP I-LOC", ""]
    (folder / "train.txt").write_text("\n".join(lines * 3))
    return ["train.txt"]


def _read_conll(folder: Path) -> Any:
    return open_task("conll2003/ner", str(folder)).read("train")


def _words(folder: Path) -> list[str]:
    (folder / "a.txt").write_text("EU B-ORG\nrejects O\n\nBonn B-LOC\n" * 3)
    return ["a.txt"]


def _read_words(folder: Path) -> Any:
    return open_task("table/tagging", str(folder), TableConfig("a.txt", "a.txt")).read("train")


def kinds() -> list[Kind]:
    """Returns all kinds."""
    again, foreign = "sealed again", "foreign"
    part = functools.partial
    return [
        Kind("corpus manifest", _manifest, read_manifest),
        Kind("corpus manifest, sealed again", _manifest, _opened, again, _same_arrays, _resealed_manifest, share=4),
        Kind("corpus shards", _shards, _opened, share=4),
        Kind("corpus shards, sealed again", _shards, _resealed_shards, again, share=10),
        Kind("build plan", _begun, _continued, share=4),
        Kind("build plan, sealed again", _begun, _continued, again, share=4),
        Kind("shard record", _records, _record),
        Kind("shard record, sealed again", _records, _record, again, _fits_the_shard),
        Kind("plan cache", _plan_cache, _plans, share=10),
        Kind("checkpoint meta", _meta, _read_meta),
        Kind("checkpoint meta, sealed again", _meta, _read_meta, again),
        Kind("checkpoint", _checkpoint, _loaded, share=200),
        Kind("checkpoint, sealed again", _checkpoint_meta, _loaded, again, share=200),
        Kind("metrics", _metrics, _continued_metrics),
        Kind("metrics without checkpoint", _metrics, _read_metrics, foreign),
        Kind("sweep", _sweep, _resumed_sweep),
        Kind("sweep, sealed again", _sweep, _resumed_sweep, again, _scored),
        Kind("export", _export, _check_export),
        Kind("export manifest", _export_manifest, _check_export),
        Kind("export manifest, sealed again", _export_manifest, _check_export, again, share=2),
        Kind("export manifest, reseal", _export_manifest, _reseal_export, again, share=10),
        *(
            Kind(f"Hugging Face config, {name}", part(_config_of, name), configs.read_config, foreign, share=2)
            for name in FAMILIES
        ),
        Kind("Hugging Face folder", _folder, _import, foreign, share=50),
        Kind("weights index", _index, _tensors, foreign),
        Kind("pickled weights", _pickled, _tensors, foreign, share=20),
        Kind("TensorFlow checkpoint", _tensorflow, _tensors, foreign, share=20),
        Kind("safetensors", _safetensors, _tensors, foreign),
        Kind("sentence-transformers", _sentence_transformers, _read_sentences, foreign),
        Kind(
            "tokenizer.json, WordPiece", lambda folder: _tokenizer_folder(folder, "tokenizer.json"), _tokenized, foreign
        ),
        *(
            Kind(
                f"tokenizer.json, {name}",
                lambda folder, kind=kind: _tokenizer_folder(folder, "tokenizer.json", kind=kind),
                _tokenized,
                foreign,
                share=share,
            )
            for name, kind, share in (("BPE", "bpe", 4), ("unigram", "unigram", 4))
        ),
        Kind(
            "vocab.txt",
            lambda folder: _tokenizer_folder(folder, "vocab.txt", "tokenizer_config.json", "added_tokens.json"),
            _tokenized,
            foreign,
        ),
        Kind(
            "SentencePiece model",
            lambda folder: _tokenizer_folder(folder, "spiece.model"),
            _tokenized,
            foreign,
            share=2,
        ),
        Kind("SQuAD", _squad, _read_squad, foreign),
        *(
            Kind(f"table, {suffix}", part(_table, suffix=suffix), part(_read_table, suffix=suffix), foreign)
            for suffix in ("csv", "tsv", "jsonl")
        ),
        Kind("CoNLL-2003", _conll, _read_conll, foreign),
        Kind("words with labels", _words, _read_words, foreign),
    ]
