"""The terminal: `style-adapter plan | train | transfer | write | evaluate | export | push | serve | app`."""

from .commands import trial_of
from .entry import main
from .parser import build_parser

__all__ = ["build_parser", "main", "trial_of"]
