"""evaluate: its metrics read what the adapter writes.

    python examples/peers/evaluate_metrics.py
    python examples/peers/evaluate_metrics.py --model HuggingFaceTB/SmolLM2-135M-Instruct --metric sacrebleu

Metrics named by `--metric` come from the hub; without it one is read from the file beside this one, offline. The
package has metrics of its own, of the same class: BLEU, style accuracy, J and others in `style_adapter.metrics`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import evaluate
from peft import get_peft_model
from tiny import STYLES, WORDS, load

from style_adapter import StyleAdapterConfig, transfer


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="Folder or hub id of the backbone; a tiny one is made here if left out.")
    parser.add_argument("--metric", help="Name of a metric on the hub; the local exact_match.py if left out.")
    args = parser.parse_args(argv)
    backbone, tokenizer = load(args.model)
    config = StyleAdapterConfig(styles=STYLES, target_modules="all-linear", prompt="{source}", task_type="CAUSAL_LM")
    model = get_peft_model(backbone, config)
    metric = evaluate.load(args.metric or str(Path(__file__).with_name("exact_match.py")))
    scores = {}
    for i, style in enumerate(STYLES):
        written = transfer(model, tokenizer, list(WORDS), style, max_new_tokens=4)
        scores[style] = metric.compute(predictions=written, references=[said[i] for said in WORDS.values()])
    print(scores)
    return scores


if __name__ == "__main__":
    main()
