"""The predict command and the predictors."""

import dataclasses
import json
import os
import shutil
import subprocess

import jax
import numpy as np
import pytest

from bertjax.checkpoints import pretrained
from bertjax.errors import UserError
from bertjax.inference.predictor import PredictOptions, load_predictor, make_predictor
from bertjax.interop.loading import load_model
from bertjax.model.pretraining import PretrainingModel
from bertjax.tasks.kinds.catalog import kind_named
from bertjax.tasks.metadata import TaskMetadata, TokenLimits
from bertjax.text.tokenizer import load_tokenizer
from tests.support.batches import FAMILIES
from tests.support.commands import ROOT, assert_refused, command, run

TEXTS = [
    "a list",
    "the value of an expression is returned by the call of a function " * 2,
    "if it is not found, an exception is raised",
    "names",
    "the left operand of the operator",
]


@pytest.fixture(scope="module")
def model(trained):
    return load_model(trained)


@pytest.fixture(scope="module")
def tuned(model):
    """A function that makes a model with a random head."""

    def make_tuned(kind: str, labels: tuple[str, ...] = (), **more) -> pretrained.Pretrained:
        size = len(labels) or (2 if kind == "span" else 1)
        rng = np.random.default_rng(0)
        params = {name: model.params[name] for name in ("embeddings", "encoder", "pooler")}
        params["task_head"] = {"kernel": rng.normal(size=(32, size)), "bias": rng.normal(size=size)}
        params = jax.tree.map(lambda array: np.asarray(array, np.float32), params)
        return dataclasses.replace(
            model, params=params, task=TaskMetadata(**{"name": "", "kind": kind, "labels": tuple(labels)} | more)
        )

    return make_tuned


def unpadded_batch(model, text: str, text_pair: str | None = None) -> dict[str, np.ndarray]:
    """A batch of one row without padding."""
    tokenizer = model.tokenizer
    ids = [tokenizer.cls_id, *tokenizer.encode(text), tokenizer.sep_id]
    types = [0] * len(ids)
    if text_pair is not None:
        ids += [*tokenizer.encode(text_pair), tokenizer.sep_id]
        types += [1] * (len(ids) - len(types))
    ids = np.array([ids], np.int32)
    return {"input_ids": ids, "token_type_ids": np.array([types], np.int32), "attention_mask": np.ones_like(ids)}


def logits(model, batch: dict) -> np.ndarray:
    tuned = kind_named(model.task.kind).model(model.config.model, model.task.labels)
    return np.array(tuned.apply({"params": model.params}, batch)["logits"][0])


def test_fill_mask_returns_the_softmax_of_the_model(model):
    """Batched and padded predictions equal those of the model for one text at a time."""
    texts = ["the [MASK] of a list", "[MASK]", "a longer text with a [MASK] here and a [MASK] there " * 3]
    for text, answers in zip(texts, make_predictor(model, "fill-mask", PredictOptions(top=3))(texts), strict=True):
        answers = answers["masks"]
        ids = model.tokenizer.encode(text, special_tokens=True)
        ids = np.array([[model.tokenizer.cls_id, *ids, model.tokenizer.sep_id]], np.int32)
        positions = np.nonzero(ids[0] == model.tokenizer.mask_id)[0][None]
        batch = {
            "input_ids": ids,
            "token_type_ids": np.zeros_like(ids),
            "attention_mask": np.ones_like(ids),
            "masked_lm_positions": positions.astype(np.int32),
        }
        logits = PretrainingModel(model.config.model).apply({"params": model.params}, batch)["masked_lm_logits"][0]
        logits = np.array(logits)
        logits[:, list(model.tokenizer.special_ids)] = -np.inf
        probabilities = np.array(jax.nn.softmax(logits, axis=-1))
        assert len(answers) == positions.shape[1]
        for answer, row in zip(answers, probabilities, strict=True):
            best = np.sort(row)[::-1][:3]
            np.testing.assert_allclose([guess["probability"] for guess in answer], best, atol=2e-6)
            assert answer[0]["token"] == model.tokenizer.id_to_token(int(row.argmax()))


