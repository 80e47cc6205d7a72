"""Ways to learn sentiment transfer on Yelp without pairs, at equal time: whose pairs, which terms, how it is decoded.

    python benchmarks/yelp_ablation.py --data FOLDER               # about 4 hours on one core; results/yelp_ablation
    python benchmarks/yelp_ablation.py --data FOLDER --part 0/2    # half of the cells, beside a process with the other
    python benchmarks/yelp_ablation.py --data FOLDER --seconds 10  # a look, written nowhere

FOLDER holds yelp_sentiment. Every cell has the same processor time on one core for its training steps, from a fresh
adapter of rank 16 on the frozen SmolLM2-135M, and is looked at on 250 development lines of each sentiment by the two
judges of `yelp.py`. "To the rewrite" learns from what the teacher makes of a line; "both ways" also the line from what
the teacher made of it. "Without a teacher" rebuilds corrupted lines and translates back on the way. In a round of
self-training, drafts are written in the time of the cell too. How texts are decoded is compared on one adapter. What
the teacher needs for its pairs, some minutes, is not counted: all but "without a teacher" need the same.
"""

import argparse
import gc
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from tempfile import mkdtemp
from time import process_time
from typing import Any

import datasets
import torch
from cells import RESULTS, found_cells, mean_and_spread, part_of, run_cells, table
from peft import PeftModel
from runs import StopAfter
from yelp import (
    OPTIONS,
    OTHER,
    RUNS,
    SHOWN,
    STYLES,
    Yelp,
    better_pairs,
    evaluator_of,
    fresh_model,
    kept,
    mostly_there,
    rewritten,
    teacher_of,
)

from style_adapter import StyleTrainer, StyleTrainingArguments, teacher_pairs, transfer, transfer_best
from style_adapter.fluency import BackboneScorer
from style_adapter.inference import choose
from style_adapter.presets import PRESETS
from style_adapter.teacher import pairs_of
from style_adapter.teacher.pairs import Pair

SEEDS = (0, 1)
TEXTS = 16_000  # more than any cell comes to read
CHOSEN = 8000  # of those that the backbone reads
LINES = 250  # of each sentiment
DRAFTED = 400  # texts of a round of self-training
LEARNT: dict[str, Any] = {"lr_scheduler_type": "constant_with_warmup", "max_steps": 10_000, "learning_rate": 1e-3}
GAMELESS = {"w_adv": 0.0}
_OF_THE_PRESET = ("marker_threshold", "w_adv", "w_feat", "w_cls", "adversary_start", "discriminator_blocks")
UNPAIRED: dict[str, Any] = {name: PRESETS["unpaired"][name] for name in _OF_THE_PRESET}
UNPAIRED |= {"task": "unpaired", "discriminator_kind": "projection", "novel_token_weight": 1.0}
# name: (which rows, options, seeds)
WAYS: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "to the rewrite": ("there", {}, SEEDS),
    "to the rewrite, without adversary": ("there", GAMELESS, SEEDS),
    "both ways": ("both", {}, SEEDS),
    "both ways, without adversary": ("both", GAMELESS, SEEDS),
    "to the rewrite, new tokens weigh 1": ("there", {"novel_token_weight": 1.0}, SEEDS[:1]),
    "to the rewrite, new tokens weigh 2": ("there", {"novel_token_weight": 2.0}, SEEDS[:1]),
    "to the rewrite, with features": ("there", {"w_feat": 0.1}, SEEDS[:1]),
    "to the rewrite that the backbone reads best": ("read", {}, SEEDS[:1]),
    "without a teacher": ("unpaired", UNPAIRED, SEEDS[:1]),
    "without a teacher, markers left in": ("unpaired", UNPAIRED | {"marker_threshold": 0.0}, SEEDS[:1]),
    "to the rewrite, then a round of self-training": ("round", {}, SEEDS[:1]),
}
DECODED = "to the rewrite, decoded otherwise"


