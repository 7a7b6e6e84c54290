import bz2
import gzip
import json
import subprocess
import sys

import pytest

from bertjax.errors import UserError
from bertjax.text import python_docs, readers, sources

DUMP = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11">
<siteinfo><sitename>Wikipedia</sitename></siteinfo>
<page><title>Cat</title><ns>0</ns><revision><model>wikitext</model><text>{{Infobox|name=[[Cat]]}}
The '''cat''' (''Felis catus'') is a [[domestication|domesticated]] species.&lt;ref&gt;A {{cite book}}.&lt;/ref&gt;
[[File:Cat.jpg|thumb|A [[cat]] in a picture]]
== Senses ==
* Cats hear &lt;b&gt;well&lt;/b&gt;, about {{convert|60|kHz}} 60&amp;nbsp;kHz.
{| class="wikitable"
! Head
|-
| Cell
|}
&lt;!-- a comment --&gt;
[https://example.org An external link] stays.
__NOTOC__
[[Category:Cats]]
[[de:Katze]]</text></revision></page>
<page><title>Feline</title><ns>0</ns><redirect title="Cat" /><revision><text>#REDIRECT [[Cat]]</text></revision></page>
<page><title>Talk:Cat</title><ns>1</ns><revision><text>I like cats.</text></revision></page>
<page><title>Dog</title><ns>0</ns><revision><text>A dog barks.</text></revision></page>
<page><title>TV</title><ns>0</ns><revision><text>She saw [[CSI: Miami]] and
[[Re:Zero|it]] &amp;#xD800;[[zh-min-nan:TV]]twice.</text></revision></page>
</mediawiki>
"""


def texts(spec: str) -> list[str]:
    [source] = sources.parse_sources([spec])
    return [source.clean(raw) for raw in source.documents()]


def test_text_documents_are_separated_by_blank_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\nline two\r\n\r\ntwo\n \t\n\n\nthree\n")
    assert texts(f"text:{path}") == ["one\nline two", "two", "three"]


def test_text_does_not_depend_on_the_block_size(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    content = "é…" * 30 + "\n汉字 x\n\n\n" + "second\n" * 5 + "\n \nthird " + "w " * 40
    path.write_text(content * 3, encoding="utf-8")
    whole = texts(f"text:{path}")
    lines = list(readers.lines(path))
    for block in range(1, 24):
        monkeypatch.setattr(readers, "_BLOCK", block)
        assert texts(f"text:{path}") == whole
        assert list(readers.lines(path)) == lines


def test_an_overlong_document_is_split_without_loss(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text(" ".join(map(str, range(40_000))), encoding="utf-8")
    monkeypatch.setattr(readers, "MAX_CHARACTERS", 10_000)
    monkeypatch.setattr(readers, "_BLOCK", 4_096)
    for kind in ("text", "file"):
        documents = texts(f"{kind}:{path}")
        assert len(documents) > 10
        assert max(map(len, documents)) <= 10_000
        assert " ".join(documents).split() == list(map(str, range(40_000)))


@pytest.mark.parametrize(("suffix", "opener"), [(".gz", gzip.open), (".bz2", bz2.open)])
def test_compressed_files_are_decompressed(suffix, opener, tmp_path):
    path = tmp_path / f"a.txt{suffix}"
    with opener(path, "wb") as file:
        file.write(b"one\n\ntwo")
    assert texts(f"text:{path}") == ["one", "two"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"a.txt.*(damaged|cannot be read)"):
        texts(f"text:{path}")


def test_folders_and_globs_yield_files_in_order(tmp_path):
    for name in ("b/2.txt", "a/1.txt", "a/3.md", ".hidden/4.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts(f"text:{tmp_path}") == ["a/1.txt", "a/3.md", "b/2.txt"]
    assert texts(f"text:{tmp_path}/**/*.txt") == ["a/1.txt", "b/2.txt"]


def test_a_file_is_one_document(tmp_path):
    (tmp_path / "book.txt").write_text("Chapter one.\n\nIt was dark.\n")
    assert texts(f"file:{tmp_path}/book.txt") == ["Chapter one.\n\nIt was dark."]


def test_wikiextractor_blocks(tmp_path):
    path = tmp_path / "wiki_00"
    path.write_text(
        '<doc id="1" url="u" title="A">\nA\n\nB &amp; C &lt;x&gt;\n</doc>\n<doc id="2" url="u" title="D">\nD\n</doc>\n'
    )
    assert texts(f"wiki:{path}") == ["A\n\nB & C <x>", "D"]
    path.write_text(path.read_text()[:-8])
    with pytest.raises(UserError, match=r"wiki_00: the last <doc …> block has no </doc>"):
        texts(f"wiki:{path}")


@pytest.mark.parametrize("suffix", [".xml", ".xml.bz2"])
def test_mediawiki_dumps_yield_the_text_of_articles(suffix, tmp_path):
    path = tmp_path / f"dump{suffix}"
    path.write_bytes(bz2.compress(DUMP.encode()) if suffix.endswith("bz2") else DUMP.encode())
    cat, dog, television = texts(f"wiki:{path}")
    assert television == "TV\n\nShe saw CSI: Miami and\nit \ufffdtwice."
    assert dog == "Dog\n\nA dog barks."
    assert cat.startswith("Cat\n")
    assert "The cat (Felis catus) is a domesticated species." in cat
    assert "\nSenses\n" in cat and "Cats hear well, about" in cat and "An external link stays." in cat
    for markup in (
        "{{",
        "[[",
        "|",
        "'''",
        "<",
        "Infobox",
        "cite",
        "thumb",
        "Cell",
        "Category",
        "Katze",
        "__",
        "comment",
    ):
        assert markup not in cat
    if suffix == ".xml":
        path.write_bytes(DUMP.encode()[:-60])
        with pytest.raises(UserError, match=r"dump\.xml: invalid XML"):
            texts(f"wiki:{path}")


def test_pages_without_namespace_are_articles_and_pages_without_title_are_skipped(tmp_path):
    path = tmp_path / "dump.xml"
    path.write_text(
        "<mediawiki><page><title>Old</title><revision><text>From 2006.</text></revision></page>"
        "<page><ns>0</ns><revision><text>Nobody's.</text></revision></page></mediawiki>"
    )
    assert texts(f"wiki:{path}") == ["Old\n\nFrom 2006."]


def test_other_files_are_refused_as_wikipedia(tmp_path):
    path = tmp_path / "a"
    for content, remedy in (("plain text", "use text:"), ('{"text": "x"}', "use jsonl:")):
        path.write_text(content)
        with pytest.raises(UserError, match=remedy):
            texts(f"wiki:{path}")


def test_jsonl_reads_a_field(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one", "body": "eins"}\n\n{"text": "two\\nlines", "body": "zwei"}\n')
    assert texts(f"jsonl:{path}") == ["one", "two\nlines"]
    assert texts(f"jsonl:{path}:body") == ["eins", "zwei"]
    with pytest.raises(UserError, match=r"line 1: no field 'title' .fields: text, body."):
        texts(f"jsonl:{path}:title")
    path.write_text('{"text": "one"}\n{"text": \n')
    with pytest.raises(UserError, match=r"a.jsonl, line 2: not valid .not JSON"):
        texts(f"jsonl:{path}")
    path.write_text(json.dumps({"text": "\ud800"}))
    with pytest.raises(UserError, match=r"line 1: not valid .invalid text"):
        texts(f"jsonl:{path}")


def test_parquet_reads_a_column(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["one", None, "two"], "id": [1, 2, 3], "body": ["x", "y", "z"]}), path)
    assert texts(f"parquet:{path}") == ["one", "two"]
    assert texts(f"parquet:{path}:body") == ["x", "y", "z"]
    with pytest.raises(UserError, match=r"'id' holds int64"):
        texts(f"parquet:{path}:id")
    with pytest.raises(UserError, match=r"no column 'title' \(columns: text, id, body\)"):
        texts(f"parquet:{path}:title")
    path.write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match=r"not a parquet file"):
        texts(f"parquet:{path}")


def test_tfds_reads_the_text_feature():
    """Runs in a separate process: TensorFlow is slow to import and must not be loaded in the other tests."""
    program = (
        "import tensorflow_datasets as tfds\n"
        "from bertjax.text import sources\n"
        "with tfds.testing.mock_data(num_examples=5):\n"
        "    for spec in ('tfds:imdb_reviews', 'tfds:wikipedia/20230601.en:train[:3]', 'tfds:pg19:test:book_text'):\n"
        "        [source] = sources.parse_sources([spec])\n"
        "        assert list(source.documents()) == list(source.documents())\n"
        "        print(len(list(source.documents())))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["5", "5", "5"], result.stderr


def test_pydoc_is_large_and_reproducible_and_imports_nothing():
    before = set(sys.modules)
    documents = list(python_docs.documents())
    assert not {"this", "antigravity", "turtle"} & (set(sys.modules) - before)
    assert len(documents) >= 380
    assert sum(map(len, documents)) > 1_900_000
    assert documents == list(python_docs.documents())
    assert any("Mersenne Twister" in document for document in documents)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nonsense", "unknown kind"),
        ("csv:a.csv", "unknown kind"),
        ("text:/nowhere/*.txt", "no such file"),
        ("pydoc:@0", "weight"),
        ("pydoc:@1.2.3", "not a number"),
    ],
)
def test_invalid_specs_are_refused(spec, message):
    with pytest.raises(UserError, match=message):
        sources.parse_sources([spec])


def test_an_at_sign_in_a_path_is_not_a_weight(tmp_path):
    path = tmp_path / "me@home.txt"
    path.write_text("x")
    [source] = sources.parse_sources([f"text:{path}"])
    assert (source.files, source.weight) == ((path,), 1.0)
    [source] = sources.parse_sources([f"text:{path}@0.5"])
    assert (source.files, source.weight) == ((path,), 0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"good line\nbad \xe9 line\n", r"invalid UTF-8 in line 2 \(byte 14"),
        (b"text\x00more", "binary data .a zero byte at byte 4"),
        (b"ends in half a character \xe2\x80", "invalid UTF-8 in line 1"),
    ],
)
def test_invalid_text_is_reported_with_its_place(content, message, tmp_path):
    path = tmp_path / "broken.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"broken.txt: {message}"):
        texts(f"text:{path}")
    path.write_bytes(b"a" * 3_000_000 + b"\n" + content)
    with pytest.raises(UserError, match=r"broken.txt: (invalid|binary)"):
        texts(f"text:{path}")
