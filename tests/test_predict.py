"""The predict command, and its use from Python."""

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
from bertjax.inference.predictor import Options, load, make
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
    """Makes a model with a random head of a kind."""

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


def alone(model, first: str, second: str | None = None) -> dict[str, np.ndarray]:
    """A batch of one row without padding."""
    tokenizer = model.tokenizer
    ids = [tokenizer.cls_id, *tokenizer.encode(first), tokenizer.sep_id]
    types = [0] * len(ids)
    if second is not None:
        ids += [*tokenizer.encode(second), tokenizer.sep_id]
        types += [1] * (len(ids) - len(types))
    ids = np.array([ids], np.int32)
    return {"input_ids": ids, "token_type_ids": np.array([types], np.int32), "attention_mask": np.ones_like(ids)}


def logits(model, batch: dict) -> np.ndarray:
    tuned = kind_named(model.task.kind).model(model.config.model, model.task.labels)
    return np.array(tuned.apply({"params": model.params}, batch)["logits"][0])


def test_fill_mask_is_the_model_s_softmax_whatever_stands_beside_it(model):
    """Against the model itself, one text at a time; batching and padding change nothing."""
    texts = ["the [MASK] of a list", "[MASK]", "a longer text with a [MASK] here and a [MASK] there " * 3]
    for text, answers in zip(texts, make(model, "fill-mask", Options(top=3))(texts), strict=True):
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
def test_descendants_are_read_as_they_are_trained(family, model):
    """Shared layers, and encoders with more than stacks of layers."""
    shape = dataclasses.replace(FAMILIES[family], vocab_size=model.tokenizer.vocab_size)
    module = PretrainingModel(shape, pairs="")
    batch = alone(model, "the list of values")
    positions = np.arange(batch["input_ids"].shape[1], dtype=np.int32)[None]
    variables = jax.jit(module.init)(jax.random.key(0), batch | {"masked_lm_positions": positions})
    config = dataclasses.replace(model.config, model=shape, next_sentence=False)
    descendant = dataclasses.replace(model, params=jax.device_get(variables["params"]), config=config)
    expected = module.apply(variables, batch, method="encode")[0].mean(axis=0)
    found = make(descendant, "embed").array(["the list of values", "a"])
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_no_mask_is_filled_with_an_id_that_is_no_token(model):
    """A model's vocabulary may be rounded up; here what is no token is likelier than any."""
    ids = model.tokenizer.vocab_size
    shape = dataclasses.replace(model.config.model, vocab_size=ids + 100)
    rows = shape.padded_vocab_size
    table = model.params["embeddings"]["word_embeddings"]["embedding"]
    params = jax.tree.map(lambda leaf: leaf, model.params)  # new dicts, the same arrays
    params["embeddings"]["word_embeddings"]["embedding"] = np.resize(table, (rows, table.shape[1]))
    params["masked_lm_head"]["bias"] = np.where(np.arange(rows) < ids, -50, 50).astype(np.float32)
    rounded_up = dataclasses.replace(
        model, params=params, config=dataclasses.replace(model.config, model=shape, next_sentence=False)
    )
    (answer,) = make(rounded_up, "fill-mask", Options(top=3))(["the [MASK] of a list"])
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


def test_bad_input_is_refused(trained, model, tmp_path):
    fill = make(model)
    with pytest.raises(UserError, match=r"input 1, 'no mask': there is no \[MASK\]"):
        fill(["no mask"])
    with pytest.raises(UserError, match="at most 64"):
        fill(["[MASK] word" * 100])
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "latin").write_bytes("Stra\xdfe".encode("latin-1"))
    for name, says in (("none", "cannot read"), ("empty", "there is no text"), ("latin", "not UTF-8 at byte 4")):
        assert_refused(run("predict", "fill-mask", f"--checkpoint={trained}", f"--input={tmp_path / name}"), says)
    with (tmp_path / "latin").open("rb") as stdin:
        refused = run("predict", "fill-mask", f"--checkpoint={trained}", stdin=stdin)
    assert_refused(refused, "stdin is not UTF-8 at byte 4")
    latin = os.fsdecode(b"caf\xe9 [MASK]")
    assert_refused(run("predict", "fill-mask", f"--checkpoint={trained}", latin), "is not UTF-8")
    assert_refused(run("predict", "dance", f"--checkpoint={trained}"), "usage")
    assert_refused(run("predict", "fill-mask", f"--checkpoint={trained}", "[MASK]", " "), "the command line is empty")


