"""Requests served: 64 of 8 styles at once against the same ones one by one, on a loopback port.

    python benchmarks/serve.py            # writes benchmarks/results/serve.json
    python benchmarks/serve.py --quick    # a tiny Llama and 8 requests; nothing written

One `style-adapter serve` of a random adapter on SmolLM2-135M, bf16, answers both: at once its batches hold whatever
styles come, one by one every batch holds one text. The two ways take turns, and of each the median round is
shown. Latency is that of one request, its wait in the queue included.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import torch
from cells import RESULTS, keep, table
from peft import get_peft_model
from runs import PROMPT
from smollm2 import backbone_folder
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from style_adapter import StyleAdapterConfig

STYLES = [f"style{i}" for i in range(8)]
TOKENS, RANK = 32, 16
TEXTS = Path(__file__).parent.parent / "examples" / "style_texts.jsonl"
Request = tuple[str, str]  # style, text


def save(folder: Path, *, tiny: bool) -> tuple[str, str]:
    """(adapter, backbone): folders of a random adapter of eight styles, and of what it stands on."""
    torch.manual_seed(0)
    base = str(backbone_folder())
    if tiny:
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
        tokenizer = AutoTokenizer.from_pretrained(base)
        base = str(folder / "base")
        LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes)).save_pretrained(base)
        tokenizer.save_pretrained(base)
    config = StyleAdapterConfig(
        styles=STYLES, r=RANK, target_modules="all-linear", prompt=PROMPT, task_type="CAUSAL_LM", init_weights=False
    )
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16), config)
    model.save_pretrained(folder / "adapter")
    return str(folder / "adapter"), base


@contextmanager
def served(adapter: str, base: str) -> Iterator[openai.OpenAI]:
    """A client of a server in another process."""
    command = [sys.executable, "-m", "style_adapter", "serve", adapter, "--base", base, "--dtype", "bfloat16"]
    process = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    assert process.stdout
    try:
        address = next(word for word in process.stdout.readline().split() if word.startswith("http"))
        with openai.OpenAI(base_url=address, api_key="none", max_retries=0, timeout=3600) as client:
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def requests(count: int) -> list[Request]:
    lines = [json.loads(line)["text"] for line in TEXTS.read_text("utf-8").splitlines()]
    return [(STYLES[i % len(STYLES)], lines[i % len(lines)]) for i in range(count)]


def asked(client: openai.OpenAI, wanted: Sequence[Request], at_once: int) -> dict[str, float]:
    """Seconds of all requests, and what they gave, `at_once` of them open at any moment."""

    def one(request: Request) -> tuple[float, int]:
        start = time.perf_counter()
        answer = client.completions.create(model=request[0], prompt=request[1], max_tokens=TOKENS)
        assert answer.usage
        return time.perf_counter() - start, answer.usage.completion_tokens

    start = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        found = list(pool.map(one, wanted))
    seconds = time.perf_counter() - start
    waits = sorted(wait for wait, _ in found)
    return {
        "seconds": seconds,
        "requests_per_second": len(wanted) / seconds,
        "tokens_per_second": sum(tokens for _, tokens in found) / seconds,
        "median_latency": statistics.median(waits),
        "p95_latency": waits[int(0.95 * (len(waits) - 1))],
    }


def measure(count: int, rounds: int, *, tiny: bool) -> dict[str, dict[str, float]]:
    """The median round of each way."""
    wanted = requests(count)
    ways = {"one by one": 1, "all at once": count}
    found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder, served(*save(Path(folder), tiny=tiny)) as client:
        asked(client, wanted[:2], 2)  # the warm-up
        for _ in range(rounds):
            for way, at_once in ways.items():
                found[way].append(asked(client, wanted, at_once))
    return {way: sorted(each, key=lambda row: row["seconds"])[len(each) // 2] for way, each in found.items()}


def report(found: Mapping[str, Any]) -> str:
    """The table, with the throughput over that of one by one."""
    head = ("asked", "requests a second", "tokens a second", "of one by one", "latency, median s", "95 % within, s")
    alone = found["one by one"]["tokens_per_second"]
    rows = [
        (
            way,
            f"{row['requests_per_second']:.2f}",
            f"{row['tokens_per_second']:.1f}",
            f"{row['tokens_per_second'] / alone:.2f}",
            f"{row['median_latency']:.2f}",
            f"{row['p95_latency']:.2f}",
        )
        for way, row in found.items()
    ]
    return table([head, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="A tiny Llama, 8 requests, 1 round; nothing written")
    options = parser.parse_args()
    count, rounds = (8, 1) if options.quick else (64, 3)
    found = measure(count, rounds, tiny=options.quick)
    print(report(found))
    if not options.quick:
        setting = {"requests": count, "styles": len(STYLES), "max_tokens": TOKENS, "r": RANK, "rounds": rounds}
        keep(RESULTS / "serve.json", found, setting=setting)


if __name__ == "__main__":
    main()
