"""What each command of the terminal does."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

from ..recipe import load_recipe, parse_value

# What a command needs is imported when it runs: `--help` must not wait for torch's models and trainers.


def train(options: argparse.Namespace) -> None:
    """Train an adapter from a recipe: YAML file, options, or both; works under `accelerate launch` too."""
    from ..training import run

    given = {k: v for k, v in vars(options).items() if k not in ("recipe", "command", "parser")}
    recipe = load_recipe(options.recipe, given)
    folder = run(recipe)
    _leave_processes()
    if not recipe.training.should_save:  # another process says it
        return
    print(f"Saved to {folder}.")
    print(f"Try: {trial_of(recipe.training.task, folder, recipe.adapter.styles[-1])}")


def plan(options: argparse.Namespace) -> None:
    """Tell, before anything is downloaded, whether training an adapter fits some GPUs: memory and traffic a step."""
    import torch

    from ..planning import Work
    from ..planning import plan as table

    dtype = getattr(torch, options.dtype)
    work = Work(options.batch_size, options.prompt, options.target, r=options.r, styles=options.styles, dtype=dtype)
    print(table(options.backbone, gpus=options.gpus, gpu_memory=options.gpu_memory, work=work))


def transfer(options: argparse.Namespace) -> None:
    """Rewrite texts (arguments, --input or standard input, one a line), or a column of a big file, in a style."""
    if not options.text and _in_shards(options.input, options.output):
        _transfer_files(options)
        return
    from ..inference import load, transfer_best
    from ..inference import transfer as rewrite

    for name in FILE_OPTIONS:
        if (value := getattr(options, name)) is not None:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option}={value} must come with --input and a folder as --output; end it in /")
    if options.candidates and options.num_beams > 1:
        raise ValueError(f"--num-beams={options.num_beams} must be 1 with --candidates, which are drawn; leave one out")
    texts = list(options.text) or _lines(_path(options.input))
    given = (*load(options.adapter, base=options.base), texts, options.style)
    common = {"strength": options.strength, "batch_size": options.batch_size, "max_new_tokens": options.max_new_tokens}
    if options.candidates:
        results = transfer_best(*given, samples=options.candidates, seed=options.seed, **common)
    else:
        results = rewrite(*given, num_beams=options.num_beams, **common)
    _write(results, _path(options.output))


# Options of `transfer` that say how a file is read and written; None is what `transfer_files` takes by itself.
FILE_OPTIONS = (
    "column",
    "style_column",
    "output_column",
    "split",
    "subset",
    "format",
    "shard_rows",
    "engine",
    "workers",
)


def _in_shards(given: str | None, output: str | None) -> bool:
    """Whether a file goes into a folder: if the output is one, or if the input is no file of lines."""
    if given is None or given == "-":
        return False
    return not given.lower().endswith(".txt") or (
        output is not None and (output.endswith("/") or Path(output).is_dir())
    )


def _transfer_files(options: argparse.Namespace) -> None:
    """A column of a big file; works under `accelerate launch` too."""
    from ..files import transfer_files

    if options.output is None:
        raise ValueError(f"--output is missing and must be a folder for --input={options.input}; name one")
    rewriting = ("style", "strength", "candidates", "num_beams", "max_new_tokens", "seed", "batch_size", "base")
    given = {name: getattr(options, name) for name in (*rewriting, *FILE_OPTIONS)}
    given = {name: value for name, value in given.items() if value is not None}
    done = transfer_files(options.adapter, options.input, options.output, **given)
    if _leave_processes() == 0:
        print(done)


def _leave_processes() -> int:
    """Parts from the other processes of a launch, if there are any; the rank that this one had among them."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return 0
    rank = dist.get_rank()
    dist.destroy_process_group()  # gloo's threads would abort an interpreter that ends before them
    return rank