def test_classes_are_the_model_s_in_the_order_of_the_texts(tuned):
    """One text alone and without padding says the same as many in batches by length."""
    model = tuned("classification", ("bad", "so-so", "good"))
    asked = [*TEXTS, {"text": "a list", "second": "a tuple"}]
    records = make(model, options=Options(tokens=40))(asked)
    for text, record in zip(asked, records, strict=True):
        parts = list(text.values()) if isinstance(text, dict) else [text]
        expected = np.array(jax.nn.softmax(logits(model, alone(model, *parts))))
        assert list(record["probabilities"]) == ["bad", "so-so", "good"]
        np.testing.assert_allclose(list(record["probabilities"].values()), expected, atol=2e-6)
        assert record["label"] == ("bad", "so-so", "good")[expected.argmax()]
        assert record["probability"] == max(record["probabilities"].values())
        assert [record["text"], *([record["second"]] if len(parts) == 2 else [])] == parts


def test_other_tasks_answer_in_their_own_words(tuned):
    several = make(tuned("multi_label", ("joy", "fear", "anger")))(TEXTS)
    for record in several:
        assert record["labels"] == [name for name, value in record["probabilities"].items() if value > 0.5]
    (scored,) = make(tuned("regression"))([("a list", "a tuple")])
    assert scored["score"] == pytest.approx(
        float(logits(tuned("regression"), alone(tuned("regression"), "a list", "a tuple"))[0]), abs=2e-6
    )
    ends = ["returns", "is raised", "of a list"]
    (chosen,) = make(tuned("choice"))([{"text": "the call", "choices": ends}])
    scores = [logits(tuned("choice"), alone(tuned("choice"), "the call", end))[0] for end in ends]
    np.testing.assert_allclose(chosen["probabilities"], jax.nn.softmax(np.array(scores)), atol=2e-6)
    assert chosen["choice"] == int(np.argmax(scores))
    # Longer than the model reads at once: every word has a label nevertheless.
    words = " ".join(TEXTS * 4)
    tagged, again = make(tuned("tagging", ("O", "B-X", "I-X")))([words, {"words": ["a", "list"]}])
    assert tagged["words"] == words.split() and len(tagged["labels"]) == len(tagged["probabilities"]) == len(
        words.split()
    )
    assert again["words"] == ["a", "list"]
    tagger = tuned("tagging", ("O", "B-X", "I-X"))
    firsts = np.cumsum([1, len(tagger.tokenizer.encode("a"))])
    expected = np.array(jax.nn.softmax(logits(tagger, alone(tagger, "a list"))[firsts]))
    np.testing.assert_allclose(again["probabilities"], expected.max(axis=-1), atol=2e-6)
    assert again["labels"] == [("O", "B-X", "I-X")[place] for place in expected.argmax(axis=-1)]


def test_a_length_is_compiled_once_whatever_stands_in_it(tuned):
    """Words and windows, of which one text has more than another, are no reason for a program."""
    compiled = []

    def listen(event: str, duration: float, **about: str) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(about["fun_name"])

    predict = make(tuned("tagging", ("O", "B-X")), options=Options(tokens=64))
    predict([["a", "list"]])
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        predict([["interpreter's"] * 3, ["of"]])  # of many pieces, and of few
        predict([["a"] * count for count in range(9, 15)])
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert len(compiled) <= 3


def test_no_answer_is_given_only_where_the_model_has_learned_that_there_may_be_none(tuned):
    asked = [("Which list?", " ".join(TEXTS * 3)), {"question": "What is raised?", "context": TEXTS[2]}]
    answered = make(tuned("span", name="squad/v1.1"))(asked)
    passages = [asked[0][1], asked[1]["context"]]
    for record, passage in zip(answered, passages, strict=True):
        assert record["answer"] and record["answer"] in passage
        assert (
            record["probability"]
            == dict((one["answer"], one["probability"]) for one in record["best"])[record["answer"]]
        )
    assert all(record["answer"] == "" for record in make(tuned("span", threshold=-1e9))(asked))
    assert all(record["answer"] for record in make(tuned("span", name="squad/v2.0", threshold=1e9))(asked))


