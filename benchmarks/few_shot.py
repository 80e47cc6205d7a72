"""A hundred pairs: style adapter against PEFT LoRA at equal parameters and steps, on two sets.

    python benchmarks/few_shot.py --data FOLDER                # about 3 hours on one core; cells in results/few_shot
    python benchmarks/few_shot.py --data FOLDER --part 0/2     # half of the systems, beside a process with the rest
    python benchmarks/few_shot.py --data FOLDER --seconds 10   # a look, written nowhere

FOLDER holds bible/bbe_asv, as `bible.py` reads it, and paradetox: train.tsv.gz, dev.tsv and test.tsv, in each line an
offensive sentence and one to three neutral rewrites. No text of it is printed or kept. Each seed draws its own 100
training pairs; both sets are learnt for 8 epochs of batches of 8 rows. Learning rates are chosen by J on development
rows; the judge, which only measures, is fitted on all training lines.

Detoxification has one direction (the way back is not taught): there a style adapter without a game is a LoRA, and what
is compared is the trainer, in bbe_asv also what two directions learn from one another.
"""

import random
from collections.abc import Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from bible import ADAPTER_RATES, both_ways, pair_set, read_pairs
from contest import Contest, PairedSet, adapter_for_all, lora_each, lora_for_all, main
from contest import report as contest_report
from datasets import Dataset
from runs import read_lines

from style_adapter import StyleJudge

PAIRS, DEV_LINES, TEST_LINES = 100, 200, 400
SYSTEMS = {
    "style adapter": (adapter_for_all, ADAPTER_RATES),
    "a LoRA a direction": (lora_each, ADAPTER_RATES),
    "style adapter, with the game": (partial(adapter_for_all, game=True), ADAPTER_RATES),
    "one LoRA, style in the prompt": (lora_for_all, ADAPTER_RATES),
}
Rewrites = list[tuple[str, list[str]]]  # an offensive sentence, its neutral rewrites


def read_rewrites(path: Path) -> Rewrites:
    """The lines of one file."""
    fields = [line.split("\t") for line in read_lines(path)]
    return [(source, targets) for source, *targets in fields]


def neutral_rows(rewrites: Rewrites, *, references: bool = False) -> Dataset:
    """Offensive -> neutral; the target is the first rewrite, or all of them as `references`."""
    sources = [source for source, _ in rewrites]
    targets = [all_of if references else all_of[0] for _, all_of in rewrites]
    return Dataset.from_dict({"source": sources, "target": targets, "style": ["neutral"] * len(sources)})


@cache
def all_of_paradetox(folder: Path) -> tuple[Rewrites, PairedSet]:
    """All training lines, and the set of them all."""
    train, dev, test = (read_rewrites(folder / name) for name in ("train.tsv.gz", "dev.tsv", "test.tsv"))
    offensive, neutral = [source for source, _ in train], [text for _, all_of in train for text in all_of]
    judge = StyleJudge.fit([*offensive, *neutral], ["toxic"] * len(offensive) + ["neutral"] * len(neutral))
    dev_rows, test_rows = (neutral_rows(x, references=True) for x in (dev[:DEV_LINES], test[:TEST_LINES]))
    return train, PairedSet(("neutral",), neutral_rows(train), dev_rows, test_rows, judge)


def paradetox(folder: Path, seed: int) -> PairedSet:
    """Some of its pairs."""
    train, everything = all_of_paradetox(folder)
    return replace(everything, train=neutral_rows(random.Random(seed).sample(train, PAIRS)))


def bible(folder: Path, seed: int) -> PairedSet:
    """Some pairs of verses, both ways."""
    styles = ("bbe", "asv")
    few = random.Random(seed).sample(read_pairs(folder, styles, "train"), PAIRS)
    return replace(pair_set(folder, styles), train=both_ways(few, styles))


def contest(folder: Path) -> Contest:
    """All systems on both sets."""
    return Contest(
        sets={
            "paradetox": partial(paradetox, folder / "paradetox"),
            "bbe_asv": partial(bible, folder / "bible/bbe_asv"),
        },
        steps={"paradetox": 100, "bbe_asv": 200},
        systems=SYSTEMS,
        criterion="joint",
    )


def report(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables of the page."""
    return contest_report(contest(Path()), found)


if __name__ == "__main__":
    main("few_shot", __doc__, contest)