@cache
def rows_of(yelp: Yelp, kind: str) -> datasets.Dataset:
    """The rows of one kind, those of a teacher made once."""
    texts, styles = yelp.train
    if kind == "unpaired":
        return datasets.Dataset.from_dict({"text": texts[:TEXTS], "style": styles[:TEXTS]})
    pairs = kept(RUNS / "ablation" / "pairs.jsonl", partial(teacher_pairs, texts, styles, count=TEXTS, seed=yelp.seed))
    if kind == "read":
        return datasets.Dataset.from_list(kept(RUNS / "ablation" / "read.jsonl", partial(read_best, yelp)))
    return datasets.Dataset.from_list(pairs if kind == "both" else mostly_there(pairs, 0.12))


def read_best(yelp: Yelp) -> list[Pair]:
    """Each text with the best of four rewrites by the teacher's score and a tenth of the backbone's gain."""
    texts, styles = (column[: 2 * CHOSEN : 2] for column in yelp.train)  # lines that the evidence has not heard
    aims = [OTHER[style] for style in styles]
    found = [[edit.text for edit in edits] or [text] for text, edits in zip(
        texts, teacher_of(yelp).rewrites(texts, aims, 4), strict=True)]  # fmt: skip
    scorer = BackboneScorer(*fresh_model(yelp.seed, 1), 128)

    def score(sources: list[str], outputs: list[str], wanted: list[str]) -> Any:
        kinds = [*dict.fromkeys([*sources, *outputs])]
        known = dict(zip(kinds, scorer.sums(kinds)[:, 0], strict=True))
        gain = [known[y] - known[x] for x, y in zip(sources, outputs, strict=True)]
        return teacher_of(yelp).score(sources, outputs, wanted) + 0.1 * torch.tensor(gain).numpy()

    best = choose(texts, found, aims, score)
    pairs = [
        pair
        for text, style, choice, aim in zip(texts, styles, best, aims, strict=True)
        if choice.score > 0 and choice.text != text
        for pair in pairs_of(text, style, choice.text, aim)
    ]
    return mostly_there(pairs, 0.12)


def learn(model: PeftModel, tokenizer: Any, rows: datasets.Dataset, seconds: float, seed: int, **options: Any) -> int:
    """Trains in place for so many seconds of a core; the steps that were done."""
    trainer = StyleTrainer(
        model=model,
        args=StyleTrainingArguments(mkdtemp(), **OPTIONS | LEARNT | {"seed": seed} | options),
        train_dataset=rows,
        processing_class=tokenizer,
        callbacks=[StopAfter(seconds)],
    )
    trainer.train()
    return trainer.state.global_step


def self_trained(yelp: Yelp, model: PeftModel, tokenizer: Any, seconds: float, seed: int) -> int:
    """Half of the time on the teacher's pairs; in the other half the best drafts are found and learnt from."""
    steps = learn(model, tokenizer, rows_of(yelp, "there"), seconds / 2, seed)
    texts, styles = yelp.train
    chosen, teacher = slice(2 * TEXTS, 2 * TEXTS + 2 * DRAFTED, 2), teacher_of(yelp)
    begun = process_time()
    pairs = better_pairs(model, tokenizer, teacher, texts[chosen], styles[chosen])
    left = max(1.0, seconds / 2 - (process_time() - begun))
    rows = datasets.Dataset.from_list(mostly_there(pairs, 0.12))
    return steps + learn(model, tokenizer, rows, left, seed, learning_rate=5e-4, adversary_start=0)


@cache
def judges(yelp: Yelp) -> Any:
    """The evaluator of `yelp.py`."""
    return evaluator_of(*yelp.train, yelp.lines("dev"))


