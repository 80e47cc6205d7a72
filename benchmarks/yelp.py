"""Sentiment transfer on Yelp, unpaired: a frozen SmolLM2-135M with one adapter, trained on what a teacher searches out.

    python benchmarks/yelp.py --data FOLDER                 # on 2 cores; stages in runs/yelp, results on dev
    python benchmarks/yelp.py --data FOLDER --scale 0.02    # a look, its results written nowhere
    python benchmarks/yelp.py --data FOLDER --test          # rewrites the test too, for yelp_table.py to score
    python benchmarks/yelp.py --data FOLDER --compared --back 0.12 --rounds 2 --texts 2250 --name compared
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 benchmarks/yelp.py ...    # each core a process; drafts gain most

FOLDER holds yelp_sentiment. The teacher rewrites training lines by what the other sentiment says in the same place;
the adapter learns from its pairs against a discriminator; then it learns from the best of its own drafts and the
teacher's or, `--compared`, from its own best drafts, each compared with what it wrote at once. Two judges that have no
part in any of this are asked on development lines: word and letter n-grams, and the meaning of sentences as MiniLM has
it. The best of the drafts is told by the teacher's score, never by a judge.
Stages that stand in runs/yelp are not run again, and one that was stopped goes on.
"""

import argparse
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from cells import RESULTS, keep, table
from peft import PeftModel, get_peft_model
from runs import NO_GAME, TRAINING, load_smollm2, minilm, read_lines

from style_adapter import (
    EditTeacher,
    StyleAdapterConfig,
    StyleJudge,
    StyleTrainer,
    StyleTrainingArguments,
    StyleTransferEvaluator,
    best_pairs,
    teacher_pairs,
    transfer,
    transfer_best,
)
from style_adapter.disk import write_whole
from style_adapter.fluency import BackboneScorer
from style_adapter.inference import Scores, log_likelihoods
from style_adapter.metrics import line_hashes
from style_adapter.presets import TAUGHT
from style_adapter.teacher.pairs import Pair
from style_adapter.teacher.scoring import RewriteWeights

STYLES = ("neg", "pos")
OTHER = {"neg": "pos", "pos": "neg"}
FILES = {style: f"{style}2{OTHER[style]}.txt" for style in STYLES}  # of outputs, by the sentiment of the input
PROMPT = "{source}\n"
RUNS = Path("runs/yelp")
# As `train --unpaired` plays it.
GAME = {name: value for name, value in TAUGHT.items() if name not in ("teacher", "rounds")}
OPTIONS: dict[str, Any] = (
    TRAINING
    | GAME
    | {
        "per_device_train_batch_size": 20,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 20,
        "gate_learning_rate": 5e-3,
        "adversary_fraction": 1.0,
        "discriminator_learning_rate": 1e-3,
        "watch_steps": 0,
        "logging_steps": 25.0,
        "save_strategy": "steps",
        "save_steps": 250.0,
        "save_total_limit": 1,
    }
)
CHOSEN: dict[str, Any] = {"learning_rate": 5e-4, "num_train_epochs": 2.0}  # a round that learns from the best
# A round that compares: likelihood and preference alone, so new tokens need less weight.
COMPARED: dict[str, Any] = {"learning_rate": 3e-4, "warmup_steps": 10, "w_pref": 2.0}
ALONE = NO_GAME | {"adversary_fraction": 0.0}  # the likelihood
COMPARED |= ALONE | {"novel_token_weight": 1.5}
# What is compared holds the style far better than what a search begins with: a draft must be worth its words.
CHOICE = RewriteWeights(style=3.0)
SHOWN = {
    "accuracy": "style_accuracy",
    "by meaning": "style_accuracy_meaning",
    "self-BLEU": "self_bleu",
    "similarity": "self_similarity",
    "J": "joint",
    "copies": "copy_rate",
}
Lines = dict[str, list[str]]  # by sentiment
Row = TypeVar("Row")


