"""Two aspects in one adapter: change the vocabulary of a verse and hold its grammar, or the other way round.

    python benchmarks/aspects.py --data FOLDER                # about 30 minutes on one core; cells in results/aspects
    python benchmarks/aspects.py --data FOLDER --part 0/2     # half of the cells, beside a process with the other half
    python benchmarks/aspects.py --data FOLDER --seconds 10   # a look, written nowhere

Three English Bibles differ in two ways that do not depend on one another. The Bible in Basic English says everything in
some 1,000 words, in modern grammar; the World English Bible has the vocabulary of the American Standard Version, from
which it was made by turning its grammar (thou, hath, -eth) into today's:

    vocabulary \\ grammar    modern    archaic
    basic                     bbe       nobody has written it
    full                      web       asv

So real texts, by translators, change one aspect and hold the other: bbe <-> web, web <-> asv. The fourth corner has no
text, so it shows whether aspects combine. FOLDER holds bbe_asv as `bible.py` reads it; the World English Bible is that
of `examples/kjv_data.py`, each verse found by its nearest neighbour. Kept are verses of 4 to 26 words that show their
aspects: archaic words in asv and none in web, and no name of God, which the versions write each in its way.

"two aspects" has four styles, two a row (`style: ["basic", "modern"]`), whose gates add up. "one style a version" has
three and reaches the fourth corner by arithmetic, bbe + asv - web. Both have 240 steps of 8 rows, likelihood alone.

Each aspect has a judge of its own, fitted on training verses that hold the other aspect, and the two read no word in
common: one sees the words of grammar alone, the other all other words. The table has what they say of real verses.
"""

import argparse
import gc
import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import datasets
import numpy as np
import torch
from bible import read_pairs
from cells import RESULTS, found_cells, mean_and_spread, part_of, run_cells, table
from datasets import Dataset
from kjv_data import load_verse_pairs
from runs import NO_GAME, Run, trained_adapter

from style_adapter import StyleJudge
from style_adapter.metrics import bleu, sentence_chrf

ASPECTS = ("vocabulary", "grammar")
VERSIONS = {"bbe": ("basic", "modern"), "web": ("full", "modern"), "asv": ("full", "archaic")}
MOVES = {  # from a version to two aspects; the last two lead where no training verse is
    "bbe -> full, modern": ("bbe", ("full", "modern")),
    "web -> basic, modern": ("web", ("basic", "modern")),
    "web -> full, archaic": ("web", ("full", "archaic")),
    "asv -> full, modern": ("asv", ("full", "modern")),
    "bbe -> basic, archaic": ("bbe", ("basic", "archaic")),
    "asv -> basic, archaic": ("asv", ("basic", "archaic")),
}
SHOWN = {"changed": 3, "held": 3, "both": 3, "content": 3, "bleu": 1}
STEPS, RATE, SEEDS, VERSES = 240, 2e-3, (0, 1), 100

ARCHAIC = r"thou|thee|thy|thine|thyself|ye|unto|hath|doth|art|hast|hadst|shalt|wilt|didst|saith|spake|\w{3,}(?:eth|est)"
MODERN = (
    "you|your|yours|yourself|yourselves|to|have|has|do|does|are|is|had|shall|will|would|did|says|said|say|spoke|and|"
    "which|who|that"
)
_ARCHAIC = re.compile(rf"\b(?:{ARCHAIC})\b", re.IGNORECASE)
_GRAMMAR = re.compile(rf"\b(?:{ARCHAIC}|{MODERN})\b", re.IGNORECASE)
_NAME = re.compile(r"\b(?:Yahweh|Jehovah|Yah)\b")
_QUOTES = re.compile('["\u201c\u201d]')  # one version has them, in some books; they belong to neither aspect
Triple = dict[str, str]  # a verse in each version
Aspects = tuple[str, str]  # of the vocabulary, of the grammar
Rewriter = Callable[[Sequence[str], Aspects], Sequence[str]]


def grammar_words(text: str) -> str:
    """The words that the judge of grammar reads.

    >>> grammar_words("Thou hast the bread"), other_words("Thou hast the bread")
    ('thou hast', 'the bread')
    """
    return " ".join(_GRAMMAR.findall(text.lower())) or "none"


