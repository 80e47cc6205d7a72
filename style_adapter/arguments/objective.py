"""The objective: what the rows are, and the weight of each term."""

from dataclasses import dataclass

from ..columns import COLUMNS
from ..losses import MATCHINGS
from .options import option

_OFF = {"bounds": ">= 0", "remedy": "0 turns the term off"}


@dataclass
class ObjectiveOptions:
    """What the rows are, and the weight of each term."""

    task: str = option(
        "transfer",
        "transfer: source -> target in a style, or text alone, unpaired. classification: text -> label. "
        "token_classification: words -> labels. masked_lm: text -> its masked tokens, for encoders. "
        "generation: a prompt, or nothing -> text in a style.",
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
    mask_rate: float = option(
        0.15, "Share of the tokens that masked_lm has told.", bounds="in (0, 1]", remedy="0.15 is usual"
    )
    w_rec: float = option(1.0, "Weight, in unpaired training, of rebuilding a text from a corrupted one.", **_OFF)
    w_bt: float = option(1.0, "Weight, in unpaired training, of translating a rewrite back to its source.", **_OFF)
    w_kl: float = option(0.0, "Weight of the divergence of generated text from the frozen backbone.", **_OFF)
    w_adv: float = option(0.05, "Weight of the generator's loss against the discriminator.", **_OFF)
    w_feat: float = option(0.0, "Weight of the distance to the style's feature prototype.", **_OFF)
    w_cls: float = option(
        0.0,
        "Weight of the style head's cross entropy on generated text; nothing in discriminator_kind=fake_class, whose "
        "game has it.",
        **_OFF,
    )
    w_pref: float = option(
        0.0,
        "Weight, on pairs, of preferring the target to a worse one, the column `rejected`.",
        **_OFF,
    )
    preference_beta: float = option(
        0.1,
        "How soon the likelihoods of target and rejected text differ enough: of log p, summed over tokens.",
        bounds="> 0",
        remedy="0.1 is usual",
    )
    w_div: float = option(0.0, "Weight of the diversity term: other noise must give other text (noise_dim).", **_OFF)
    w_d_cls: float = option(1.0, "Weight of the style head's cross entropy on real text.", **_OFF)
    w_r1: float = option(0.0, "Weight gamma of the R1 penalty on the discriminator; 0: none.", **_OFF)
    w_r2: float = option(0.0, "Weight gamma of the R2 penalty, R1 on fakes; 0: none.", **_OFF)
    feature_matching: str = option(
        "row",
        "What is drawn to a style's prototype: row, the features of each fake, or mean, those of all fakes of a style.",
        choices=MATCHINGS,
    )
    drop_words: float = option(
        0.1, "Share of words that a corrupted text lacks.", bounds="in [0, 1)", remedy="0.1 is usual"
    )
    shuffle_reach: int = option(3, "How many places a word of a corrupted text may move.", bounds=">= 0")
    marker_threshold: float = option(
        0.0,
        "Corruption takes out n-grams that are so many times more frequent in their style than in others; 0: none.",
        **_OFF,
    )
