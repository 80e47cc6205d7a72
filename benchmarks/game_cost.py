"""What the game costs: a training step with an adversary against the likelihood alone, on the same batch.

    python benchmarks/game_cost.py            # about 8 minutes on 2 cores; writes benchmarks/results/game_cost.json
    python benchmarks/game_cost.py --quick    # fewer rounds, nothing written

One process, SmolLM2-135M, r = 16, bf16, batches of 16 verses; the kinds of steps run in turn, in an order that turns
every round. A step is forward, backward and the optimizer's move. Paired steps judge every row by the first 4 blocks,
with adversary, features and style classifier; unpaired ones write, judge and translate back every row. Generation
writes a verse from nothing but its style; classes, of verses and of their words, have no game. Tokens are those of a
batch without its padding, prompts included.
"""

import argparse
import statistics
import time
from collections.abc import Mapping
from itertools import islice
from typing import Any

import torch
from cells import RESULTS, keep, table
from datasets import Dataset
from kjv_runs import STYLES, started, verses
from runs import GAME, NO_GAME, style_trainer
from timings import turned
from torch import Tensor

from style_adapter import StyleTrainer
from style_adapter.config import HEADS

BATCH = 16
ALL: dict[str, Any] = {"adversary_start": 0, "adversary_fraction": 1.0, "per_device_train_batch_size": BATCH}
ALL |= GAME
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "paired, likelihood alone": ("paired", ALL | {"adversary_fraction": 0.0}),
    "paired, adversary, features, classifier": ("paired", ALL),
    "paired, the same on half of the rows": ("paired", ALL | {"adversary_fraction": 0.5}),
    "paired, the same, features of real texts in memory": ("paired", ALL | {"feature_store": "memory"}),
    "unpaired, rebuilding alone": ("unpaired", ALL | NO_GAME | {"w_bt": 0.0}),
    "unpaired, all terms": ("unpaired", ALL),
    "unpaired, all terms on half of the rows": ("unpaired", ALL | {"adversary_fraction": 0.5}),
    "generation, likelihood alone": ("generation", ALL | {"adversary_fraction": 0.0}),
    "generation, adversary, features, classifier": ("generation", ALL),
    "classification": ("classification", {"per_device_train_batch_size": BATCH}),
    "token classification": ("token_classification", {"per_device_train_batch_size": BATCH}),
}


def trainer_of(kind: str, **options: Any) -> StyleTrainer:
    """A trainer of verses: paired or unpaired, written from nothing, or sorted by their version, whole or by word."""
    if kind in ("paired", "unpaired"):
        return started(kind, 0, **options)
    rows: Dataset = verses()["unpaired"]
    if kind in HEADS:
        labels: list[Any] = [STYLES.index(style) for style in rows["style"]]
        if kind == "token_classification":
            labels = [[label] * len(text.split()) for text, label in zip(rows["text"], labels, strict=True)]
        rows = rows.add_column("label", labels)
    return style_trainer(rows, STYLES, seed=0, config={"task_type": HEADS.get(kind, "CAUSAL_LM")}, task=kind, **options)


def step(trainer: StyleTrainer, batch: dict[str, Tensor]) -> float:
    """Seconds of one step."""
    begun = time.perf_counter()
    trainer.model.train()
    trainer.compute_loss(trainer.model, batch).backward()
    trainer.optimizer.step()
    trainer.model.zero_grad()
    return time.perf_counter() - begun


def report(found: Mapping[str, Mapping[str, float]]) -> str:
    """The table."""
    rows = [("step", "seconds", "x likelihood alone", "tokens a second")]
    rows += [
        (n, f"{f['seconds']:.2f}", f"{f['of_likelihood']:.2f}", f"{f['tokens_per_second']:.0f}")
        for n, f in found.items()
    ]
    return table(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 rounds, results not written")
    rounds = 2 if parser.parse_args().quick else 9
    trainers = {name: trainer_of(kind, **options) for name, (kind, options) in KINDS.items()}
    batches = {}
    for name, trainer in trainers.items():
        trainer.create_optimizer()
        batches[name] = list(islice(trainer.get_train_dataloader(), rounds))  # equal seeds: equal rows in each kind
        keeps = trainer.args.feature_store != "none"
        for batch in batches[name] if keeps else batches[name][:1]:  # the warm-up; a store fills
            step(trainer, batch)
    times: dict[str, list[float]] = {name: [] for name in KINDS}
    for turn in range(rounds):
        for name in turned([*KINDS], turn):
            times[name].append(step(trainers[name], batches[name][turn]))
    found = {}
    for name, (kind, _) in KINDS.items():
        plain = next(other for other, (its_kind, _) in KINDS.items() if its_kind == kind)
        ratio = statistics.median(a / b for a, b in zip(times[name], times[plain], strict=True))
        tokens = sum(int(batch["attention_mask"].sum()) for batch in batches[name]) / sum(times[name])
        found[name] = {"seconds": statistics.median(times[name]), "of_likelihood": ratio, "tokens_per_second": tokens}
    print(report(found))
    if rounds > 2:
        keep(RESULTS / "game_cost.json", found, setting={"batch": BATCH, "rounds": rounds, "r": 16})


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