@pytest.mark.parametrize("family", ["albert", "modernbert"])
def test_other_families_match_their_module(family, model):
    """Shared layers, and encoders with parameters outside of the stacks of layers."""
    shape = dataclasses.replace(FAMILIES[family], vocab_size=model.tokenizer.vocab_size)
    module = PretrainingModel(shape, pairs="")
    batch = unpadded_batch(model, "the list of values")
    positions = np.arange(batch["input_ids"].shape[1], dtype=np.int32)[None]
    variables = jax.jit(module.init)(jax.random.key(0), batch | {"masked_lm_positions": positions})
    config = dataclasses.replace(model.config, model=shape, next_sentence=False)
    imported = dataclasses.replace(model, params=jax.device_get(variables["params"]), config=config)
    expected = module.apply(variables, batch, method="encode")[0].mean(axis=0)
    vectors = make_predictor(imported, "embed").array(["the list of values", "a"])
    np.testing.assert_allclose(vectors[0], expected, atol=1e-5)


def test_ids_beyond_the_vocabulary_are_not_predicted(model):
    """The vocabulary of a model may be padded; here the padding has the largest logits."""
    ids = model.tokenizer.vocab_size
    shape = dataclasses.replace(model.config.model, vocab_size=ids + 100)
    rows = shape.padded_vocab_size
    table = model.params["embeddings"]["word_embeddings"]["embedding"]
    params = jax.tree.map(lambda leaf: leaf, model.params)  # new dicts, the same arrays
    params["embeddings"]["word_embeddings"]["embedding"] = np.resize(table, (rows, table.shape[1]))
    params["masked_lm_head"]["bias"] = np.where(np.arange(rows) < ids, -50, 50).astype(np.float32)
    padded = dataclasses.replace(
        model, params=params, config=dataclasses.replace(model.config, model=shape, next_sentence=False)
    )
    (answer,) = make_predictor(padded, "fill-mask", PredictOptions(top=3))(["the [MASK] of a list"])
    assert all(model.tokenizer.token_to_id(guess["token"]) < ids for guess in answer["masks"][0])


def test_command_reads_arguments_files_and_stdin(trained, tmp_path):
    texts = ["the [MASK] of a list", "is [MASK] or [MASK]"]
    file = tmp_path / "texts.txt"
    file.write_text("\n".join([texts[0], "", texts[1]]))
    outputs = [
        run("predict", "fill-mask", f"--checkpoint={trained}", *texts),
        run("predict", "fill-mask", f"--checkpoint={trained}", f"--input={file}"),
        run("predict", "fill-mask", f"--checkpoint={trained}", input="\n".join(texts)),
    ]
    for output in outputs:
        assert output.returncode == 0, output.stderr
        assert output.stdout == outputs[0].stdout
    records = [json.loads(line) for line in outputs[0].stdout.splitlines()]
    assert [record["text"] for record in records] == texts
    assert [len(record["masks"]) for record in records] == [1, 2]
    assert all(len(mask) == 5 for record in records for mask in record["masks"])


def test_invalid_inputs_are_refused(trained, model, tmp_path):
    fill = make_predictor(model)
    with pytest.raises(UserError, match=r"input 1, 'no mask': the text contains no \[MASK\]; write \[MASK\]"):
        fill(["no mask"])
    with pytest.raises(UserError, match="the model reads at most 64; shorten"):
        fill(["[MASK] word" * 100])
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "latin").write_bytes("Stra\xdfe".encode("latin-1"))
    for name, problem in (("none", "cannot be read"), ("empty", "no text found"), ("latin", "not UTF-8 at byte 4")):
        refused = run("predict", "fill-mask", f"--checkpoint={trained}", f"--input={tmp_path / name}")
        assert_refused(refused, f"{tmp_path / name}: {problem}")
    with (tmp_path / "latin").open("rb") as stdin:
        refused = run("predict", "fill-mask", f"--checkpoint={trained}", stdin=stdin)
    assert_refused(refused, "stdin: not UTF-8 at byte 4")
    latin = os.fsdecode(b"caf\xe9 [MASK]")
    assert_refused(run("predict", "fill-mask", f"--checkpoint={trained}", latin), "is not UTF-8")
    dance = run("predict", "dance", f"--checkpoint={trained}")
    assert_refused(dance, "unknown mode 'dance'", "choose one of fill-mask")
    assert_refused(
        run("predict", "fill-mask", f"--checkpoint={trained}", "[MASK]", " "), "the command line: a text is empty"
    )