def other_words(text: str) -> str:
    """The words that the judge of vocabulary reads."""
    return " ".join(re.findall(r"\w+", _GRAMMAR.sub(" ", text.lower()))) or "none"


@cache
def triples(folder: Path, split: str) -> list[Triple]:
    """The verses of one split that show their aspects, in all three versions."""
    pairs = read_pairs(folder / "bbe_asv", ("bbe", "asv"), split)
    nearest = nearest_verses([asv for _, asv in pairs])
    found = [
        {"bbe": bbe, "web": _QUOTES.sub("", web), "asv": asv}
        for (bbe, asv), web in zip(pairs, nearest, strict=True)
        if web
    ]
    return [t for t in found if shows_aspects(t)]


def shows_aspects(t: Triple) -> bool:
    """Whether asv is archaic and web is not, and none names God."""
    return bool(_ARCHAIC.search(t["asv"])) and not _ARCHAIC.search(t["web"]) and not _NAME.search(" ".join(t.values()))


def nearest_verses(texts: Sequence[str]) -> list[str | None]:
    """The verse of the World English Bible that is nearest to each text by tf-idf; None where it is not clearly so."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    web = [pair.modern for part in load_verse_pairs().values() for pair in part]
    tfidf = TfidfVectorizer(sublinear_tf=True).fit(web)
    verses, found = tfidf.transform(web).T.tocsr(), []
    for start in range(0, len(texts), 500):
        likeness = (tfidf.transform(texts[start : start + 500]) @ verses).toarray()  # [texts, verses]
        second, first = np.partition(likeness, -2)[:, -2:].T
        clear = (first > 0.6) & (first - second > 0.15)
        found += [web[i] if sure else None for i, sure in zip(likeness.argmax(axis=1), clear, strict=True)]
    return found


@cache
def judges(folder: Path) -> dict[str, tuple[Callable[[str], str], StyleJudge]]:
    """What each aspect's judge reads, and the judge: fitted on training verses that differ in that aspect alone."""
    found = {}
    for aspect, reads, versions in (
        ("vocabulary", other_words, ("bbe", "web")),
        ("grammar", grammar_words, ("web", "asv")),
    ):
        texts = [(reads(t[v]), VERSIONS[v][ASPECTS.index(aspect)]) for t in triples(folder, "train") for v in versions]
        found[aspect] = (reads, StyleJudge.fit(*map(list, zip(*texts, strict=True))))
    return found


def of_aspects(wanted: Aspects) -> Any:
    """Both aspects: their gates add up."""
    return [*wanted]


def of_version(wanted: Aspects) -> Any:
    """The version that has these aspects, or what arithmetic makes of the others."""
    return next((v for v, has in VERSIONS.items() if has == wanted), {"bbe": 1.0, "asv": 1.0, "web": -1.0})


@dataclass(frozen=True)
class System:
    """How an adapter is told what to write."""

    styles: tuple[str, ...]
    """Its styles."""
    ask: Callable[[Aspects], Any]
    """Two aspects -> the style of a row."""
    alpha: float
    """Halved where a style is the sum of two gates, so that all start alike."""


SYSTEMS = {
    "two aspects": System(("basic", "full", "modern", "archaic"), of_aspects, 16.0),
    "one style a version": System(("bbe", "web", "asv"), of_version, 32.0),
}


def training_rows(verses: Sequence[Triple], system: System) -> Dataset:
    """Each verse from each version to each other one."""
    return Dataset.from_list(
        [
            {"source": t[a], "target": t[b], "style": system.ask(VERSIONS[b])}
            for t in verses
            for a in VERSIONS
            for b in VERSIONS
            if a != b
        ]
    )


def cell(folder: Path, name: str, run: Run, verses: int) -> dict[str, Any]:
    """The numbers of one run, by move."""
    torch.set_num_threads(1)  # processor time is that of one core
    gc.collect()  # the run before this one
    system = SYSTEMS[name]
    rows = training_rows(triples(folder, "train"), system)
    trained = trained_adapter(rows, system.styles, run, config={"alpha": system.alpha}, **NO_GAME)

    def rewrite(texts: Sequence[str], wanted: Aspects) -> list[str]:
        return trained.rewrite(Dataset.from_list([{"source": text, "style": system.ask(wanted)} for text in texts]))

    about = {"steps": trained.steps, "parameters": trained.parameters, "processor_seconds": round(trained.seconds, 1)}
    return {"moves": moves(folder, verses, rewrite), **about}


