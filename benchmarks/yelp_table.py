"""Sentiment transfer on Yelp, the test: beside 52 published systems, the copied input and people, on the same lines.

    python benchmarks/yelp_table.py --data FOLDER    # a quarter of an hour on one core; results/yelp/table.json

Accuracy, BLEU to the input and to four references, and G = sqrt(accuracy x BLEU to references) are those of a scorer
that is not ours, `score_yelp.py`; its judge is logistic regression on words and pairs of words. J, similarity (MiniLM)
and perplexity (SmolLM2-135M, frozen) are what the evaluator of this package finds of ours and of the best published
systems by G. So are the shares that two more judges take for the wanted sentiment, fitted on training lines, no line of
the test and no reference among them: one by n-grams of words and of letters, which is J's style, and one by the meaning
of sentences as MiniLM has it. The references of one person are scored against those of the other three, those of a
fifth against all four. All texts are in the token form of the scorer. Intervals are of 95 %; p is that of a paired test
on the same lines.

FOLDER holds yelp_sentiment, yelp_system_outputs and score_yelp.py. Of ours there are two systems, as `yelp.py --test`
writes them: "best of n", neg2pos.txt and pos2neg.txt in the folder of outputs, and "one pass", the same in its folder
one_pass. The table stays beside them, with the list of all outputs that were ever scored there.
"""

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from hashlib import sha256
from importlib.metadata import version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import RESULTS, keep
from jaxtyping import Float
from runs import load_smollm2
from yelp import FILES, OTHER, RUNS, STYLES, Yelp, evaluator_of

from style_adapter import StyleTransferEvaluator
from style_adapter.evaluation import Evaluation
from style_adapter.metrics import Estimate, LanguageScorer, LineSums, Number, groups_of, markdown_table
from style_adapter.metrics.intervals import ratio
from style_adapter.metrics.transfer import bleu_of_counts

OURS = {"best of n": Path(), "one pass": Path("one_pass")}  # where each lies in the folder of outputs
ANCHORS = {"_input_copy": "copied input", "_human_imat_ref0": "human 5"}  # no systems
BASELINE = "DIRR_direct"  # the best published one by G
BEST = 10  # so many published systems are read by models too; all of them would take an hour
WAYS = {OTHER[style]: FILES[style].removesuffix(".txt") for style in STYLES} | {"overall": "both"}
SCORED = {"accuracy": ("Acc", 1), "self_bleu": ("self-BLEU", 1), "bleu": ("ref4-BLEU", 1), "g": ("G", 1)}
READ = {
    "style_accuracy": ("by n-grams", 3),
    "style_accuracy_meaning": ("by meaning", 3),
    "joint": ("J", 3),
    "self_similarity": ("similarity", 3),
    "copy_rate": ("copies", 3),
    "perplexity": ("perplexity", 0),
}
SHOWN = SCORED | READ
TESTED = ("g", "joint", "self_similarity")
DRAWS = {"samples": 1000, "seed": 0}
Numbers = dict[str, dict[str, Number]]  # by system and name


@dataclass(frozen=True)
class Gold:
    """The lines of the test in the token form of the scorer, negative ones first."""

    sources: list[str]
    """What is rewritten."""
    wanted: list[str]
    """The sentiment that each should get."""
    references: list[list[str]]
    """What four people wrote for each."""

    @classmethod
    def of(cls, scorer: Any) -> "Gold":
        """What the scorer reads."""
        gold = scorer.load_gold()
        return cls(
            [line for style in STYLES for line in gold[style][0]],
            [OTHER[style] for style in STYLES for _ in gold[style][0]],
            [[*people] for style in STYLES for people in zip(*gold[style][1], strict=True)],
        )

    def numbers(self, evaluator: StyleTransferEvaluator, outputs: Mapping[str, Sequence[str]]) -> Numbers:
        """What an evaluator says of some systems, and of people."""
        return evaluator.score(outputs, self.sources, self.wanted, references=self.references).numbers


@dataclass(frozen=True)
class ByScorer:
    """The scorer's own judge, whose 0 and 1 are negative and positive."""

    classifier: Any
    """What the scorer trained."""

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The sentiment of each text."""
        return [STYLES[int(label)] for label in self.classifier.predict([*texts])]


@dataclass(frozen=True)
class ReadOnce(LanguageScorer):
    """Reads each text once, though J and perplexity both ask for it."""

    known: dict[str, Float[np.ndarray, " 2"]] = field(default_factory=dict)
    """What was read."""

    def sums(self, texts: Sequence[str]) -> Float[np.ndarray, "texts 2"]:
        """As `LanguageScorer` gives them."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        self.known.update(zip(new, super().sums(new), strict=True))
        return np.array([self.known[text] for text in texts]).reshape(-1, 2)


