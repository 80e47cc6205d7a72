"""The objective: what the rows are, and the weight of each term."""

from dataclasses import dataclass

from ..data import COLUMNS
from .options import option

_OFF = {"bounds": ">= 0", "remedy": "0 turns the term off"}


@dataclass
class ObjectiveOptions:
    """What the rows are, and the weight of each term."""

    task: str = option(
        "transfer",
        "transfer: source -> target in a style. classification: text -> label.",
        choices=tuple(COLUMNS),
    )
    max_length: int = option(512, "Most tokens a row may have; longer ones are refused.", bounds=">= 1")
    w_ce: float = option(1.0, "Weight of the likelihood of the target (or the label).", **_OFF)
    novel_token_weight: float = option(
        1.0,
        "Weight, in the likelihood, of target tokens that the source does not hold.",
        bounds="> 0",
        remedy="1 changes nothing",
    )
    w_adv: float = option(0.05, "Weight of the generator's loss against the discriminator.", **_OFF)
    w_feat: float = option(0.1, "Weight of the distance to the style's feature prototype.", **_OFF)
    w_cls: float = option(0.05, "Weight of the style head's cross entropy on generated text.", **_OFF)
    w_d_cls: float = option(1.0, "Weight of the style head's cross entropy on real text.", **_OFF)
    w_r1: float = option(0.0, "Weight gamma of the R1 penalty on the discriminator; 0: none.", **_OFF)
