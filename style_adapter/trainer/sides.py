"""The two sides of a game as the optimizer and the files see them: groups, parameters, what is kept of each."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from peft import PeftModel
from torch import Tensor, nn

from .._peft import PREFIX
from ..adversary import StyleDiscriminator
from ..arguments import StyleTrainingArguments
from ..game import StyleGame, frozen_copy, width_of
from ..model import styles_of
from .sharding import spread_like, whole

DISCRIMINATOR_FILE = "discriminator.safetensors"
GATES = tuple(PREFIX + table for table in ("gate", "feature", "noise"))


def build_game(model: PeftModel, args: StyleTrainingArguments, discriminator: StyleDiscriminator | None) -> StyleGame:
    """The game that `args` describes; without a discriminator where nothing would use it."""
    if discriminator is None and args.plays:
        discriminator = StyleDiscriminator(
            width_of(model),
            len(styles_of(model)),
            width=args.discriminator_width,
            spectral_norm=args.discriminator_spectral_norm,
        )
    return StyleGame(
        model,
        discriminator if args.plays else None,
        game=args.game,
        depth=args.discriminator_blocks,
        temperature=args.temperature,
        smoothing=args.discriminator_smoothing or 0.0,
        r1=args.w_r1 > 0,
        prototype_rate=args.prototype_rate,
        backbone=frozen_copy(model) if args.plays and args.discriminator_copy else None,
    )


def parameter_groups(
    game: StyleGame, args: StyleTrainingArguments, defaults: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The optimizer's groups, each trainable tensor in exactly one; empty groups left out."""
    adapter, judge = sides_of(game)
    of_gates = {id(p) for n, p in game.named_parameters() if any(gate in n for gate in GATES)}
    rest = [p for p in adapter if id(p) not in of_gates]
    gate_rate = args.gate_learning_rate if args.gate_learning_rate is not None else 10 * args.learning_rate
    groups: list[dict[str, Any]] = [
        {"params": [p for p in rest if p.dim() > 1], "weight_decay": args.weight_decay},
        {"params": [p for p in rest if p.dim() <= 1], "weight_decay": 0.0},
        {"params": [p for p in adapter if id(p) in of_gates], "weight_decay": 0.0, "lr": gate_rate},
    ]
    side: dict[str, Any] = {"params": judge, "lr": args.discriminator_learning_rate}
    side["weight_decay"] = args.discriminator_weight_decay
    if "betas" in defaults:
        side["betas"] = (args.discriminator_beta1, defaults["betas"][1])
    return [group for group in (*groups, side) if group["params"]]


def sides_of(game: StyleGame) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters of the generator and of the discriminator."""
    judge = [] if game.discriminator is None else [p for p in game.discriminator.parameters() if p.requires_grad]
    ids = set(map(id, judge))
    return [p for p in game.parameters() if p.requires_grad and id(p) not in ids], judge


def discriminator_state(game: StyleGame) -> dict[str, Tensor]:
    """The discriminator's weights, whole, and the style prototypes, as one flat dict; a call of every process."""
    assert game.discriminator is not None
    weights = {f"discriminator.{n}": whole(t.detach()) for n, t in game.discriminator.state_dict().items()}
    prototypes = {f"prototypes.{n}": t for n, t in game.prototypes.state_dict().items()}
    return {name: tensor.contiguous() for name, tensor in (weights | prototypes).items()}


def load_discriminator_state(game: StyleGame, state: Mapping[str, Tensor]) -> None:
    """Takes over what `discriminator_state` gave."""
    assert game.discriminator is not None
    parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in state.items():
        owner, _, key = name.partition(".")
        parts[owner][key] = tensor
    own = game.discriminator.state_dict()
    weights = {name: spread_like(tensor, own[name]) for name, tensor in parts["discriminator"].items()}
    game.discriminator.load_state_dict(weights)
    game.prototypes.load_state_dict(parts["prototypes"])
