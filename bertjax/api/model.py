"""A trained model in Python: one object that predicts, embeds and searches."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path

from bertjax.arrays.types import Params
from bertjax.checkpoints import pretrained
from bertjax.checkpoints.pretrained import Pretrained
from bertjax.config.registry import load_extension
from bertjax.errors import UserError
from bertjax.inference.input_counts import ALL_CALLS
from bertjax.inference.predictor import Predictor, make_predictor
from bertjax.inference.runner import PredictOptions
from bertjax.interop import huggingface
from bertjax.interop.loading import load_model as load_pretrained
from bertjax.storage.files import local_path
from bertjax.tasks.metadata import TaskMetadata
from bertjax.text.tokenizer import Tokenizer

FORMATS = ("huggingface", "bertjax")
_CHUNK = 2048  # inputs that are taken from a generator at once


class Model:
    """A trained model with its tokenizer. Get one with `bertjax.load_model`.

    Each method takes one input, a list of inputs, or any other iterable, and returns one result, a list of results, or
    a generator of results, in the order of the inputs. A tuple is one input: a pair of texts. A generator is read in
    chunks, so it may be endless. Inputs of similar length are computed together. One result is a dict of JSON types:
    the fields of the input and what the model predicts for it.

    A model that is not fine-tuned can `fill_mask`, `embed` and `search`; a fine-tuned model can `embed`, `search`
    and use the method of its task: `classify` (classes, several labels, numbers), `tag`, `answer` or `choose`. Anything
    else raises `bertjax.UserError`, as do `fill_mask` of a model without a masked-LM head and an input that cannot be
    read. A generator yields the results of the inputs before it first.
    """

    def __init__(self, source: Pretrained, options: PredictOptions) -> None:
        """`options`: how predictions are computed."""
        self._source, self._options = source, options
        self._predictors: dict[str, tuple[PredictOptions, Predictor]] = {}

    @property
    def path(self) -> Path:
        """The folder that the model was loaded from."""
        return self._source.path

    @property
    def params(self) -> Params:
        """The parameters, a nested dict of NumPy arrays."""
        return self._source.params

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer; `model.tokenizer(text)` returns ids."""
        return self._source.tokenizer

    @property
    def task(self) -> TaskMetadata | None:
        """The task that the model is fine-tuned for, with its labels; None for a pre-trained model."""
        return self._source.task

    def __repr__(self) -> str:
        shape, task = self._source.config.model, self._source.task
        kind = f"fine-tuned for {task.kind}" if task else "pre-trained"
        if sentence := self._source.sentence:
            kind += f", vectors by {sentence.pooling} pooling"
        return f"<Model {self.path}: {shape.num_hidden_layers} layers × {shape.hidden_size}, {kind}>"

    def fill_mask(self, texts, top: int = 5):
        """Predicts the tokens at each mask of a text.

        >>> model = bertjax.load_model("runs/books")
        >>> model.fill_mask("The [MASK] is returned.")["masks"][0][0]["token"]
        'value'

        Args:
          texts: a text with masks, or a list or generator of texts.
          top: tokens per mask.

        Returns:
          Per text a dict with `masks`: per mask a list of {"token", "probability"}, the most likely first.
        """
        return self._run("fill-mask", texts, top=top)

    def classify(self, texts):
        """Predicts the class, the labels or the number of a text, or of a pair of texts.

        >>> model = bertjax.load_model("runs/mail")
        >>> model.classify("You have won! Call now.")["label"]
        'spam'

        Args:
          texts: a text, a tuple of two texts (read as a pair), or a list or generator of these.

        Returns:
          Per text a dict with `label` for classes, or the prediction of another task kind (`labels`, `score`), with
          probabilities (none for numbers).
        """
        return self._run("classify", texts)

    def tag(self, texts):
        """Predicts a label for each word of a text.

        >>> model = bertjax.load_model("runs/entities")
        >>> model.tag("Ada lived in London")["labels"]
        ['B-PER', 'O', 'O', 'B-LOC']

        Args:
          texts: a text, which is split at white space, a tuple of words, {"words": [word, …]}, or a list or generator
            of these.

        Returns:
          Per text a dict with `words`, `labels` and `probabilities`.
        """
        return self._run("tag", texts)

    def answer(self, questions, top: int = 5):
        """Finds the answer to a question in a passage.

        >>> model = bertjax.load_model("runs/squad")
        >>> model.answer(("Who wrote it?", "It was written by Ada."))["answer"]
        'Ada'

        Args:
          questions: a tuple (question, passage), or a list or generator of these.
          top: answers in `best`.

        Returns:
          Per question a dict with `answer` and `best`, the most likely answers with their probabilities.
        """
        return self._run("answer", questions, top=top)

    def choose(self, questions):
        """Chooses the best continuation of a text.

        >>> model = bertjax.load_model("runs/swag")
        >>> model.choose({"text": "She opens", "choices": ["the door.", "the moon."]})["choice"]
        0

        Args:
          questions: a dict with `text` and `choices`, or a list or generator of these.

        Returns:
          Per text a dict with the place of the choice, from 0, and the probabilities.
        """
        return self._run("choose", questions)

    def embed(self, texts, normalize: bool | None = None, prompt: str | None = None):
        """Turns a text into a vector.

        >>> model = bertjax.load_model("exports/similarity")
        >>> model.embed(["a list", "a dictionary"]).shape
        (2, 256)

        Args:
          texts: a text, or a list or generator of texts; {"text": …, "text_pair": …} for one vector of a pair.
          normalize: whether vectors have length 1; None: as the model was trained.
          prompt: name of the prompt prepended to each text; None: the model's own, "": none.

        Returns:
          float32 [width] of one text, [texts, width] of a list, a generator of [width] of an iterable. The width is
          the model's hidden size, or that of its last dense layer.
        """
        options = {"normalize": normalize, "prompt": prompt}
        predictor = self._predictor("embed", **options)
        vectors = predictor.array  # pyright: ignore[reportAttributeAccessIssue]  # an Embedder
        return _map_inputs(texts, vectors)

    def search(self, queries, texts: Sequence[str], top: int = 5):
        """Finds the nearest of some texts for a query, by the cosine of their vectors.

        >>> model = bertjax.load_model("exports/similarity")
        >>> model.search("remove an item", ["list.pop", "dict.get"], top=1)["found"][0]["text"]
        'list.pop'

        Args:
          queries: a text, or a list or generator of texts.
          texts: the list of texts to search in; they are embedded once, and again only if they change.
          top: texts per query.

        Returns:
          Per query a dict with `found`: a list of {"text", "place", "score"}, the nearest first.
        """
        if isinstance(texts, str):
            raise UserError("texts is a single text; give a list of texts to search in")
        searcher = self._predictor("search", texts=tuple(texts))
        return _map_inputs(queries, functools.partial(searcher, top=top))  # pyright: ignore[reportCallIssue]  # Searcher

    def export(self, folder: str | Path, format: str = "huggingface") -> Path:
        """Writes the model to a new folder; see `bertjax.export_model`."""
        return export_model(self, folder, format)

    def _run(self, mode: str, inputs, **changes: object):
        return _map_inputs(inputs, self._predictor(mode, **changes))

    def _predictor(self, mode: str, **changes: object) -> Predictor:
        """Returns the predictor of a mode, made at its first use.

        Of each mode only the one with the latest options is kept: it holds the parameters as the device uses them.
        """
        options = PredictOptions(**{**vars(self._options), **changes})
        known = self._predictors.get(mode)
        if known is None or known[0] != options:
            self._predictors[mode] = options, make_predictor(self._source, mode, options)
            self._predictors[mode][1].counts.scope = ALL_CALLS
        return self._predictors[mode][1]


