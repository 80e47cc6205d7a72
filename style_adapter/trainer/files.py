"""What a run writes and reads again: the adapter as PEFT has it, and the discriminator in a file of its own."""

import os
import warnings
from collections.abc import Mapping

from peft import PeftModel, get_peft_model_state_dict, load_peft_weights, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..game import StyleGame
from .sharding import let_go, shards_of, spread_like, whole
from .sides import DISCRIMINATOR_FILE, discriminator_state, load_discriminator_state


def save_sides(game: StyleGame, folder: str, *, write: bool, state: Mapping[str, Tensor] | None = None) -> None:
    """The adapter as PEFT saves it, the discriminator and its prototypes in a file of their own.

    Every process must call it, since shards are gathered; the files are those of a run on one process.

    Args:
        game: Both sides.
        folder: Where to.
        write: Whether this process is the one that writes.
        state: The game's whole state, where only the way of sharding itself can gather it.
    """
    with warnings.catch_warnings():
        # PEFT asks the hub whether the vocabulary has grown, and without a network says twice that it could not.
        warnings.filterwarnings("ignore", message="Unable to fetch remote file|Could not find a config file")
        let_go(game)
        adapter = _gathered_state(game.model) if shards_of(game) else None
        if state is not None:
            adapter = {n.removeprefix("model."): tensor for n, tensor in state.items() if n.startswith("model.")}
        judge = None if game.discriminator is None else discriminator_state(game)
        if not write:
            return
        os.makedirs(folder, exist_ok=True)
        game.model.save_pretrained(folder, state_dict=adapter)
    if judge is not None:
        save_file(judge, os.path.join(folder, DISCRIMINATOR_FILE))


def _gathered_state(model: PeftModel) -> dict[str, Tensor]:
    """The model's state in which all that PEFT writes is whole; the frozen backbone stays in shards."""
    state = model.state_dict()
    taken = {
        id(tensor)
        for adapter in model.peft_config
        for tensor in get_peft_model_state_dict(model, state_dict=state, adapter_name=adapter).values()
    }
    return {name: whole(tensor) if id(tensor) in taken else tensor for name, tensor in state.items()}


def load_sides(game: StyleGame, checkpoint: str) -> None:
    """Takes over what `save_sides` wrote, whatever the number of processes was then and is now.

    Raises:
        ValueError: The adapter there lacks a tensor of this one.
    """
    let_go(game)
    adapter = game.model.active_adapters[0]
    weights = load_peft_weights(checkpoint if adapter == "default" else os.path.join(checkpoint, adapter), device="cpu")
    # False: PEFT would ask the hub whether the vocabulary has grown.
    own = get_peft_model_state_dict(game.model, adapter_name=adapter, save_embedding_layers=False)
    missing = sorted(set(own) - set(weights))
    if missing:
        raise ValueError(f"checkpoint {checkpoint} lacks {missing[0]}; it belongs to another adapter")
    spread = {name: spread_like(tensor, own[name]) if name in own else tensor for name, tensor in weights.items()}
    set_peft_model_state_dict(game.model, spread, adapter_name=adapter)
    load_judge(game, checkpoint)


def load_judge(game: StyleGame, checkpoint: str) -> None:
    """Takes over the discriminator and its prototypes, where the checkpoint has them."""
    path = os.path.join(checkpoint, DISCRIMINATOR_FILE)
    if game.discriminator is not None and os.path.exists(path):
        load_discriminator_state(game, load_file(path))
