"""The options of each command, and what is said of those that do not exist."""

import argparse
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from ..recipe import add_options, parse_value
from ..server import ServerOptions
from .commands import COMMANDS


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
    _add_planning(parsers["plan"])
    parsers["train"].usage = "style-adapter train [-h] [recipe] [--OPTION VALUE ...]"
    parsers["train"].add_argument("recipe", nargs="?", help="YAML file of `option: value` lines")
    add_options(parsers["train"])
    for name in ("transfer", "write", "evaluate", "export", "push", "app", "serve"):
        if name not in ("push", "app", "serve"):
            parsers[name].add_argument("--adapter", required=True, help="Folder or hub id of the adapter")
        parsers[name].add_argument(
            "--base", help="Folder or hub id of the backbone, where the recorded one is not at hand"
        )
    for name in ("transfer", "write", "evaluate"):
        _add_count(parsers[name], "--batch-size", 32, "Texts generated at once")
    parsers["write"].add_argument(
        "--output", type=Path, metavar="FILE", help="File for the texts, one a line; the terminal if left out"
    )
    for name in ("transfer", "write", "export"):
        parsers[name].add_argument(
            "--style",
            type=parse_value,
            help="A style's name, or a mixture such as '0.7*kjv + 0.3*modern'; the adapter's default if left out",
        )
    for name in ("transfer", "write", "export"):
        parsers[name].add_argument(
            "--strength",
            type=_strength,
            default=1.0,
            metavar="F",
            help="A factor on the style, or one by block, such as '{layers.0-11: 0.5}' (default: %(default)s)",
        )
    _add_rewriting(parsers["transfer"])
    _add_files(parsers["transfer"])
    _add_drawing(parsers["write"])
    _add_judging(parsers["evaluate"])
    parsers["export"].add_argument("folder", type=Path, help="Folder for the LoRA")
    parsers["app"].add_argument("adapter", help="Folder or hub id of the adapter")
    parsers["app"].add_argument("--task", choices=("transfer", "generation"), help="What it does (default: transfer)")
    parsers["app"].add_argument("--host", default="127.0.0.1", help="Address to listen on (default: %(default)s)")
    _add_count(parsers["app"], "--port", 7860, "Port to listen on")
    _add_serving(parsers["serve"])
    parsers["push"].add_argument("adapter", help="Folder of the run")
    parsers["push"].add_argument("repo", help="Hub id to upload to, such as me/kjv-style; made if missing")
    parsers["push"].add_argument("--base-model-id", help="Hub id of the backbone, where a local folder is recorded")
    parsers["push"].add_argument("--dtype", help="Precision of the uploaded weights: bfloat16 halves them")
    parsers["push"].add_argument("--max-megabytes", type=float, help="Refuse a file of weights that is larger")
    parsers["push"].add_argument("--private", action="store_true", help="Make a new repo private")
    parsers["push"].add_argument("--revision", help="Branch to upload to, made if missing (default: main)")
    return parser


def _add_planning(parser: argparse.ArgumentParser) -> None:
    """Which backbone, on what, in which steps."""
    parser.add_argument("backbone", help="Hub id or folder of the backbone; only its configuration is read")
    _add_count(parser, "--gpus", 1, "GPUs")
    parser.add_argument(
        "--gpu-memory", type=float, default=80.0, metavar="GIB", help="Memory of each (default: %(default)g)"
    )
    _add_count(parser, "--batch-size", 8, "Rows a GPU and step")
    _add_count(parser, "--prompt", 256, "Tokens of a prompt")
    _add_count(parser, "--target", 256, "Tokens of a target")
    _add_count(parser, "--r", 16, "Rank")
    _add_count(parser, "--styles", 2, "Styles")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="Of the frozen weights (default: %(default)s)",
    )


