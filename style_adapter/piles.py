"""Piles of text, one file a style and one text a line: rows of `text` and `style`, and a part that is held out."""

import gzip
import random
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from .seeds import row_seed

SUFFIXES = (".txt", ".txt.gz")
HELD_OUT = (0.05, 500)  # the share of a pile that is held out, and the most texts of it
MOST_SHARED = 0.5  # of a pile, in another one too: beyond that the two do not differ in style


@dataclass(frozen=True)
class Pile:
    """The texts of one style.

    Attributes:
        style: Its name.
        path: The file.
        texts: In the order of the file, without what follows.
        empty: How many lines hold nothing.
        repeated: How many lines repeat one above.
        shared: How many texts stand in another pile too.
    """

    style: str
    path: str
    texts: list[str]
    empty: int = 0
    repeated: int = 0
    shared: int = 0

    def __str__(self) -> str:
        """One line for the terminal."""
        left_out = {"empty lines": self.empty, "repeated": self.repeated, "of another pile too": self.shared}
        said = ", ".join(f"{count:,} {what}" for what, count in left_out.items() if count)
        return f"{self.style}: {len(self.texts):,} texts of {self.path}" + (f"; left out: {said}" if said else "")


def named_files(given: Sequence[str] | Mapping[str, str]) -> dict[str, str]:
    """{style: file} of a list such as [a.txt, b.txt] or [formal=a.txt, casual=b.txt], or of a mapping.

    A file without a name gives its style its own.

    >>> named_files(["data/formal.txt.gz", "casual=data/b.txt"])
    {'formal': 'data/formal.txt.gz', 'casual': 'data/b.txt'}

    Raises:
        ValueError: Fewer than two files, what is no file's name, or two files of one style.
    """
    pairs = [*given.items()] if isinstance(given, Mapping) else [_named(str(item)) for item in given]
    if len(pairs) < 2:
        raise ValueError(
            f"unpaired={given!r} must name at least 2 files, one a style: there is nothing to rewrite a text to; add "
            "texts of another style"
        )
    files: dict[str, str] = {}
    for style, path in pairs:
        if style in files:
            raise ValueError(
                f"unpaired: {files[style]} and {path} are both of the style {style!r} and must be of two; name them: "
                f"--unpaired FIRST={files[style]} SECOND={path}"
            )
        files[style] = path
    return files


def _named(item: str) -> tuple[str, str]:
    """The style and the file of `style=file`, or of a file alone."""
    style, equals, path = item.partition("=")
    if equals:
        return style, path
    return Path(item).name.removesuffix(".gz").removesuffix(".txt"), item


def read_piles(files: Mapping[str, str]) -> list[Pile]:
    """The piles of {style: file}, without texts that stand in several of them: those tell no style.

    Raises:
        FileNotFoundError: A file that is not there.
        ValueError: A file that is no text, or holds fewer than two that no other pile has; or a pile most of which
            stands in another one.
    """
    piles = [_read(style, path) for style, path in files.items()]
    found_in = Counter(chain.from_iterable(pile.texts for pile in piles))
    return [_unshared(pile, found_in) for pile in piles]


def _read(style: str, path: str) -> Pile:
    """The different texts of one file, if any."""
    lines = list(_lines(path))
    filled = [line for line in lines if line]
    texts = list(dict.fromkeys(filled))
    return Pile(style, path, texts, empty=len(lines) - len(filled), repeated=len(filled) - len(texts))


def _lines(path: str) -> Iterator[str]:
    """The lines of a file without the white space around them."""
    if not path.endswith(SUFFIXES):
        raise ValueError(
            f"unpaired: {path} must end in {' or '.join(SUFFIXES)}, one text a line; rename or convert it (rows with "
            "columns are for train_file; a recipe stands before --unpaired)"
        )
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file; give the path of a {' or '.join(SUFFIXES)} file, one text a line")
    try:
        opened: Any = gzip.open if path.endswith(".gz") else open
        with opened(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if "\0" in line:
                    raise ValueError(f"line {number} holds a NUL character")
                yield line.strip()
    except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:  # UnicodeDecodeError is a ValueError
        kind = "gzipped UTF-8 text" if path.endswith(".gz") else "UTF-8 text"
        raise ValueError(f"{path} must be {kind} and is not ({error}); convert it") from error


def _unshared(pile: Pile, found_in: Counter[str]) -> Pile:
    """`pile` without the texts that are found in several."""
    own = [text for text in pile.texts if found_in[text] == 1]
    shared = len(pile.texts) - len(own)
    if shared > MOST_SHARED * len(pile.texts):
        raise ValueError(
            f"{pile.path}: {shared:,} of its {len(pile.texts):,} texts stand in another pile too, and at most "
            f"{MOST_SHARED:.0%} may: such piles do not differ in style; check which files were given"
        )
    if len(own) < 2:
        raise ValueError(
            f"{pile.path} holds {len(own)} texts of its own and must hold at least 2, one a line: one to learn from "
            f"and one to hold out; add texts of the style {pile.style!r}"
        )
    return replace(pile, texts=own, shared=shared)


def columns_of(piles: Sequence[Pile]) -> dict[str, list[str]]:
    """The columns `text` and `style` of a data set, the piles in turn, so that the first rows are of all styles."""
    turns = zip_longest(*([(text, pile.style) for text in pile.texts] for pile in piles))
    texts, styles = zip(*(row for turn in turns for row in turn if row is not None), strict=True)
    return {"text": list(texts), "style": list(styles)}


def hold_out(piles: Sequence[Pile], *, seed: int) -> tuple[list[Pile], list[Pile]]:
    """The piles to train on, and those held out, in random order: of each pile 5 %, from 1 to 500 texts, by `seed`."""
    kept, held_out = [], []
    for number, pile in enumerate(piles):
        share, most = HELD_OUT
        count = min(max(1, int(share * len(pile.texts))), most)
        draw = random.Random(row_seed(seed, 0, number, use="held out"))
        places = draw.sample(range(len(pile.texts)), count)
        chosen = set(places)
        kept.append(replace(pile, texts=[text for i, text in enumerate(pile.texts) if i not in chosen]))
        held_out.append(replace(pile, texts=[pile.texts[i] for i in places]))
    return kept, held_out