def test_classify_returns_the_softmax_of_the_model_in_input_order(tuned):
    """Batched and padded predictions equal those of the model for one text at a time."""
    model = tuned("classification", ("bad", "so-so", "good"))
    inputs = [*TEXTS, {"text": "a list", "text_pair": "a tuple"}]
    records = make_predictor(model, options=PredictOptions(tokens_per_batch=40))(inputs)
    for text, record in zip(inputs, records, strict=True):
        parts = list(text.values()) if isinstance(text, dict) else [text]
        expected = np.array(jax.nn.softmax(logits(model, unpadded_batch(model, *parts))))
        assert list(record["probabilities"]) == ["bad", "so-so", "good"]
        np.testing.assert_allclose(list(record["probabilities"].values()), expected, atol=2e-6)
        assert record["label"] == ("bad", "so-so", "good")[expected.argmax()]
        assert record["probability"] == max(record["probabilities"].values())
        assert [record["text"], *([record["text_pair"]] if len(parts) == 2 else [])] == parts


def test_predictions_of_other_kinds_of_tasks(tuned):
    for record in make_predictor(tuned("multi_label", ("joy", "fear", "anger")))(TEXTS):
        assert record["labels"] == [name for name, value in record["probabilities"].items() if value > 0.5]
    (scored,) = make_predictor(tuned("regression"))([("a list", "a tuple")])
    assert scored["score"] == pytest.approx(
        float(logits(tuned("regression"), unpadded_batch(tuned("regression"), "a list", "a tuple"))[0]), abs=2e-6
    )
    ends = ["returns", "is raised", "of a list"]
    (chosen,) = make_predictor(tuned("choice"))([{"text": "the call", "choices": ends}])
    scores = [logits(tuned("choice"), unpadded_batch(tuned("choice"), "the call", end))[0] for end in ends]
    np.testing.assert_allclose(chosen["probabilities"], jax.nn.softmax(np.array(scores)), atol=2e-6)
    assert chosen["choice"] == int(np.argmax(scores))
    # Every word of a text that is longer than the model has a label.
    words = " ".join(TEXTS * 4)
    long, short = make_predictor(tuned("tagging", ("O", "B-X", "I-X")))([words, {"words": ["a", "list"]}])
    assert long["words"] == words.split()
    assert len(long["labels"]) == len(long["probabilities"]) == len(words.split())
    assert short["words"] == ["a", "list"]
    tagger = tuned("tagging", ("O", "B-X", "I-X"))
    firsts = np.cumsum([1, len(tagger.tokenizer.encode("a"))])
    expected = np.array(jax.nn.softmax(logits(tagger, unpadded_batch(tagger, "a list"))[firsts]))
    np.testing.assert_allclose(short["probabilities"], expected.max(axis=-1), atol=2e-6)
    assert short["labels"] == [("O", "B-X", "I-X")[label] for label in expected.argmax(axis=-1)]


def test_a_length_is_compiled_once(tuned):
    """The numbers of words and of windows do not change the program."""
    compiled = []

    def listen(event: str, duration: float, **about: str) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(about["fun_name"])

    predict = make_predictor(tuned("tagging", ("O", "B-X")), options=PredictOptions(tokens_per_batch=64))
    predict([["a", "list"]])
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        predict([["interpreter's"] * 3, ["of"]])  # words of several tokens, and of one
        predict([["a"] * count for count in range(9, 15)])
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compiled) <= 3


def test_unanswerable_questions_depend_on_the_threshold(tuned):
    inputs = [("Which list?", " ".join(TEXTS * 3)), {"question": "What is raised?", "context": TEXTS[2]}]
    answered = make_predictor(tuned("span", name="squad/v1.1"))(inputs)
    passages = [inputs[0][1], inputs[1]["context"]]
    for record, passage in zip(answered, passages, strict=True):
        assert record["answer"] and record["answer"] in passage
        best = {answer["answer"]: answer["probability"] for answer in record["best"]}
        assert record["probability"] == best[record["answer"]]
    assert all(record["answer"] == "" for record in make_predictor(tuned("span", threshold=-1e9))(inputs))
    assert all(record["answer"] for record in make_predictor(tuned("span", name="squad/v2.0", threshold=1e9))(inputs))


