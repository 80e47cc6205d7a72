"""The terminal: `style-adapter train | transfer | write | evaluate | export | push`."""

import argparse
import json
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from .recipe import add_options, load_recipe, no_option, parse_value

# What a command needs is imported when it runs: `--help` must not wait for torch's models and trainers.


def train(options: argparse.Namespace) -> None:
    """Train an adapter from a recipe: YAML file, options, or both; works under `accelerate launch` too."""
    import torch.distributed as dist

    from .training import run

    given = {k: v for k, v in vars(options).items() if k not in ("recipe", "command", "parser")}
    recipe = load_recipe(options.recipe, given)
    folder = run(recipe)
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()  # gloo's threads would abort an interpreter that ends before them
    if not recipe.training.should_save:  # another process says it
        return
    print(f"Saved to {folder}.")
    print(f"Try: {trial_of(recipe.training.task, folder, recipe.adapter.styles[-1])}")


def transfer(options: argparse.Namespace) -> None:
    """Rewrite texts (arguments, --input file or standard input, one a line) in a style."""
    from .pipeline import load
    from .pipeline import transfer as rewrite

    texts = list(options.text) or _lines(options.input)
    model, tokenizer = load(options.adapter, base=options.base)
    results = rewrite(
        model, tokenizer, texts, options.style, batch_size=options.batch_size, num_beams=options.num_beams
    )
    lines = (" ".join(text.split("\n")) for text in results)  # one line a text, so that lines go together
    _write("".join(f"{line}\n" for line in lines), options.output)


def write(options: argparse.Namespace) -> None:
    """Write texts in a style, from prompts (arguments, or --input file, one a line) or from nothing."""
    from .pipeline import load
    from .pipeline import write as draw

    prompts = list(options.text) or (_lines(options.input) if options.input else [""])
    model, tokenizer = load(options.adapter, base=options.base)
    texts = draw(
        model,
        tokenizer,
        prompts,
        options.style,
        samples=options.samples,
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
        batch_size=options.batch_size,
    )
    lines = (" ".join(text.split("\n")) for drawn in texts for text in drawn)
    _write("".join(f"{line}\n" for line in lines), options.output)


def evaluate(options: argparse.Namespace) -> None:
    """Print and keep the table of copied input, before and after: style, BLEU, J, perplexity, copies, variety."""
    from .data import check_rows
    from .evaluation import StyleTransferEvaluator
    from .metrics import StyleJudge
    from .pipeline import load
    from .training import load_rows

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
    from .export import export_lora
    from .pipeline import load

    model, _ = load(options.adapter, base=options.base)
    export_lora(model, options.folder, style=options.style)
    print(f"{options.folder}: load it with PeftModel.from_pretrained(backbone, {str(options.folder)!r})")


def push(options: argparse.Namespace) -> None:
    """Upload a run's folder to the hub: adapter, card, plots, and each style as a plain LoRA."""
    from .hub import push_to_hub
    from .pipeline import load

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
    "train": train,
    "transfer": transfer,
    "write": write,
    "evaluate": evaluate,
    "export": export,
    "push": push,
}


