"""What a style is: an immutable vector of named weights (and features), its code as tensors, the one in force.

Everything that makes a style is linear, so a mixture, a strength or a difference is plain arithmetic:

>>> bank = StyleBank(("modern", "kjv"))
>>> print(0.7 * bank["kjv"] + 0.3 * bank["modern"])
0.7*kjv + 0.3*modern
"""

from .bank import StyleBank, StyleCode
from .context import Codes, InForce, StyleContext
from .language import read_mixture
from .mixture import OFF, Style, blend, quoted
from .strength import layer_strengths, names_any

__all__ = [
    "OFF",
    "Codes",
    "InForce",
    "Style",
    "StyleBank",
    "StyleCode",
    "StyleContext",
    "blend",
    "layer_strengths",
    "names_any",
    "quoted",
    "read_mixture",
]