def scorer_of(folder: Path) -> Any:
    """The module `score_yelp.py`, which finds its data beside itself."""
    spec = spec_from_file_location("score_yelp", folder.resolve() / "score_yelp.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def holds_outputs(folder: Path) -> bool:
    """Whether a system's two files are there."""
    return all((folder / file).is_file() for file in FILES.values())


def ours_in(outputs: Path) -> dict[str, Path]:
    """The folder of each of our systems that has outputs.

    Raises:
        ValueError: None has.
    """
    found = {name: outputs / place for name, place in OURS.items() if holds_outputs(outputs / place)}
    if not found:
        raise ValueError(f"outputs={str(outputs)!r} must hold {[*FILES.values()]}; `yelp.py --test` writes them")
    return found


def others_in(folder: Path) -> dict[str, Path]:
    """The folder of each published system and anchor."""
    return {ANCHORS.get(each.name, each.name): each for each in sorted(folder.iterdir()) if holds_outputs(each)}


def with_evaluations(known: Sequence[Mapping[str, str]], folders: Mapping[str, Path], day: str) -> list[dict[str, str]]:
    """The evaluations on record, and one more for each system whose outputs are not among them.

    Outputs are known by what `cat neg2pos.txt pos2neg.txt | sha256sum` prints: to score them again tells nothing new.
    """
    found = [dict(one) for one in known]
    for name, folder in folders.items():
        digest = sha256(b"".join((folder / file).read_bytes() for file in FILES.values())).hexdigest()
        if digest not in [one["sha256"] for one in found]:
            found.append({"date": day, "system": name, "sha256": digest})
    return found


def scored(judge: Any, gold: Gold, outputs: Mapping[str, Sequence[str]]) -> Numbers:
    """The scorer's numbers of every system, and of people: Acc, self-BLEU, ref4-BLEU and G, 0..100."""
    evaluator = StyleTransferEvaluator({"scorer": ByScorer(judge)}, bleu={"lowercase": True, "tokenize": "none"})
    found: Numbers = {}
    for run, numbers in gold.numbers(evaluator, outputs).items():
        right, bleu = numbers["style_accuracy"], numbers["bleu"]
        percent = replace(right, of=lambda sums: 100 * ratio(sums))
        found[run] = {"accuracy": percent, "self_bleu": numbers["self_bleu"], "bleu": bleu}
        found[run]["g"] = geometric_mean(right, bleu)
    return found


def geometric_mean(accuracy: LineSums, bleu: LineSums) -> LineSums:
    """G = sqrt(Acc BLEU), both 0..100, of all lines together.

    A line of `accuracy` holds (right_i, 1), a line of `bleu` what `bleu_counts` gives.
    """
    counts = np.concatenate([accuracy.lines, bleu.lines], axis=1)
    return LineSums(counts, lambda sums: np.sqrt(100 * ratio(sums[:, :2]) * bleu_of_counts(sums[:, 2:])))


def read(yelp: Yelp, normalise: Any, gold: Gold, outputs: Mapping[str, Sequence[str]]) -> Numbers:
    """What the two judges and the models say of some systems, and of people."""
    hidden = {*gold.sources, *(text for people in gold.references for text in people)}
    lines = [(normalise(text), style) for text, style in zip(*yelp.train, strict=True)]
    texts, styles = zip(*(line for line in lines if line[0] not in hidden), strict=True)
    model, tokenizer = load_smollm2(dtype=torch.float32)
    evaluator = replace(evaluator_of(texts, styles, {}), language_model=ReadOnce(model.eval(), tokenizer))
    return {run: {name: found[name] for name in READ} for run, found in gold.numbers(evaluator, outputs).items()}


def measured(data: Path, ours: Mapping[str, Path]) -> dict[str, Any]:
    """Every number of ours and of those in `data`, ready for JSON."""
    scorer = scorer_of(data)
    judge = scorer.get_judge(RUNS / "score_yelp.joblib")
    others, gold = others_in(data / "yelp_system_outputs"), Gold.of(scorer)
    folders = {**ours, **others}
    said = {run: scorer.score(folder, judge, scorer.load_gold()) for run, folder in folders.items()}
    ranked = sorted((run for run in others if run not in ANCHORS.values()), key=lambda run: -said[run]["G"])
    texts = {run: [line for f in FILES.values() for line in scorer.read(folders[run] / f)] for run in folders}
    numbers = scored(judge, gold, texts)
    few = {run: texts[run] for run in [*ours, *ranked[:BEST], BASELINE, *ANCHORS.values()] if run in texts}
    more = read(Yelp(data / "yelp_sentiment"), scorer.normalise, gold, few)
    numbers = {run: each | more.get(run, {}) for run, each in numbers.items()}
    found = Evaluation(texts, numbers, groups_of(gold.wanted, len(gold.wanted)), DRAWS)
    check_agreement(found, said)
    kinds = {"ours": [*ours], "published": ranked, "others": [run for run in numbers if run not in {*ours, *ranked}]}
    return {kind: {run: rounded(found.scores[run]) for run in runs} for kind, runs in kinds.items()} | {
        "differences": {run: rounded(found.differences(run, BASELINE), TESTED) for run in ours}
    }


def check_agreement(found: Evaluation, said: Mapping[str, Mapping[str, float]]) -> None:
    """Refuses a number that is not what the scorer said.

    Raises:
        ValueError: Such a number.
    """
    for run, theirs in said.items():
        for name, (title, _) in SCORED.items():
            key = title.replace("-", "")  # as the scorer writes it
            mine = found.scores[run]["overall"][name].value
            if abs(mine - theirs[key]) > 1e-6:
                raise ValueError(f"{name} of {run!r} is {mine} and must be the scorer's {key}, {theirs[key]}")


def rounded(found: Mapping[str, Mapping[str, Estimate]], names: Sequence[str] = tuple(SHOWN)) -> dict[str, Any]:
    """Way -> name -> the number, the ends of its interval and, of a difference, p."""
    return {
        WAYS[direction]: {
            name: [round(float(value), 4) for value in numbers[name].to_dict().values()]
            for name in names
            if name in numbers
        }
        for direction, numbers in found.items()
    }


def report(found: Mapping[str, Any]) -> str:
    """All systems by G; what models say of the best; each direction; and what tells ours from the best published."""
    names = {f"ours, {run}": numbers for run, numbers in found["ours"].items()}
    rows = sorted((names | found["published"] | found["others"]).items(), key=lambda row: -row[1]["both"]["g"][0])
    few = names | {run: numbers for run, numbers in rows if run in (BASELINE, ANCHORS["_input_copy"])}
    days = dict.fromkeys(one["date"] for one in found["evaluations"])
    return "\n\n".join(
        [
            f"Outputs of ours scored on these lines so far: {len(found['evaluations'])} ({', '.join(days)}).",
            shown(rows, SCORED),
            shown([row for row in rows if "joint" in row[1]["both"]], ["g", *READ]),
            shown([*few.items()], SHOWN, [way for way in WAYS.values() if way != "both"]),
            differences(found["differences"]),
        ]
    )


def shown(rows: Sequence[tuple[str, Any]], names: Iterable[str], ways: Sequence[str] = ("both",)) -> str:
    """A row a way and system."""
    names, several = [*names], len(ways) > 1
    head = ["way"] * several + ["system", *(SHOWN[name][0] for name in names)]
    body = [
        [way] * several + [run, *(cell(name, found[way][name]) for name in names)]
        for way in ways
        for run, found in rows
    ]
    return markdown_table(head, body, names=1 + several)


def cell(name: str, estimate: Sequence[float]) -> str:
    """A number; G and J with their intervals."""
    value, low, high = (f"{number:.{SHOWN[name][1]}f}" for number in estimate)
    return f"{value} [{low}, {high}]" if name in ("g", "joint") else value


def differences(found: Mapping[str, Any]) -> str:
    """Ours less the best published one."""
    body = []
    for run, ways in found.items():
        for way, numbers in ways.items():
            for name, (*estimate, p_value) in numbers.items():
                value, low, high = (f"{number:+.{SHOWN[name][1]}f}" for number in estimate)
                body.append([f"ours, {run}", way, SHOWN[name][0], value, f"[{low}, {high}]", f"{p_value:.3f}"])
    return markdown_table(["system", "way", "number", f"less {BASELINE}'s", "95 % interval", "p"], body, names=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds score_yelp.py and its data")
    parser.add_argument("--outputs", type=Path, default=RESULTS / "yelp", help="folder that holds what ours wrote")
    options = parser.parse_args()
    path, ours = options.outputs / "table.json", ours_in(options.outputs)
    known = json.loads(path.read_text("utf-8"))["results"]["evaluations"] if path.exists() else []
    begun = time.perf_counter()
    found = measured(options.data, ours)
    found["evaluations"] = with_evaluations(known, ours, date.today().isoformat())
    made = {"score_yelp.py": sha256((options.data / "score_yelp.py").read_bytes()).hexdigest()}
    made |= {name: version(name) for name in ("sacrebleu", "scikit-learn", "sentence-transformers")}
    keep(path, found, indent=None, scorers=made, seconds=round(time.perf_counter() - begun), **DRAWS)
    print(report(found))


if __name__ == "__main__":
    main()