def test_embeddings_are_means_of_states(model, tuned, tmp_path):
    expected = []
    for text in TEXTS:
        hidden = PretrainingModel(model.config.model).apply(
            {"params": model.params}, unpadded_batch(model, text), method="encode"
        )
        expected.append(np.array(hidden[0]))
    means = np.stack([states.mean(axis=0) for states in expected])
    np.testing.assert_allclose(make_predictor(model, "embed").array(TEXTS), means, atol=2e-5)
    unit = make_predictor(tuned("span"), "embed", PredictOptions(normalize=True, tokens_per_batch=40))(TEXTS)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose([record["embedding"] for record in unit], means / lengths, atol=2e-5)
    for pooling, pool in (("cls", lambda states: states[0]), ("max", lambda states: states.max(axis=0))):
        pooled = make_predictor(model, "embed", PredictOptions(pooling=pooling)).array(TEXTS)
        np.testing.assert_allclose(pooled, np.stack([pool(states) for states in expected]), atol=2e-5)


def test_int8_and_bfloat16_predict_nearly_the_same(tuned):
    model = tuned("classification", ("bad", "so-so", "good"))
    texts = [text[start:] for text in TEXTS for start in range(0, len(text) - 5, 3)]
    exact = make_predictor(model)(texts)
    for options in (
        PredictOptions(weight_dtype="int8"),
        PredictOptions(dtype="bfloat16"),
        PredictOptions("bfloat16", "int8"),
    ):
        close = make_predictor(model, options=options)(texts)
        differences = [
            abs(a["probabilities"]["bad"] - b["probabilities"]["bad"]) for a, b in zip(exact, close, strict=True)
        ]
        assert 0 < max(differences) < 0.03
        assert np.mean([a["label"] == b["label"] for a, b in zip(exact, close, strict=True)]) > 0.95


def test_long_texts_are_truncated(tuned):
    """For classes and vectors; answers and tags use windows."""
    model, long = tuned("classification", ("bad", "good")), "the value of a list " * 100
    ids = model.tokenizer.encode(long)[:62]
    begin = model.tokenizer.decode(ids)
    assert model.tokenizer.encode(begin) == ids
    whole, beginning = make_predictor(model)([long, begin])
    assert whole["probabilities"] == beginning["probabilities"]
    np.testing.assert_array_equal(*make_predictor(model, "embed").array([long, begin]))


def test_invalid_options_are_refused_before_the_model_is_loaded(tmp_path):
    for options, message in (
        ({"tokns": 3}, "tokns: unknown option; choose from dtype, weight_dtype, tokens_per_batch"),
        ({"tokens_per_batch": "3"}, "tokens_per_batch is '3'; it must be an integer of at least 1"),
        ({"texts": "abc"}, "texts is a single text; give a list"),
        ({"dtype": "float16"}, "dtype is 'float16'; it must be one of 'float32', 'bfloat16'"),
    ):
        with pytest.raises(UserError, match=message):
            load_predictor(tmp_path / "nowhere", **options)


def test_unsupported_modes_and_inputs_are_refused(model, tuned):
    for source, mode, message in (
        (model, "classify", "is not fine-tuned and supports fill-mask, embed, search, but not classify; choose"),
        (
            tuned("tagging", ("O",)),
            "answer",
            "is fine-tuned for tagging and supports tag, embed, search, but not answer",
        ),
        (model, "dance", "'dance' is not a mode; choose from fill-mask, classify"),
        (tuned("similarity"), "classify", "is fine-tuned for similarity and supports embed, search, but not classify"),
    ):
        with pytest.raises(UserError, match=message):
            make_predictor(source, mode)
    classify = make_predictor(tuned("classification", ("a", "b")))
    for invalid, message in (
        ({"txt": "a"}, "input 2: not valid .Object missing required field `text`.; give a text, a tuple of two texts"),
        ({"text": 3}, "input 2: not valid .text: Expected `str`, got `int`"),
        (" ", "input 2: the text is empty"),
        ({"text": "\ud800"}, "input 2: invalid text"),
        ("a " * 150_000, "input 2: the text has 300,000 characters"),
    ):
        with pytest.raises(UserError, match=message) as refused:
            classify(["valid", invalid])
        assert "\n" not in str(refused.value)