def test_embeddings_are_means_of_states(model, tuned, tmp_path):
    expected = []
    for text in TEXTS:
        hidden = PretrainingModel(model.config.model).apply(
            {"params": model.params}, alone(model, text), method="encode"
        )
        expected.append(np.array(hidden[0]))
    means = np.stack([states.mean(axis=0) for states in expected])
    np.testing.assert_allclose(make(model, "embed").array(TEXTS), means, atol=2e-5)
    unit = make(tuned("span"), "embed", Options(normalize=True, tokens=40))(TEXTS)
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    np.testing.assert_allclose([record["embedding"] for record in unit], means / lengths, atol=2e-5)
    for pooling, pool in (("cls", lambda states: states[0]), ("max", lambda states: states.max(axis=0))):
        found = make(model, "embed", Options(pooling=pooling)).array(TEXTS)
        np.testing.assert_allclose(found, np.stack([pool(states) for states in expected]), atol=2e-5)


def test_eight_bits_and_half_precision_say_nearly_the_same(tuned):
    model = tuned("classification", ("bad", "so-so", "good"))
    texts = [text[start:] for text in TEXTS for start in range(0, len(text) - 5, 3)]
    exact = make(model)(texts)
    for options in (Options(weights="int8"), Options(dtype="bfloat16"), Options("bfloat16", "int8")):
        close = make(model, options=options)(texts)
        differences = [
            abs(a["probabilities"]["bad"] - b["probabilities"]["bad"]) for a, b in zip(exact, close, strict=True)
        ]
        assert 0 < max(differences) < 0.03
        assert np.mean([a["label"] == b["label"] for a, b in zip(exact, close, strict=True)]) > 0.95


def test_only_the_beginning_of_a_long_text_is_read(tuned):
    """Of classes, numbers and vectors; answers and tags are found everywhere."""
    model, long = tuned("classification", ("bad", "good")), "the value of a list " * 100
    ids = model.tokenizer.encode(long)[:62]
    begin = model.tokenizer.decode(ids)
    assert model.tokenizer.encode(begin) == ids
    whole, beginning = make(model)([long, begin])
    assert whole["probabilities"] == beginning["probabilities"]
    np.testing.assert_array_equal(*make(model, "embed").array([long, begin]))


def test_options_that_make_no_sense_are_refused_before_the_model_is_read(tmp_path):
    for options, says in (
        ({"tokns": 3}, "tokns: no such option; there are dtype, weights, tokens"),
        ({"tokens": "3"}, "tokens is '3'; it must be an integer"),
        ({"texts": "abc"}, "texts is a single text"),
        ({"dtype": "float16"}, "dtype is 'float16'; it must be one of float32, bfloat16"),
    ):
        with pytest.raises(UserError, match=says):
            load(tmp_path / "nowhere", **options)


def test_what_a_model_cannot_do_is_refused(model, tuned):
    for source, mode, says in (
        (model, "classify", "is not fine-tuned: it can fill-mask, embed, search, but not classify"),
        (tuned("tagging", ("O",)), "answer", "fine-tuned for tagging: it can tag, embed, search, but not answer"),
        (model, "dance", "'dance' is not a mode"),
        (tuned("similarity"), "classify", "fine-tuned for similarity: it can embed, search, but not classify"),
    ):
        with pytest.raises(UserError, match=says):
            make(source, mode)
    classify = make(tuned("classification", ("a", "b")))
    for wrong, says in (
        ({"txt": "a"}, "input 2: not valid .Object missing required field `text`.; give a text, a pair of texts"),
        ({"text": 3}, "input 2: not valid .text: Expected `str`, got `int`"),
        (" ", "input 2: the text is empty"),
        ({"text": "\ud800"}, "input 2: broken text"),
        ("a " * 150_000, "input 2: the text has 300,000 characters"),
    ):
        with pytest.raises(UserError, match=says) as refused:
            classify(["right", wrong])
        assert "\n" not in str(refused.value)