def build_parser() -> argparse.ArgumentParser:
    """The parser with every command and option."""
    parser = _Parser("style-adapter", description="One adapter for all styles of a frozen backbone.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {
        name: commands.add_parser(name, help=_first_line(run), description=run.__doc__, allow_abbrev=False)
        for name, run in COMMANDS.items()
    }
    for command in parsers.values():
        command.set_defaults(parser=command)
    parsers["train"].usage = "style-adapter train [-h] [recipe] [--OPTION VALUE ...]"
    parsers["train"].add_argument("recipe", nargs="?", help="YAML file of `option: value` lines")
    add_options(parsers["train"])
    for name in ("transfer", "write", "evaluate", "export", "push"):
        if name != "push":
            parsers[name].add_argument("--adapter", required=True, help="Folder or hub id of the adapter")
        parsers[name].add_argument(
            "--base", help="Folder or hub id of the backbone, where the recorded one is not at hand"
        )
    for name in ("transfer", "write", "evaluate"):
        _add_count(parsers[name], "--batch-size", 32, "Texts generated at once")
    for name in ("transfer", "write"):
        parsers[name].add_argument(
            "--output", type=Path, metavar="FILE", help="File for the texts, one a line; the terminal if left out"
        )
    for name in ("transfer", "write", "export"):
        parsers[name].add_argument(
            "--style",
            type=parse_value,
            help="A style's name, or a mixture such as '{kjv: 0.7, modern: 0.3}'; the adapter's default if left out",
        )
    parsers["transfer"].add_argument("text", nargs="*", help="Texts to rewrite")
    parsers["transfer"].add_argument(
        "--input", type=Path, metavar="FILE", help="File with one text a line; '-' or nothing: standard input"
    )
    _add_count(parsers["transfer"], "--num-beams", 1, "Beams of the search; 1 is greedy")
    _add_drawing(parsers["write"])
    _add_judging(parsers["evaluate"])
    parsers["export"].add_argument("folder", type=Path, help="Folder for the LoRA")
    parsers["push"].add_argument("adapter", help="Folder of the run")
    parsers["push"].add_argument("repo", help="Hub id to upload to, such as me/kjv-style; made if missing")
    parsers["push"].add_argument("--base-model-id", help="Hub id of the backbone, where a local folder is recorded")
    parsers["push"].add_argument("--dtype", help="Precision of the uploaded weights: bfloat16 halves them")
    parsers["push"].add_argument("--max-megabytes", type=float, help="Refuse a file of weights that is larger")
    parsers["push"].add_argument("--private", action="store_true", help="Make a new repo private")
    parsers["push"].add_argument("--revision", help="Branch to upload to, made if missing (default: main)")
    return parser


def _add_judging(parser: argparse.ArgumentParser) -> None:
    """What is judged, by what, and where it is kept."""
    parser.add_argument("--data", required=True, help="Test rows: source, target, style")
    parser.add_argument("--judge-data", required=True, help="Rows the judge of styles is fitted on")
    parser.add_argument(
        "--judge", action="append", default=[], help="Folder or hub id of a classifier that judges too; may be repeated"
    )
    parser.add_argument("--similarity", help="Folder or hub id of a sentence-transformers model: adds similarity")
    parser.add_argument("--language-model", help="Folder or hub id of the model of perplexity (default: the backbone)")
    parser.add_argument("--output", type=Path, help="Folder for metrics.json, metrics.md and plots")


def _add_drawing(parser: argparse.ArgumentParser) -> None:
    """What texts are drawn from, and how."""
    parser.add_argument("text", nargs="*", help="Prompts; none: the style alone")
    parser.add_argument("--input", type=Path, metavar="FILE", help="File with one prompt a line; '-': standard input")
    _add_count(parser, "--samples", 1, "Texts a prompt")
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="Below 1 texts are likelier and more alike; 0: the likeliest one (default: %(default)s)",
    )
    _add_count(parser, "--max-new-tokens", 128, "Most tokens of a text, longer ones are cut")
    _add_count(parser, "--seed", 0, "Another one draws other texts")


def _add_count(parser: argparse.ArgumentParser, name: str, default: int, text: str) -> None:
    """An option that is a whole number."""
    parser.add_argument(name, type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; a user's mistake ends in one line and exit status 2, Ctrl-C in 130."""
    options, unknown = build_parser().parse_known_args(arguments)
    if unknown:
        known = re.findall(r"--[\w-]+", options.parser.format_help())
        options.parser.error(no_option(unknown[0].partition("=")[0], known))
    try:
        COMMANDS[options.command](options)
    except (ValueError, TypeError, OSError, ImportError) as error:
        print(f"style-adapter {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # a training has said where its checkpoint is
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    """argparse with one line for a mistake: with 170 options the usual reminder of the usage would hide it."""

    def error(self, message: str) -> NoReturn:
        """One line, exit status 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _first_line(run: Callable[..., Any]) -> str:
    """The help line of a command."""
    return (run.__doc__ or "").splitlines()[0].replace("%", "%%")


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


def _write(text: str, path: Path | None) -> None:
    """To a file, or to the terminal."""
    if path is None:
        sys.stdout.write(text)
    else:
        path.write_text(text, "utf-8")