def test_commands_print_the_records_of_the_predictors(tuned, tmp_path):
    """Also refuses invalid arguments, flags and lines."""
    cases = {
        "answer": (tuned("span", name="squad/v1.1"), ("Which list?", TEXTS[1]), '{"question": "a", "passage": 3}'),
        "tag": (tuned("tagging", ("O", "B-X")), "a list", '{"words": []}'),
        "choose": (tuned("choice"), {"text": "the call", "choices": ["returns", "is raised"]}, "a text alone"),
    }
    for mode, (model, value, invalid) in cases.items():
        pretrained.save(tmp_path / mode, model)
        arguments = [value["text"], *value["choices"]] if isinstance(value, dict) else [value]
        arguments = list(value) if isinstance(value, tuple) else arguments
        output = run("predict", mode, f"--checkpoint={tmp_path / mode}", *arguments)
        assert output.returncode == 0, output.stderr
        assert [json.loads(output.stdout)] == json.loads(json.dumps(make_predictor(model)([value])))
        refused = run("predict", mode, f"--checkpoint={tmp_path / mode}", input=f"{invalid}\n")
        assert_refused(refused, "stdin, line 1:")
    checkpoint = f"--checkpoint={tmp_path / 'tag'}"
    assert_refused(
        run("predict", "answer", f"--checkpoint={tmp_path / 'answer'}", "a"),
        "answer takes a question and a passage, not 1 texts",
    )
    assert_refused(
        run("predict", "tag", checkpoint, "a", "--texts=x"), "search requires it, and other modes do not accept it"
    )
    assert_refused(run("predict", "tag", checkpoint, "a", "--output=x.npy"), "--output=x.npy: only embed supports it")
    assert_refused(
        run("predict", "embed", checkpoint, "a", "--output=x.txt"),
        "--output=x.txt: only embed supports it, and the file must end in .npy",
    )
    assert_refused(
        run("predict", "search", checkpoint, "a", f"--texts={tmp_path}/none"),
        "none: cannot be read (No such file or directory); check --texts",
    )
    (tmp_path / "texts").write_text('a\n{"text": " "}\n')
    assert_refused(run("predict", "search", checkpoint, "a", f"--texts={tmp_path}/texts"), "texts, line 2: the text is")
    digits = '{"text": ' + "1" * 5000 + "}"
    assert_refused(run("predict", "tag", checkpoint, input=digits), "line 1: not valid (not JSON")


def test_a_closed_stdout_is_not_an_error(tuned, tmp_path):
    pretrained.save(tmp_path / "run", tuned("classification", ("bad", "good")))
    (tmp_path / "texts").write_text("a list\n" * 5000)
    flags = [f"--checkpoint={tmp_path / 'run'}", f"--input={tmp_path}/texts"]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    process = subprocess.Popen(command("predict", "classify", *flags), **options)
    assert process.stdout.readline()
    process.stdout.close()
    assert "Error" not in process.stderr.read()
    assert process.wait() == 141


def test_command_reads_objects_and_writes_arrays(tuned, tmp_path):
    """Lines that are not valid JSON are refused."""
    pretrained.save(tmp_path / "run", tuned("classification", ("bad", "good")))
    lines = tmp_path / "pairs.jsonl"
    lines.write_text('{"text": "a list", "text_pair": "a tuple"}\n\nnames\n')
    output = run("predict", "classify", f"--checkpoint={tmp_path / 'run'}", f"--input={lines}", "--weight_dtype=int8")
    assert output.returncode == 0, output.stderr
    assert [json.loads(line).get("text_pair") for line in output.stdout.splitlines()] == ["a tuple", None]
    array = tmp_path / "texts.npy"
    output = run("predict", "embed", f"--checkpoint={tmp_path / 'run'}", f"--output={array}", *TEXTS)
    assert output.returncode == 0 and not output.stdout, output.stderr
    assert np.load(array).shape == (len(TEXTS), 32)
    lines.write_text('names\n{"text": "a list"\n')
    refused = run("predict", "classify", f"--checkpoint={tmp_path / 'run'}", f"--input={lines}")
    assert_refused(refused, "line 2: not valid (not JSON")


@pytest.fixture(scope="module")
def wrong_case(model, corpus, tmp_path_factory):
    """The model with its uncased vocabulary loaded as a cased one."""
    folder = tmp_path_factory.mktemp("vocabulary")
    shutil.copy(corpus / "tokenizer/vocab.txt", folder)
    tokenizer = load_tokenizer(folder, lowercase=False)
    return dataclasses.replace(model, tokenizer=tokenizer, tokenizer_files=pretrained.tokenizer_files(tokenizer))