def write(options: argparse.Namespace) -> None:
    """Write texts in a style, from prompts (arguments, or --input file, one a line) or from nothing."""
    from ..inference import load
    from ..inference import write as draw

    prompts = list(options.text) or (_lines(options.input) if options.input else [""])
    model, tokenizer = load(options.adapter, base=options.base)
    texts = draw(
        model,
        tokenizer,
        prompts,
        options.style,
        strength=options.strength,
        samples=options.samples,
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    _write([text for drawn in texts for text in drawn], options.output)


def evaluate(options: argparse.Namespace) -> None:
    """Print and keep the table of copied input, before and after: style, BLEU, J, perplexity, copies, variety."""
    from ..data import check_rows
    from ..evaluation import StyleTransferEvaluator
    from ..inference import load
    from ..metrics import StyleJudge
    from ..training import load_rows

    rows, known = load_rows(options.data), load_rows(options.judge_data)
    check_rows(rows, "transfer", name="--data")
    check_rows(known, "transfer", name="--judge-data")
    overlap = set(rows["target"]) & set(known["target"])
    if overlap:
        raise ValueError(f"--judge-data holds {len(overlap)} of the lines of --data and must hold none; split the file")
    model, tokenizer = load(options.adapter, base=options.base)
    judge = StyleJudge.fit(known["target"], model.styles.labels(known["style"]))
    evaluator = StyleTransferEvaluator(
        {"tf-idf": judge, **{name: name for name in options.judge}},
        similarity=options.similarity,
        language_model=options.language_model,
        batch_size=options.batch_size,
    )
    found = evaluator.evaluate(model, tokenizer, rows)
    _show(found.report())
    if options.output:
        found.save(options.output)


def export(options: argparse.Namespace) -> None:
    """Write one style, or a mixture, as a plain LoRA for stock PEFT, vLLM or diffusers."""
    from ..export import export_lora, vllm_command
    from ..inference import load

    model, _ = load(options.adapter, base=options.base)
    lora = export_lora(model, options.folder, style=options.style, strength=options.strength)
    print(f"{options.folder}: load it with PeftModel.from_pretrained(backbone, {str(options.folder)!r})")
    try:
        print(f"or serve it: {vllm_command(model, lora, options.folder, base=options.base)}")
    except ValueError as unfit:
        print(unfit)


def push(options: argparse.Namespace) -> None:
    """Upload a run's folder to the hub: adapter, card, plots, and each style as a plain LoRA."""
    from ..hub import push_to_hub
    from ..inference import load

    model, _ = load(options.adapter, base=options.base)
    commit = push_to_hub(
        model,
        options.repo,
        folder=options.adapter,
        base_model_id=options.base_model_id,
        dtype=options.dtype,
        max_megabytes=options.max_megabytes,
        private=options.private or None,
        revision=options.revision,
    )
    print(commit)


def app(options: argparse.Namespace) -> None:
    """Open a page to try an adapter: a slider a style, candidates side by side, the words that changed."""
    from ..app import serve_page
    from ..inference import pipeline

    pipe = pipeline(options.adapter, task=options.task, base=options.base)
    page = serve_page(pipe, host=options.host, port=options.port, title=Path(options.adapter).name)
    print(f"{page.local_url} shows the page; Ctrl-C ends it", flush=True)
    page.block_thread()


def serve(options: argparse.Namespace) -> None:
    """Serve an adapter by OpenAI's HTTP API: styles and mixtures as models, requests written together."""
    from ..server import ServerOptions
    from ..server import serve as run

    given = {known.name: getattr(options, known.name) for known in fields(ServerOptions)}
    run(options.adapter, ServerOptions(**given), base=options.base, dtype=options.dtype, task=options.task)


# What to do with a trained adapter, by task.
TRIALS = {
    "transfer": "style-adapter transfer --adapter {folder_word} --style {style_word} TEXT",
    "unpaired": "style-adapter transfer --adapter {folder_word} --style {style_word} TEXT",
    "generation": "style-adapter write --adapter {folder_word} --style {style_word} --samples 3",
    "classification": "style_adapter.classify(*style_adapter.load({folder!r}), ['some text'], {style!r}) in Python",
    "token_classification": "style_adapter.tag(*style_adapter.load({folder!r}), ['some words'], {style!r}) in Python",
    "masked_lm": "model, tokenizer = style_adapter.load({folder!r}); model(**inputs, styles={style!r}) in Python",
}


def trial_of(task: str, folder: str, style: str) -> str:
    """What to do next, fit to be pasted: words of a shell, and YAML where a style's name would be read as no text.

    >>> print(trial_of("unpaired", "my runs", "kjv"))
    style-adapter transfer --adapter 'my runs' --style kjv TEXT
    >>> print(trial_of("unpaired", "out", "no"))
    style-adapter transfer --adapter out --style '"no"' TEXT
    """
    try:
        is_itself = parse_value(style) == style
    except ValueError:
        is_itself = False
    name = style if is_itself else json.dumps(style, ensure_ascii=False)
    words = {"folder_word": shlex.quote(folder), "style_word": shlex.quote(name)}
    return TRIALS[task].format(folder=folder, style=style, **words)


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "plan": plan,
    "train": train,
    "transfer": transfer,
    "write": write,
    "evaluate": evaluate,
    "export": export,
    "push": push,
    "app": app,
    "serve": serve,
}


def _path(name: str | None) -> Path | None:
    """A path, where one is given."""
    return None if name is None else Path(name)


def _lines(path: Path | None) -> list[str]:
    """The lines of a file, or of standard input; empty ones stay, so that output lines match input lines."""
    text = sys.stdin.read() if path is None or str(path) == "-" else path.read_text("utf-8")
    return text.removesuffix("\n").split("\n") if text else []  # splitlines would part a text at U+2028 too


def _show(markdown: str) -> None:
    """Markdown as it is, or drawn where somebody looks at a terminal and rich is installed."""
    if sys.stdout.isatty() and find_spec("rich"):
        from rich.console import Console
        from rich.markdown import Markdown

        Console().print(Markdown(markdown))
    else:
        print(markdown)


def _write(texts: Sequence[str], path: Path | None) -> None:
    """To a file, or to the terminal: one line a text, so that lines go together."""
    text = "".join(" ".join(written.split("\n")) + "\n" for written in texts)
    if path is None:
        sys.stdout.write(text)
    else:
        path.write_text(text, "utf-8")
