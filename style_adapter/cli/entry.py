"""Where the terminal comes in."""

import re
import sys
from collections.abc import Sequence

from ..recipe import no_option
from .commands import COMMANDS
from .parser import build_parser


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