@dataclass(frozen=True)
class Yelp:
    """The lines of one folder, and how much of everything is done."""

    folder: Path
    scale: float = 1.0
    seed: int = 0

    def lines(self, split: str) -> Lines:
        """The lines of a split by sentiment."""
        suffix = ".txt.gz" if split == "train" else ".txt"
        return {style: read_lines(self.folder / f"{split}.{style}{suffix}") for style in STYLES}

    @cached_property
    def train(self) -> tuple[list[str], list[str]]:
        """(texts, styles): different lines, none of both sentiments, in random order."""
        kinds: dict[str, set[str]] = {}
        for style, texts in self.lines("train").items():
            for text in texts:
                kinds.setdefault(text, set()).add(style)
        rows = [(text, *found) for text, found in kinds.items() if len(found) == 1 and text]
        random.Random(self.seed).shuffle(rows)
        return [text for text, _ in rows], [style for _, style in rows]

    def count(self, number: int) -> int:
        """So many at this scale."""
        return max(1, int(number * self.scale))


def mostly_there(pairs: Sequence[Pair], back: float) -> list[Pair]:
    """All pairs to a rewrite, and a share `back` of those from a rewrite to what a person wrote."""
    chosen = random.Random(0)
    return [pair for pair in pairs if pair["synthetic"] or chosen.random() < back]


def spread(make: Callable[..., Sequence[Row]], *columns: Sequence[Any]) -> list[Row]:
    """What each process makes of its share of some columns, together, in the order of the processes."""
    with PartialState().split_between_processes([*zip(*columns, strict=True)]) as mine:
        return gather_object([*make(*map(list, zip(*mine, strict=True)))])


def kept(path: Path, make: Callable[[], Sequence[Pair]], *, by_all: bool = True) -> list[Pair]:
    """The rows of a file, made first where it is missing: by all processes, or by the first while the others wait."""
    state = PartialState()
    missing = not path.exists()
    state.wait_for_everyone()  # nobody writes before all have looked
    if missing:
        begun = time.perf_counter()
        rows = make() if by_all or state.is_main_process else []
        if state.is_main_process:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))
            print(f"{path}: {len(rows):,} rows, {time.perf_counter() - begun:.0f} s", flush=True)
    state.wait_for_everyone()
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def fresh_model(seed: int, rank: int) -> tuple[PeftModel, Any]:
    """The frozen backbone with an adapter that has learnt nothing."""
    torch.manual_seed(seed)
    with PartialState().main_process_first():  # the first one unpacks the backbone
        backbone, tokenizer = load_smollm2(dtype=torch.bfloat16)
    config = StyleAdapterConfig(
        styles=[*STYLES], r=rank, alpha=2.0 * rank, target_modules="all-linear", task_type="CAUSAL_LM", prompt=PROMPT
    )
    return get_peft_model(backbone, config), tokenizer


