"""Style against content as the strength of a style goes from 0 to 1.6: the trade-off curve of a trained adapter.

    python benchmarks/strength.py --adapter runs/quickstart --base FOLDER  # 100 verses of Acts each way: 20 minutes
    python benchmarks/strength.py --adapter ADAPTER --data test.jsonl --judge-data train.jsonl --peer LoRA=lora.txt
    python benchmarks/strength.py --adapter ADAPTER --rows 20              # a look, written nowhere

Each row is rewritten greedily in s times its style; 0 is the frozen backbone with the adapter's prompt. The copied
input, the references and what other systems wrote stand beside the curve. Numbers are means over the directions; J and
its factors are multiplied sentence by sentence, style is what a judge says that knows none of the rows.

ADAPTER is a folder or a hub id. Rows are what `style-adapter evaluate` takes: source, target, style. A peer is a file
of one text a row, in the order of the rows. Cells in benchmarks/results/strength.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from cells import RESULTS, run_cells, table
from kjv_runs import verses
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from style_adapter import StyleJudge, load, transfer
from style_adapter.fluency import BackboneScorer
from style_adapter.metrics import joint_report, score_transfer
from style_adapter.training import load_rows

STRENGTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6)
SHOWN = {"joint": "J", "style_accuracy": "style accuracy", "content": "content", "fluency": "fluency", "bleu": "BLEU"}
SHOWN |= {"self_bleu": "self-BLEU"}


@dataclass(frozen=True)
class Trial:
    """A trained model and the rows that it is tried on.

    Attributes:
        name: What the adapter is called in cells and tables.
        model: The model.
        tokenizer: Its backbone's.
        rows: source, target, style.
        judge: Tells the styles apart, and knows none of the rows.
    """

    name: str
    model: PeftModel
    tokenizer: PreTrainedTokenizerBase
    rows: Any
    judge: StyleJudge

    @cached_property
    def scorer(self) -> BackboneScorer:
        """What J's fluency is read by; it remembers the sources."""
        return BackboneScorer(self.model, self.tokenizer)

    def at(self, strength: float) -> dict[str, Any]:
        """The numbers of s * style."""
        bank = self.model.styles
        styles = [strength * bank.parse(style) for style in self.rows["style"]]
        texts = transfer(self.model, self.tokenizer, self.rows["source"], styles)
        return {"adapter": self.name, "strength": strength} | self.scores(texts)

    def of(self, peer: str, texts: Sequence[str]) -> dict[str, Any]:
        """The numbers of what another wrote."""
        return {"adapter": self.name, "peer": peer} | self.scores(texts)

    def scores(self, texts: Sequence[str]) -> dict[str, dict[str, float]]:
        """Each direction's numbers, and "overall", their mean."""
        sources, targets = list(self.rows["source"]), list(self.rows["target"])
        names, judge = self.model.styles.labels(self.rows["style"]), self.judge
        fluency = self.scorer.fluency(texts, sources).tolist()
        joint = joint_report(texts, sources, names, judge=judge, references=targets, fluency=fluency).directions
        plain = score_transfer(texts, sources, targets, names, judge=judge)
        found = {style: joint[style].to_dict() | plain[style].to_dict() for style in joint}
        means = {number: sum(each[number] for each in found.values()) / len(found) for number in SHOWN}
        return found | {"overall": means}


def cells(trial: Trial, peers: Mapping[str, Sequence[str]]) -> dict[str, Callable[[], dict[str, Any]]]:
    """A cell a strength, then one a peer."""
    found = {f"{trial.name}, strength {s:.1f}": partial(trial.at, s) for s in STRENGTHS}
    return found | {f"{trial.name}, {peer}": partial(trial.of, peer, texts) for peer, texts in peers.items()}


def report(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The table: each adapter's strengths in their order, then its peers."""
    ordered = sorted(found.values(), key=lambda cell: (cell["adapter"], cell.get("strength", 99.0)))
    rows = [
        (
            f"{cell['adapter']}, {cell.get('peer', 'strength')} {cell.get('strength', '')}".strip(),
            *(f"{cell['overall'][n]:.1f}" if "bleu" in n else f"{cell['overall'][n]:.3f}" for n in SHOWN),
        )
        for cell in ordered
    ]
    return table([("run", *SHOWN.values()), *rows])


def rows_and_judge(data: str | None, judge_data: str | None) -> tuple[Any, StyleJudge]:
    """The rows of the files, or the development verses of King James; and a judge.

    Raises:
        ValueError: One file without the other, or a judge that would know lines of the rows.
    """
    if data is None and judge_data is None:
        return verses()["dev"], verses()["judge"]
    if data is None or judge_data is None:
        raise ValueError(f"data={data!r} and judge_data={judge_data!r} must be given together; name both files")
    rows, known = load_rows(data), load_rows(judge_data)
    if overlap := set(rows["target"]) & set(known["target"]):
        raise ValueError(f"judge_data holds {len(overlap)} of the lines of data and must hold none; split the file")
    return rows, StyleJudge.fit(known["target"], [str(style) for style in known["style"]])


def read_peers(given: Sequence[str], rows: Any) -> dict[str, Sequence[str]]:
    """The copied input, the references, and the texts of each NAME=FILE.

    Raises:
        ValueError: A file that has not one text a row.
    """
    peers = {"copied input": list(rows["source"]), "references": list(rows["target"])}
    for name, _, file in (each.partition("=") for each in given):
        peers[name] = Path(file).read_text("utf-8").removesuffix("\n").split("\n")
        if len(peers[name]) != len(rows):
            raise ValueError(f"peer {name!r} has {len(peers[name])} lines and must have {len(rows)}, one a row")
    return peers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", required=True, help="folder or hub id of the adapter")
    parser.add_argument("--base", help="folder or hub id of the backbone, where the recorded one is not at hand")
    parser.add_argument("--name", help="of the adapter in the tables (default: the last part of --adapter)")
    parser.add_argument("--data", help="rows to rewrite (default: verses of Acts)")
    parser.add_argument("--judge-data", help="rows the judge is fitted on (default: the training verses)")
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=FILE", help="what another system wrote")
    parser.add_argument("--rows", type=int, help="a look at so many rows, written nowhere")
    options = parser.parse_args()
    rows, judge = rows_and_judge(options.data, options.judge_data)
    peers = read_peers(options.peer, rows)
    if options.rows is not None:
        rows, peers = rows.select(range(options.rows)), {name: texts[: options.rows] for name, texts in peers.items()}
    trial = Trial(options.name or Path(options.adapter).name, *load(options.adapter, base=options.base), rows, judge)
    folder = RESULTS / "strength" if options.rows is None else Path(mkdtemp())
    print(report(run_cells(folder, cells(trial, peers))))


if __name__ == "__main__":
    main()
