"""Two Bible versions, verse by verse, both ways: one style adapter against LoRAs and fine-tuned blocks, at equal steps.

    python benchmarks/bible.py --data FOLDER                # about 5 hours on one core; cells in results/bible
    python benchmarks/bible.py --data FOLDER --part 0/2     # half of the systems, beside a process with the other half
    python benchmarks/bible.py --data FOLDER --seconds 10   # a look, written nowhere

FOLDER holds bbe_asv and ylt_bbe: train.X.txt.gz, dev.X.txt and test.X.txt of the Bible in Basic English, the American
Standard Version and Young's Literal Translation. Verses of 4 to 26 words.

Every system sees as many batches of 8 rows, both directions together, in 240 steps: the adapter mixes the directions,
of two LoRAs each has 120 steps of its own. The same prompt, schedule and precision; SmolLM2-135M. A LoRA a direction
of rank 8 has as many trained numbers, both together, as the adapter of rank 16; one of rank 16 has twice as many.
"With the game" has an adversary, features and a style classifier from half of the steps on, and new tokens weigh 2; all
else is likelihood alone.
Learning rates are chosen by BLEU on 100 verses of bbe_asv's dev, from three for each system; the table is of 200 verses
of test, each system once a seed, with seeds that had no part in the choice.
"""

import random
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

from contest import Contest, PairedSet, adapter_for_all, blocks_each, lora_each, lora_for_all, main
from contest import report as contest_report
from datasets import Dataset
from runs import read_lines

from style_adapter import StyleJudge

SETS = {"bbe_asv": ("bbe", "asv"), "ylt_bbe": ("ylt", "bbe")}
LENGTHS = range(4, 27)  # words a verse may have
DEV_VERSES, TEST_VERSES = 100, 200
ADAPTER_RATES, BLOCK_RATES = (1.5e-3, 3e-3, 6e-3), (2.5e-4, 5e-4, 1e-3)  # around what 40 steps of training liked
SYSTEMS = {
    "style adapter, r = 16": (adapter_for_all, ADAPTER_RATES),
    "a LoRA a direction, r = 8": (lora_each, ADAPTER_RATES),
    "a LoRA a direction, r = 16": (partial(lora_each, r=16), ADAPTER_RATES),
    "one LoRA, r = 16, style in the prompt": (lora_for_all, ADAPTER_RATES),
    "top 8 blocks whole, a direction": (partial(blocks_each, count=8), BLOCK_RATES),
    "style adapter, r = 16, with the game": (partial(adapter_for_all, game=True), ADAPTER_RATES),
}
Pair = tuple[str, str]


def read_pairs(folder: Path, versions: tuple[str, str], split: str) -> list[Pair]:
    """The verses of one split in both versions, those of usual length."""
    suffix = ".gz" if split == "train" else ""
    sides = [read_lines(folder / f"{split}.{version}.txt{suffix}") for version in versions]
    return [pair for pair in zip(*sides, strict=True) if all(len(text.split()) in LENGTHS for text in pair)]


def both_ways(pairs: list[Pair], styles: tuple[str, str]) -> Dataset:
    """Two rows a pair, each side rewritten as the other."""
    rows = [row for a, b in pairs for row in ((a, b, styles[1]), (b, a, styles[0]))]
    return Dataset.from_dict(dict(zip(("source", "target", "style"), map(list, zip(*rows, strict=True)), strict=True)))


@cache
def pair_set(folder: Path, styles: tuple[str, str]) -> PairedSet:
    """One pair of versions; samples of dev and test that are always the same."""
    train, dev, test = (read_pairs(folder, styles, split) for split in ("train", "dev", "test"))
    rows, chosen = both_ways(train, styles), random.Random(0)
    return PairedSet(
        styles,
        rows,
        both_ways(chosen.sample(dev, DEV_VERSES), styles),
        both_ways(chosen.sample(test, TEST_VERSES), styles),
        StyleJudge.fit(rows["target"], rows["style"]),
    )


def without_seed(folder: Path, styles: tuple[str, str], seed: int) -> PairedSet:
    """The set, of which nothing is drawn anew for a seed."""
    return pair_set(folder, styles)


def contest(folder: Path) -> Contest:
    """All systems on both sets."""
    return Contest(
        sets={name: partial(without_seed, folder / name, styles) for name, styles in SETS.items()},
        steps=dict.fromkeys(SETS, 240),
        systems=SYSTEMS,
        criterion="bleu",
        chosen_on="bbe_asv",
    )


def report(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables of the page."""
    return contest_report(contest(Path()), found)


if __name__ == "__main__":
    main("bible", __doc__, contest)