def count_lines(result: subprocess.CompletedProcess) -> list[str]:
    assert result.returncode == 0, result.stderr
    return [line for line in result.stderr.splitlines() if "unknown ([UNK])" in line or "truncated" in line]


def test_commands_log_unknown_tokens_and_truncated_inputs(trained, wrong_case, model, tmp_path):
    """Once for all inputs, with a warning for each share above 1 %."""
    pretrained.save(tmp_path / "run", wrong_case)
    lines = [f"the value of item {number}" for number in range(3000)]  # several chunks
    (tmp_path / "texts").write_text("\n".join(lines))
    output = run("predict", "embed", f"--checkpoint={trained}", f"--input={tmp_path}/texts", "--tokens_per_batch=16384")
    tokens = sum(map(len, model.tokenizer.encode_batch(lines)))
    assert count_lines(output) == [
        f"0 of {tokens:,} tokens (0.00%) unknown ([UNK]), 0 of 3,000 examples (0.00%) truncated"
    ]
    assert all(json.loads(line)["embedding"] for line in output.stdout.splitlines())
    texts = ["a LIST", "a list " * 100]
    array = tmp_path / "texts.npy"
    warnings = [
        "warning: 1 of 64 tokens (1.56%) unknown ([UNK]): check that the tokenizer is the model's own",
        "warning: 1 of 2 examples (50.00%) truncated: the model's length is 64 tokens; shorten or split the texts",
        "1 of 64 tokens (1.56%) unknown ([UNK]), 1 of 2 examples (50.00%) truncated",
    ]
    for more in ((), (f"--output={array}",)):
        output = run("predict", "embed", f"--checkpoint={tmp_path}/run", *more, *texts)
        lines = count_lines(output)
        assert len(lines) == 3 and all(map(str.startswith, lines, warnings)), lines
    assert "--lowercase of convert and prepare" in output.stderr
    # The texts to search are counted, too.
    (tmp_path / "texts").write_text("THE VALUE\n")
    output = run("predict", "search", f"--checkpoint={tmp_path}/run", f"--texts={tmp_path}/texts", "the value")
    assert count_lines(output)[-1].startswith("2 of 4 tokens (50.00%) unknown ([UNK]), 0 of 2 examples")


def test_predictors_warn_once_about_each_share(wrong_case, tuned, messages):
    """They log nothing else, and special tokens in a text are not unknown."""
    classify = make_predictor(
        dataclasses.replace(tuned("classification", ("bad", "good")), tokenizer=wrong_case.tokenizer)
    )
    messages.clear()
    classify(["the value of a list", {"text": "a list", "text_pair": "a [list]"}])
    assert not messages and classify.counts.total.examples == 2
    for _ in range(2):
        classify(["THE VALUE of a list"])
    assert len(messages) == 1 and "2 of" in messages[0] and classify.counts.total.unknown == 4
    classify(["a list " * 100])
    assert len(messages) == 2 and messages[1].endswith("the model's length is 64 tokens; shorten or split the texts")
    fill, tag = make_predictor(wrong_case), make_predictor(tuned("tagging", ("O", "B-X")))
    messages.clear()
    tag(["[UNK] [PAD]"])  # ordinary text
    assert not messages and tag.counts.total.unknown == 0
    fill(["the [MASK] of [UNK] [MASK]"])
    assert not messages and (fill.counts.total.tokens, fill.counts.total.unknown) == (2, 0)
    fill(["THE [MASK]"])
    assert len(messages) == 1 and messages[0].startswith("1 of 3 tokens (33.33%) unknown ([UNK])")


def test_windows_are_not_truncated_and_warnings_name_the_limit(tuned, messages):
    long = " ".join(TEXTS * 4)
    tag, answer = (
        make_predictor(tuned("tagging", ("O", "B-X"))),
        make_predictor(tuned("span", limits=TokenLimits(64, 16, 8))),
    )
    messages.clear()
    tag([long])
    answer([("Which list?", long)])
    assert not messages and tag.counts.total.examples == answer.counts.total.examples == 1
    answer([(long, "a list")])
    assert len(messages) == 1 and "1 of 2 examples (50.00%) truncated: the model's question_length is 8" in messages[0]
    assert messages[0].endswith("or fine-tune with a larger config.question_length")