def look(yelp: Yelp, write: Callable[[list[str], list[str]], list[str]]) -> dict[str, float]:
    """The numbers of what is written of the development lines."""
    dev = yelp.lines("dev")
    sources = [line for style in STYLES for line in dev[style][:LINES]]
    wanted = [OTHER[style] for style in STYLES for _ in dev[style][:LINES]]
    scores = judges(yelp).score({"adapter": write(sources, wanted)}, sources, wanted).scores["adapter"]["overall"]
    return {key: scores[key].value for key in SHOWN.values()}


def cell(yelp: Yelp, kind: str, options: dict[str, Any], seconds: float, seed: int, rank: int = 16) -> dict[str, Any]:
    """One run and its greedy rewrites."""
    torch.set_num_threads(1)  # `StopAfter` would count two for one
    model, tokenizer = fresh_model(seed, rank)
    if kind == "round":
        steps = self_trained(yelp, model, tokenizer, seconds, seed)
    else:
        steps = learn(model, tokenizer, rows_of(yelp, kind), seconds, seed, **options)
    found = look(yelp, partial(rewritten, model, tokenizer))
    del model
    gc.collect()
    return found | {"steps": steps}


def decoded(yelp: Yelp, seconds: float) -> dict[str, Any]:
    """One adapter, decoded in many ways."""
    torch.set_num_threads(1)
    model, tokenizer = fresh_model(0, 16)
    steps = learn(model, tokenizer, rows_of(yelp, "there"), seconds, 0)
    given = (model, tokenizer)
    ways: dict[str, Callable[[list[str], list[str]], list[str]]] = {
        "greedy": lambda x, s: transfer(*given, x, s, batch_size=64),
        "beams 4": lambda x, s: transfer(*given, x, s, batch_size=64, num_beams=4),
        "beams 4, length penalty 0": lambda x, s: transfer(
            *given, x, s, batch_size=64, num_beams=4, length_penalty=0.0
        ),
        "best of 8 by its own score": lambda x, s: transfer_best(*given, x, s, samples=8, batch_size=64),
        "best of 8 by the teacher's": lambda x, s: transfer_best(
            *given, x, s, samples=8, batch_size=64, score=teacher_of(yelp).score
        ),
    }
    return {"steps": steps, "ways": {name: look(yelp, write) for name, write in ways.items()}}


def cells(yelp: Yelp, seconds: float) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every cell, the first seed of all before the second of any."""
    runs = {
        f"{name}, seed {seed}": partial(cell, yelp, kind, options, seconds, seed)
        for seed in SEEDS
        for name, (kind, options, seeds) in WAYS.items()
        if seed in seeds
    }
    return {**runs, DECODED: partial(decoded, yelp, seconds)}


def report(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The table: means over seeds, with half the distance between them."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for name, numbers in found.items():
        for way, values in numbers.get("ways", {"": numbers}).items():
            plain = f"decoded: {way}" if way else name.rpartition(", seed")[0]
            groups.setdefault(plain, []).append({"steps": numbers["steps"]} | values)
    body = [
        (name, f"{sum(n['steps'] for n in seeds) / len(seeds):.0f}",
         *(mean_and_spread([n[key] for n in seeds], 1 if "bleu" in key else 3) for key in SHOWN.values()))
        for name, seeds in groups.items()
    ]  # fmt: skip
    return table([("run", "steps", *SHOWN), *body])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds yelp_sentiment")
    parser.add_argument("--seconds", type=float, default=420.0, help="processor time of a cell (default: %(default)s)")
    parser.add_argument("--part", default="0/1", help="I/N: every Nth cell from the Ith on, for N processes at once")
    options = parser.parse_args()
    datasets.disable_progress_bars()
    whole = options.seconds == parser.get_default("seconds")
    folder = RESULTS / "yelp_ablation" if whole else Path(mkdtemp())
    all_cells = cells(Yelp(options.data / "yelp_sentiment"), options.seconds)
    run_cells(folder, {name: all_cells[name] for name in part_of([*all_cells], options.part)})
    print(report(found_cells(folder, [*all_cells])))


if __name__ == "__main__":
    main()