def test_commands_say_what_the_predictors_say(tuned, tmp_path):
    """Of the command line what it can hold, all of a file; and what they cannot read is refused."""
    cases = {
        "answer": (tuned("span", name="squad/v1.1"), ("Which list?", TEXTS[1]), '{"question": "a", "passage": 3}'),
        "tag": (tuned("tagging", ("O", "B-X")), "a list", '{"words": []}'),
        "choose": (tuned("choice"), {"text": "the call", "choices": ["returns", "is raised"]}, "a text alone"),
    }
    for mode, (model, asked, wrong) in cases.items():
        pretrained.save(tmp_path / mode, model)
        words = [asked["text"], *asked["choices"]] if isinstance(asked, dict) else [asked]
        words = list(asked) if isinstance(asked, tuple) else words
        output = run("predict", mode, f"--checkpoint={tmp_path / mode}", *words)
        assert output.returncode == 0, output.stderr
        assert [json.loads(output.stdout)] == json.loads(json.dumps(make(model)([asked])))
        refused = run("predict", mode, f"--checkpoint={tmp_path / mode}", input=f"{wrong}\n")
        assert_refused(refused, "stdin, line 1:")
    checkpoint = f"--checkpoint={tmp_path / 'tag'}"
    assert_refused(run("predict", "answer", f"--checkpoint={tmp_path / 'answer'}", "a"), "a question and a passage")
    assert_refused(run("predict", "tag", checkpoint, "a", "--texts=x"), "for search only")
    assert_refused(run("predict", "tag", checkpoint, "a", "--output=x.npy"), "for embed only")
    assert_refused(run("predict", "embed", checkpoint, "a", "--output=x.txt"), "must be an .npy file")
    assert_refused(run("predict", "search", checkpoint, "a", f"--texts={tmp_path}/none"), "check --texts")
    (tmp_path / "texts").write_text('a\n{"text": " "}\n')
    assert_refused(run("predict", "search", checkpoint, "a", f"--texts={tmp_path}/texts"), "texts, line 2: the text is")
    digits = '{"text": ' + "1" * 5000 + "}"
    assert_refused(run("predict", "tag", checkpoint, input=digits), "line 1: not valid (not JSON")


def test_a_reader_that_wants_no_more_is_no_error(tuned, tmp_path):
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
    """A fine-tuned model from a folder; a line that is no JSON is named."""
    pretrained.save(tmp_path / "run", tuned("classification", ("bad", "good")))
    lines = tmp_path / "pairs.jsonl"
    lines.write_text('{"text": "a list", "second": "a tuple"}\n\nnames\n')
    output = run("predict", "classify", f"--checkpoint={tmp_path / 'run'}", f"--input={lines}", "--weights=int8")
    assert output.returncode == 0, output.stderr
    assert [json.loads(line).get("second") for line in output.stdout.splitlines()] == ["a tuple", None]
    array = tmp_path / "texts.npy"
    output = run("predict", "embed", f"--checkpoint={tmp_path / 'run'}", f"--output={array}", *TEXTS)
    assert output.returncode == 0 and not output.stdout, output.stderr
    assert np.load(array).shape == (len(TEXTS), 32)
    lines.write_text('names\n{"text": "a list"\n')
    refused = run("predict", "classify", f"--checkpoint={tmp_path / 'run'}", f"--input={lines}")
    assert_refused(refused, "line 2: not valid (not JSON")


@pytest.fixture(scope="module")
def wrong_case(model, corpus, tmp_path_factory):
    """The model with its uncased vocabulary read as a cased one."""
    folder = tmp_path_factory.mktemp("vocabulary")
    shutil.copy(corpus / "tokenizer/vocab.txt", folder)
    tokenizer = load_tokenizer(folder, lowercase=False)
    return dataclasses.replace(model, tokenizer=tokenizer, tokenizer_files=pretrained.tokenizer_files(tokenizer))