def _add_rewriting(parser: argparse.ArgumentParser) -> None:
    """What is rewritten, by what search, and where to."""
    parser.add_argument("text", nargs="*", help="Texts to rewrite")
    parser.add_argument(
        "--input",
        metavar="INPUT",
        help="File with one text a line; '-' or nothing: standard input. Also a .parquet, .csv or .jsonl file, one of "
        "text with .gz behind it, a data set of the hub or its folder: see `files and data sets`",
    )
    parser.add_argument(
        "--output",
        metavar="OUTPUT",
        help="File for the texts, one a line; the terminal if left out. A folder (ending in /) for what is made in "
        "shards",
    )
    _add_count(parser, "--num-beams", 1, "Beams of the search; 1 is greedy")
    drafts = "Drafts drawn of each text; of them and the greedy rewrite the adapter keeps what it scores best. 0: none"
    _add_count(parser, "--candidates", 0, drafts)
    _add_count(parser, "--seed", 0, "Another one draws other candidates")
    parser.add_argument(
        "--max-new-tokens",
        type=int,
        metavar="N",
        help="Most tokens of a rewrite (default: one and a half times the longest text of its batch, and some)",
    )


def _add_files(parser: argparse.ArgumentParser) -> None:
    """How a big file or a data set is read and written."""
    group = parser.add_argument_group(
        "files and data sets",
        "An input of any size is rewritten into a folder, in files of --shard-rows rows; the same command goes on "
        "where it was killed. `accelerate launch -m style_adapter transfer ...` spreads them over processes.",
    )
    group.add_argument("--column", metavar="NAME", help="Column whose texts are rewritten (default: text)")
    group.add_argument(
        "--style-column", metavar="NAME", help="Column with the style of each row: names, mixtures in words, dicts"
    )
    group.add_argument("--output-column", metavar="NAME", help="Name of the new column (default: rewrite)")
    group.add_argument("--split", metavar="NAME", help="Split of a data set (default: train)")
    group.add_argument("--subset", metavar="NAME", help="Configuration of a data set that has several")
    group.add_argument(
        "--format", metavar="FORMAT", help="parquet, csv, jsonl or txt (default: the input's; of data sets parquet)"
    )
    group.add_argument("--shard-rows", type=int, metavar="N", help="Rows a file (default: 10000)")
    group.add_argument(
        "--engine", metavar="ENGINE", help="processes, those of the launcher, or ray: Ray Data (default: processes)"
    )
    group.add_argument("--workers", type=int, metavar="N", help="Workers of Ray (default: one a GPU, or one)")


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


def _add_serving(parser: argparse.ArgumentParser) -> None:
    """What is served, and each field of the server's options."""
    parser.add_argument("adapter", help="Folder or hub id of the adapter")
    parser.add_argument("--dtype", default="auto", help="Precision of the frozen weights (default: %(default)s)")
    parser.add_argument(
        "--task",
        choices=("transfer", "generation"),
        help="Whether prompts are rewritten or continued (default: transfer)",
    )
    for known in fields(ServerOptions):
        shown, kind = ("", str) if known.default is None else (" (default: %(default)s)", type(known.default))
        name, text = f"--{known.name.replace('_', '-')}", known.metadata["help"] + shown
        parser.add_argument(name, type=kind, default=known.default, help=text)


def _add_count(parser: argparse.ArgumentParser, name: str, default: int, text: str) -> None:
    """An option that is a whole number."""
    parser.add_argument(name, type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)")


def _strength(text: str) -> Any:
    """A number, or {part of layers' names: number}."""
    value = parse_value(text)
    numbers = value.values() if isinstance(value, dict) else [value]
    if not all(isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} must be a number, or numbers by block: '{{layers.0-11: 0.5}}'")
    return value


class _Parser(argparse.ArgumentParser):
    """argparse with one line for a mistake: with 170 options the usual reminder of the usage would hide it."""

    def error(self, message: str) -> NoReturn:
        """One line, exit status 2."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _first_line(run: Callable[..., Any]) -> str:
    """The help line of a command."""
    return (run.__doc__ or "").splitlines()[0].replace("%", "%%")