def train(model: PeftModel, tokenizer: Any, rows: list[Pair], folder: Path, **options: Any) -> None:
    """Trains the adapter in place on pairs, on from where it was stopped, unless `folder` has it already."""
    if (folder / "adapter_config.json").exists():
        model.load_adapter(str(folder), "default", is_trainable=True)
        return
    begun = time.perf_counter()
    each = OPTIONS["per_device_train_batch_size"] // PartialState().num_processes
    trainer = StyleTrainer(
        model=model,
        args=StyleTrainingArguments(str(folder), **OPTIONS | {"per_device_train_batch_size": each} | options),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
    trainer.save_model()
    print(f"{folder}: {trainer.state.global_step} steps, {time.perf_counter() - begun:.0f} s", flush=True)


def ranker(model: PeftModel, tokenizer: Any, teacher: EditTeacher) -> Scores:
    """score(y | x, s) = the teacher's + W l(y | x, s) / 10 + (log p(y) - log p(x)) / 10, p of the frozen backbone.

    l is the adapter's mean log-likelihood of a token, W the number of words and one more.
    The three are told apart by what they cannot see: the teacher how a sentence reads as a whole, the adapter's own
    likelihood the style, the backbone the source.
    """
    backbone = BackboneScorer(model, tokenizer, 128)

    def score(sources: list[str], outputs: list[str], styles: list[str]) -> np.ndarray:
        lengths = np.array([len(text.split()) + 1 for text in outputs])
        own = lengths * log_likelihoods(model, tokenizer, sources, outputs, styles, batch_size=128)
        known = dict(zip(kinds := [*dict.fromkeys([*sources, *outputs])], backbone.sums(kinds)[:, 0], strict=True))
        gain = np.array([known[y] - known[x] for x, y in zip(sources, outputs, strict=True)])
        return teacher.score(sources, outputs, styles) + 0.1 * own + 0.1 * gain

    return score


def better_pairs(
    model: PeftModel, tokenizer: Any, teacher: EditTeacher, texts: Sequence[str], styles: Sequence[str]
) -> list[Pair]:
    """Each text with the best of the adapter's rewrite and four of the teacher's, and the other way round."""
    edits = teacher.rewrites(texts, [OTHER[style] for style in styles], 4)
    return best_pairs(
        model,
        tokenizer,
        texts,
        styles,
        score=ranker(model, tokenizer, teacher),
        others=[[edit.text for edit in found] for found in edits],
        samples=0,
        batch_size=128,
    )


def compared_pairs(
    model: PeftModel, tokenizer: Any, teacher: EditTeacher, texts: Sequence[str], styles: Sequence[str]
) -> list[Pair]:
    """Each text with the best of the adapter's greedy rewrite and seven drafts, and one that is worse."""
    score = partial(teacher.score, weights=CHOICE)
    return best_pairs(model, tokenizer, texts, styles, score=score, samples=7, both_ways=False, batch_size=96)


@dataclass(frozen=True)
class ByMeaning:
    """A judge of sentences by what they mean: logistic regression on MiniLM's vectors."""

    encoder: Any
    """MiniLM."""
    classifier: Any
    """The regression."""
    trained_on: frozenset[int]
    """The `line_hashes` of the texts that it was fitted on."""

    @classmethod
    def fit(cls, encoder: Any, texts: Sequence[str], styles: Sequence[str]) -> "ByMeaning":
        """Fitted on texts and their styles."""
        from sklearn.linear_model import LogisticRegression

        vectors = encoder.encode([*texts], batch_size=128)
        classifier = LogisticRegression(C=10.0, max_iter=1000).fit(vectors, [*styles])
        return cls(encoder, classifier, line_hashes(texts))

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The style of each text."""
        return [str(style) for style in self.classifier.predict(self.encoder.encode([*texts]))]


def evaluator_of(texts: Sequence[str], styles: Sequence[str], dev: Lines) -> StyleTransferEvaluator:
    """Two judges with no part in training, fitted on the last of the training lines, and MiniLM's similarity."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(minilm(), device="cpu")
    hidden = [line for lines in dev.values() for line in lines]
    return StyleTransferEvaluator(
        {
            "n-grams": StyleJudge.fit(texts[-60_000:], styles[-60_000:], without=hidden),
            "meaning": ByMeaning.fit(encoder, texts[-8000:], styles[-8000:]),
        },
        similarity=encoder,
        bleu={"lowercase": True, "tokenize": "none"},
    )


@cache
def teacher_of(yelp: Yelp) -> EditTeacher:
    """A teacher whose evidence has heard every other line; drafts of the others are judged by it."""
    texts, styles = yelp.train
    return EditTeacher.fit(texts, styles, unheard=[i % 2 == 0 for i in range(len(texts))], seed=yelp.seed)


def rewritten(
    model: PeftModel,
    tokenizer: Any,
    sources: Sequence[str],
    wanted: Sequence[str],
    teacher: EditTeacher | None = None,
    *,
    beams: int = 1,
) -> list[str]:
    """The adapter's rewrites: of one pass, or the best of its drafts by a teacher's score."""
    if teacher is None:
        return spread(partial(transfer, model, tokenizer, batch_size=64, num_beams=beams), sources, wanted)
    best = partial(transfer_best, model, tokenizer, score=teacher.score, samples=8, top_k=20, batch_size=64)
    return spread(best, sources, wanted)


def write_outputs(
    model: PeftModel,
    tokenizer: Any,
    lines: Lines,
    folder: Path,
    teacher: EditTeacher | None = None,
    *,
    beams: int = 1,
) -> None:
    """What `rewritten` makes of the lines of each sentiment, a file each, one line a source."""
    sources = [line for style in STYLES for line in lines[style]]
    wanted = [OTHER[style] for style in STYLES for _ in lines[style]]
    outputs = iter(rewritten(model, tokenizer, sources, wanted, teacher, beams=beams))
    folder.mkdir(parents=True, exist_ok=True)
    for style in STYLES:
        texts = [" ".join(next(outputs).split()) for _ in lines[style]]  # on one line, whatever was written
        (folder / FILES[style]).write_text("".join(f"{text}\n" for text in texts), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds yelp_sentiment")
    parser.add_argument("--scale", type=float, default=1.0, help="of all counts: a look")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=1, help="of learning from the best drafts")
    parser.add_argument("--compared", action="store_true", help="rounds of preferences, without the discriminator")
    parser.add_argument("--texts", type=int, default=6000, help="of a round")
    parser.add_argument("--name", default="default", help="of the run, for its stages")
    parser.add_argument("--steps", type=int, default=2000, help="of round 0")
    parser.add_argument("--no-game", action="store_true", help="round 0 without the discriminator: likelihood alone")
    parser.add_argument("--back", type=float, default=1.0, help="share of the pairs whose target a person wrote")
    parser.add_argument("--options", type=json.loads, default={}, help="JSON: training options of every stage")
    parser.add_argument("--dev-lines", type=int, default=250, help="of each sentiment")
    parser.add_argument("--test", action="store_true", help="writes rewrites of the test's sources, for yelp_table.py")
    parser.add_argument("--beams", type=int, default=1, help="of the one pass over the test; 1 is greedy")
    options = parser.parse_args()
    datasets.disable_progress_bars()
    PartialState(cpu=True)
    yelp = Yelp(options.data / "yelp_sentiment", options.scale)
    texts, styles = yelp.train
    folder = RUNS / options.name
    pairs = kept(
        RUNS / f"pairs-{options.scale:g}.jsonl",
        lambda: teacher_pairs(texts, styles, count=yelp.count(64_000), seed=yelp.seed),
        by_all=False,
    )
    model, tokenizer = fresh_model(yelp.seed, options.rank)
    train(
        model, tokenizer, mostly_there(pairs, options.back), folder / "round-0",
        **{"learning_rate": 1e-3, "max_steps": yelp.count(options.steps)}
        | (ALONE if options.no_game else {})
        | options.options,
    )  # fmt: skip
    dev, found = yelp.lines("dev"), {}
    look = partial(look_at, evaluator_of(texts, styles, dev), dev, model, tokenizer, options.dev_lines)
    found["round 0, greedy"] = look()
    for number in range(1, options.rounds + 1):
        count = yelp.count(options.texts)
        part = [i * 2 for i in range(count * (number - 1), count * number)]  # lines that the evidence has not heard
        better = kept(
            folder / f"better-{number}.jsonl",
            partial(
                spread,
                partial(compared_pairs if options.compared else better_pairs, model, tokenizer, teacher_of(yelp)),
                [texts[i] for i in part],
                [styles[i] for i in part],
            ),
        )
        kind = COMPARED | {"max_steps": yelp.count(220)} if options.compared else CHOSEN
        train(
            model, tokenizer, mostly_there(better, options.back), folder / f"round-{number}", **kind | options.options
        )  # fmt: skip
        found[f"round {number}, greedy"] = look()
    found["best of 8"] = look(teacher_of(yelp))
    if options.test:
        test, place = yelp.lines("test"), RESULTS / "yelp" if options.scale == 1 else folder / "test"
        write_outputs(model, tokenizer, test, place / "one_pass", beams=options.beams)
        write_outputs(model, tokenizer, test, place, teacher_of(yelp))
    print(report({options.name: found}))
    if options.scale == 1:
        keep(RESULTS / "yelp" / f"{options.name}.json", found, options=OPTIONS | options.options)


def report(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """A row for each look at each run."""
    looks = [(f"{run}, {name}", numbers) for run, each in found.items() for name, numbers in each.items()]
    body = [
        (name, *(f"{numbers[key]:.{1 if 'bleu' in key else 3}f}" for key in SHOWN.values())) for name, numbers in looks
    ]
    return table([("run", *SHOWN), *body])


def look_at(
    evaluator: StyleTransferEvaluator,
    dev: Lines,
    model: PeftModel,
    tokenizer: Any,
    count: int,
    teacher: EditTeacher | None = None,
) -> dict[str, float]:
    """The numbers of the adapter's rewrites, greedy ones, or the best of its drafts by a teacher's score."""
    sources = [line for style in STYLES for line in dev[style][:count]]
    wanted = [OTHER[style] for style in STYLES for _ in dev[style][:count]]
    outputs = rewritten(model, tokenizer, sources, wanted, teacher)
    for place in (*range(min(6, count)), *range(count, count + min(6, count))):
        print(f"    {sources[place]} -> {outputs[place]}")
    scores = evaluator.score({"adapter": outputs}, sources, wanted).scores["adapter"]["overall"]
    found = {key: scores[key].value for key in SHOWN.values()}
    print(found, flush=True)
    return found


if __name__ == "__main__":
    main()