def count_lines(result: subprocess.CompletedProcess) -> list[str]:
    assert result.returncode == 0, result.stderr
    return [line for line in result.stderr.splitlines() if "unknown ([UNK])" in line or "truncated" in line]


def test_commands_say_how_much_of_the_texts_they_read(trained, wrong_case, model, tmp_path):
    """On stderr, once for all inputs, with a warning for each share above 1 %."""
    pretrained.save(tmp_path / "run", wrong_case)
    lines = [f"the value of item {number}" for number in range(3000)]  # several chunks
    (tmp_path / "texts").write_text("\n".join(lines))
    output = run("predict", "embed", f"--checkpoint={trained}", f"--input={tmp_path}/texts", "--tokens=16384")
    tokens = sum(map(len, model.tokenizer.encode_batch(lines)))
    assert count_lines(output) == [
        f"read 0 of {tokens:,} tokens (0.00%) unknown ([UNK]), 0 of 3,000 examples (0.00%) truncated"
    ]
    assert all(json.loads(line)["embedding"] for line in output.stdout.splitlines())
    texts = ["a LIST", "a list " * 100]
    array = tmp_path / "texts.npy"
    warnings = [
        "warning: 1 of 64 tokens (1.56%) unknown ([UNK]): check that the tokenizer is the model's own",
        "warning: 1 of 2 examples (50.00%) truncated: the model's length is 64 tokens; shorten or split the texts",
        "read 1 of 64 tokens (1.56%) unknown ([UNK]), 1 of 2 examples (50.00%) truncated",
    ]
    for more in ((), (f"--output={array}",)):
        output = run("predict", "embed", f"--checkpoint={tmp_path}/run", *more, *texts)
        lines = count_lines(output)
        assert len(lines) == 3 and all(map(str.startswith, lines, warnings)), lines
    assert "--lowercase of convert and prepare" in output.stderr
    # The texts to search in count, too.
    (tmp_path / "texts").write_text("THE VALUE\n")
    output = run("predict", "search", f"--checkpoint={tmp_path}/run", f"--texts={tmp_path}/texts", "the value")
    assert count_lines(output)[-1].startswith("read 2 of 4 tokens (50.00%) unknown ([UNK]), 0 of 2 examples")


def test_from_python_a_share_is_warned_of_once(wrong_case, tuned, said):
    """Nothing else is logged; special tokens that are written into a text are not unknown."""
    classify = make(dataclasses.replace(tuned("classification", ("bad", "good")), tokenizer=wrong_case.tokenizer))
    said.clear()
    classify(["the value of a list", {"text": "a list", "second": "a [list]"}])
    assert not said and classify.counts.total.examples == 2
    for _ in range(2):
        classify(["THE VALUE of a list"])
    assert len(said) == 1 and "2 of" in said[0] and classify.counts.total.unknown == 4
    classify(["a list " * 100])
    assert len(said) == 2 and said[1].endswith("the model's length is 64 tokens; shorten or split the texts")
    fill, names = make(wrong_case), make(tuned("tagging", ("O", "B-X")))
    said.clear()
    names(["[UNK] [PAD]"])  # text, as in any text
    assert not said and names.counts.total.unknown == 0
    fill(["the [MASK] of [UNK] [MASK]"])
    assert not said and (fill.counts.total.tokens, fill.counts.total.unknown) == (2, 0)
    fill(["THE [MASK]"])
    assert len(said) == 1 and said[0].startswith("1 of 3 tokens (33.33%) unknown ([UNK])")


def test_windows_are_not_truncated_and_a_limit_of_fine_tuning_is_named(tuned, said):
    long = " ".join(TEXTS * 4)
    tag, answer = make(tuned("tagging", ("O", "B-X"))), make(tuned("span", limits=TokenLimits(64, 16, 8)))
    said.clear()
    tag([long])
    answer([("Which list?", long)])
    assert not said and tag.counts.total.examples == answer.counts.total.examples == 1
    answer([(long, "a list")])
    assert len(said) == 1 and "1 of 2 examples (50.00%) truncated: the model's question_length is 8" in said[0]
    assert said[0].endswith("or fine-tune with a larger config.question_length")