def moves(folder: Path, verses: int, rewrite: Rewriter) -> dict[str, dict[str, float]]:
    """The numbers of each move over test verses that are always the same."""
    chosen = random.Random(0).sample(triples(folder, "test"), verses)
    found = {}
    for move, (version, wanted) in MOVES.items():
        sources = [t[version] for t in chosen]
        real = [t[v] for v, has in VERSIONS.items() if has == wanted for t in chosen]
        found[move] = numbers(folder, rewrite(sources, wanted), sources, real, (VERSIONS[version], wanted))
    return found


def numbers(
    folder: Path,
    texts: Sequence[str],
    sources: Sequence[str],
    real: Sequence[str],
    aspects: tuple[Aspects, Aspects],
) -> dict[str, float]:
    """Shares of texts with each wanted aspect, nearness to the sources, and BLEU where there are `real` verses."""
    before, wanted = aspects
    right = {}
    for (reads, judge), old, new in zip(judges(folder).values(), before, wanted, strict=True):
        said = judge.predict([reads(text) for text in texts])
        right["held" if old == new else "changed"] = [s == new for s in said]
    both = [a and b for a, b in zip(*right.values(), strict=True)]
    found = {name: sum(each) / len(each) for name, each in (*right.items(), ("both", both))}
    found["content"] = sum(sentence_chrf(texts, sources)) / len(texts)
    return found | ({"bleu": bleu(texts, real)} if real else {})


def of_real_verses(folder: Path, verses: int) -> dict[str, Any]:
    """The copied source of each move, and the verse that a translator has written."""
    chosen = random.Random(0).sample(triples(folder, "test"), verses)
    by_aspects = {aspects: [t[v] for t in chosen] for v, aspects in VERSIONS.items()}
    written = moves(folder, verses, lambda texts, wanted: by_aspects.get(wanted, texts))
    known = {move: found for move, found in written.items() if MOVES[move][1] in by_aspects}
    return {"copied source": moves(folder, verses, lambda texts, wanted: texts), "the real verse": known}


def cells(folder: Path, options: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every cell: what the real verses score, then the first seed of both systems before the second."""
    look = options.seconds is not None
    verses, seconds = (4, options.seconds) if look else (VERSES, math.inf)
    runs = {
        f"{name}, seed {seed}": partial(cell, folder, name, Run(RATE, STEPS, seed, seconds), verses)
        for seed in (SEEDS[:1] if look else SEEDS)
        for name in SYSTEMS
    }
    return {"real verses": partial(of_real_verses, folder, verses), **runs}


def report(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each move and who made it."""
    by_run: dict[str, list[Mapping[str, Any]]] = {}
    for name, result in found.items():
        if name == "real verses":
            by_run |= {run: [moved] for run, moved in result.items()}
        else:
            by_run.setdefault(name.rpartition(", seed")[0], []).append(result["moves"])
    rows = [("move", "by", *(name if name != "bleu" else "BLEU" for name in SHOWN))]
    for move in MOVES:
        for run, seeds in by_run.items():
            known = [seed[move] for seed in seeds if move in seed]
            values = [
                mean_and_spread([numbers[name] for numbers in known], digits) if name in known[0] else ""
                for name, digits in (SHOWN.items() if known else ())
            ]
            rows += [(move, run, *values)] if known else []
    return table(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of bbe_asv")
    parser.add_argument("--seconds", type=float, help="a look: end each training after so much processor time")
    parser.add_argument("--part", default="0/1", help="I/N: every Nth cell from the Ith on, for N processes at once")
    options = parser.parse_args()
    datasets.disable_progress_bars()
    folder = RESULTS / "aspects" if options.seconds is None else Path(mkdtemp())
    all_cells = cells(options.data, options)
    run_cells(folder, {name: all_cells[name] for name in part_of([*all_cells], options.part)})
    print(report(found_cells(folder, list(all_cells))))


if __name__ == "__main__":
    main()
