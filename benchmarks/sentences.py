"""Compares the quality and speed of libraries for sentence splitting.

    pip install blingfire pysbd
    python benchmarks/sentences.py [--conllu=en_ewt-ud-dev.conllu …] [--text=FILE …]

Quality: a list of hard cases (abbreviations, initials, quotes, decimals), and the gold sentences of the given CoNLL-U
files (Universal Dependencies): each document is joined with spaces, and a boundary is correct if a gold sentence ends
there. Speed: one process, paragraph by paragraph; the default text is the documentation bundled with Python.
"""

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bertjax.text import python_docs

Splitter = Callable[[str], list[str]]

# The sentences of each case are joined with spaces and must be separated again.
CASES = [
    ["Dr. Smith paid Mr. Jones on Jan. 3.", "He was glad."],
    ["He was born c. 1950 in St. Louis.", "She was not."],
    ["The U.S. economy grew.", "Then it shrank."],
    ["It grew in the U.S.", "Nobody knew why."],
    ["J. R. R. Tolkien wrote it.", "C. S. Lewis read it."],
    ["See Fig. 4, p. 12, and vol. 3.", "It is all there."],
    ["He arrived at 5 p.m.", "Then he left."],
    ["He arrived at 5 p.m. on Monday.", "Then he left."],
    ["It was made by Foo Inc.", "They sold it."],
    ["Foo Inc. made it.", "They sold it."],
    ["It costs $3.50, i.e. 2.5 percent more.", "That is a lot."],
    ["Version 3.11.7 is out.", "Visit www.example.com for more.", "It works."],
    ["Call x.y.z() first.", "Then wait."],
    ['"Was it enough?" he asked.', '"No!" she said.'],
    ['He said, "It is late."', "She left."],
    ["“Is it?” she said.", "“It is.”"],
    ["(This is in parentheses.)", "This is not."],
    ["Why?", "Because!", "Oh…", "Well."],
    ["Smith et al. (2019) found it.", "We did not."],
    ["No. 5 is alive.", "No. 6 is not."],
]


def load_splitters() -> dict[str, Splitter]:
    """Returns the splitters that are installed."""
    import sentencex

    splitters = {"sentencex": lambda text: sentencex.segment("en", text)}
    try:
        import blingfire

        splitters["blingfire"] = lambda text: blingfire.text_to_sentences(text).split("\n")
    except ImportError:
        print("blingfire is not installed")
    try:
        import pysbd

        segmenter = pysbd.Segmenter(language="en", clean=False)
        splitters["pysbd"] = segmenter.segment
    except ImportError:
        print("pysbd is not installed")
    splitters["regular expression"] = re.compile(r"(?<=[.!?])\s+").split
    return splitters


def ends(sentences: list[str]) -> set[int]:
    """The ends of all sentences but the last, counted in characters other than white space."""
    positions, position = set(), 0
    for sentence in sentences:
        position += len("".join(sentence.split()))
        positions.add(position)
    return positions - {position}


def gold_documents(path: Path) -> list[list[str]]:
    documents: list[list[str]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# newdoc") or not documents:
            documents.append([])
        if line.startswith("# text = "):
            documents[-1].append(line.removeprefix("# text = "))
    return [document for document in documents if len(document) > 1]


def score(splitter: Splitter, documents: list[list[str]]) -> tuple[float, float, float]:
    """Precision, recall and F1 of boundaries inside documents."""
    correct = predicted_count = gold_count = 0
    for document in documents:
        gold, predicted = ends(document), ends(splitter(" ".join(document)))
        correct += len(gold & predicted)
        predicted_count, gold_count = predicted_count + len(predicted), gold_count + len(gold)
    precision, recall = correct / max(predicted_count, 1), correct / max(gold_count, 1)
    return precision, recall, 2 * precision * recall / max(precision + recall, 1e-9)


def speed(splitter: Splitter, paragraphs: list[str], seconds: float = 3.0) -> float:
    """MB per CPU second."""
    size, start = 0, time.process_time()
    for paragraph in paragraphs:
        splitter(paragraph)
        size += len(paragraph.encode())
        if time.process_time() - start > seconds:
            break
    return size / 1e6 / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conllu", type=Path, nargs="*", default=[])
    parser.add_argument("--text", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    texts = [path.read_text(encoding="utf-8") for path in arguments.text] or list(python_docs.documents())
    paragraphs = [" ".join(part.split()) for text in texts for part in re.split(r"\n\s*\n", text) if part.strip()]
    gold = [document for path in arguments.conllu for document in gold_documents(path)]
    table = Table("library", f"correct of {len(CASES)} cases", "precision", "recall", "F1", "MB/s")
    for name, splitter in load_splitters().items():
        correct = sum(ends(splitter(" ".join(case))) == ends(case) for case in CASES)
        scores = [f"{value:.3f}" for value in score(splitter, gold)] if gold else ["", "", ""]
        table.add_row(name, str(correct), *scores, f"{speed(splitter, paragraphs):.1f}")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