def _map_inputs(inputs, predict: Callable):
    """Applies `predict`, a function of lists, to one input, to a list, or lazily to any other iterable."""
    if isinstance(inputs, (str, tuple, Mapping)):
        return predict([inputs])[0]
    if isinstance(inputs, Sized) and isinstance(inputs, Iterable):
        return predict(list(inputs))
    if not isinstance(inputs, Iterable):
        raise UserError(f"inputs are of type {type(inputs).__name__}; give a text, a list of texts, or an iterable")
    return _predict_chunks(iter(inputs), predict)


def _predict_chunks(inputs: Iterator, predict: Callable) -> Iterator:
    numbers = itertools.count(1)
    while chunk := list(itertools.islice(inputs, _CHUNK)):
        yield from _predict_until_error(chunk, [f"input {next(numbers)}" for _ in chunk], predict)


def _predict_until_error(inputs: list, where: list[str], predict: Callable) -> Iterator:
    """Yields the results of the inputs before the first that cannot be read, and then raises its error.

    Inputs are read before any is computed, so halving a chunk to find the bad one computes nothing twice.
    """
    try:
        results = predict(inputs, where)
    except UserError:
        if len(inputs) == 1:
            raise
        half = len(inputs) // 2
        yield from _predict_until_error(inputs[:half], where[:half], predict)
        yield from _predict_until_error(inputs[half:], where[half:], predict)
    else:
        yield from results


def load_model(
    path: str | Path,
    dtype: str = "float32",
    weight_dtype: str = "",
    tokens_per_batch: int = 1024,
    extensions: Sequence[str] = (),
) -> Model:
    """Loads a trained model from a folder on this machine.

    The first call of each method compiles, which takes seconds; later calls are fast. A new length of text may compile
    again.

    >>> model = bertjax.load_model("runs/books")
    >>> model.fill_mask("The [MASK] is returned.")["masks"][0][0]["token"]
    'value'

    Args:
      path: a workdir or checkpoint of bertjax, a Hugging Face or sentence-transformers folder, or the folder of a
        TensorFlow checkpoint of google-research/bert.
      dtype: dtype of the computation, "float32" or "bfloat16".
      weight_dtype: "int8" keeps the matrices as 8-bit integers; "": the same as `dtype`.
      tokens_per_batch: tokens computed at once; a GPU or TPU needs about 16 times the default.
      extensions: modules or .py files to import first, which register what the model needs, e.g. its task kind.

    Raises:
      UserError: there is no model, or it cannot be used.
    """
    options = PredictOptions(dtype=dtype, weight_dtype=weight_dtype, tokens_per_batch=tokens_per_batch)
    for source in extensions:
        load_extension(source)
    return Model(load_pretrained(path), options)


def export_model(model: Model, folder: str | Path, format: str = "huggingface") -> Path:
    """Writes a model to a new folder and returns the folder.

    >>> bertjax.export_model(bertjax.load_model("runs/mail"), "exports/mail")
    PosixPath('exports/mail')

    Args:
      model: a model from `bertjax.load_model`.
      folder: a folder that does not exist, or is empty.
      format: "huggingface", which `transformers` loads as it is, or "bertjax", a workdir.

    Raises:
      UserError: the folder is not empty, or cannot be written, or the format cannot hold the model.
    """
    folder, source = local_path(folder, "folder"), model._source
    if format not in FORMATS:
        raise UserError(f"format is {format!r}; it must be one of {', '.join(FORMATS)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty; choose another folder")
    if format == "bertjax":
        pretrained.save(folder, source)
    else:
        huggingface.export_model(source, folder)
    return folder
