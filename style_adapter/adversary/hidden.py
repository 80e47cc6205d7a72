"""Hidden states after the first blocks of a model, for the price of those blocks."""

from collections.abc import Iterator
from typing import NoReturn

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def find_blocks(model: nn.Module) -> nn.ModuleList:
    """The model's transformer blocks: its longest `nn.ModuleList` of one class, the first such where two are as long.

    Lists inside a list are passed over, or the 64 experts of a layer would win over 24 layers. In an
    encoder-decoder with sides of equal depth this gives the encoder.
    """
    uniform = [blocks for blocks in _outer_lists(model) if len({type(block) for block in blocks}) == 1]
    if not uniform:
        raise ValueError(
            f"model={type(model).__name__} must hold an nn.ModuleList of blocks of one class, and has none; "
            "pass the list of blocks to hidden_after yourself"
        )
    return max(uniform, key=len)


def hidden_after(
    model: nn.Module, blocks: nn.ModuleList, depth: int, /, **inputs: object
) -> Float[Tensor, "batch seq dim"]:
    """h_depth = block_depth(... block_1(embed(inputs))): the hidden states after the first `depth` blocks.

    Runs `model(**inputs)` and leaves it on entering the next block, so later blocks and the output layer cost
    nothing. Equals `output_hidden_states[depth]` of a full run; at `depth == len(blocks)` it is what leaves the
    last block, before any final norm. Autograd goes through it. Pass `use_cache=False` to a decoder.
    """
    if not 0 <= depth <= len(blocks) or not len(blocks):
        raise ValueError(f"depth={depth} must be between 0 and the number of blocks, {len(blocks)} (at least 1)")
    handle = _stop_at(blocks, depth)
    try:
        model(**inputs)
    except _Reached as reached:
        return reached.hidden
    finally:
        handle.remove()
    raise ValueError(
        f"blocks must be run by model={type(model).__name__}, which never came to depth={depth}; "
        "pass blocks of this model, and turn layer drop off"
    )


class _Reached(Exception):  # noqa: N818 - a way out, not an error
    """Carries the hidden states out of a model that is left half way."""

    def __init__(self, hidden: Tensor) -> None:
        """Keep `hidden`, graph and all."""
        super().__init__()
        self.hidden = hidden


def _stop_at(blocks: nn.ModuleList, depth: int) -> RemovableHandle:
    """The hook that leaves the model after `depth` blocks."""
    if depth == len(blocks):
        return blocks[-1].register_forward_hook(_leave_with_output)
    # Before any other pre-hook: those gather a sharded block's weights, and the hooks that let go would never run.
    return blocks[depth].register_forward_pre_hook(_leave_with_input, with_kwargs=True, prepend=True)


def _leave_with_input(block: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
    """Forward pre-hook: the hidden states are the first argument, or the one called `hidden_states`."""
    _leave(block, args[0] if args else kwargs.get("hidden_states"))


def _leave_with_output(block: nn.Module, args: tuple[object, ...], output: object) -> None:
    """Forward hook: the hidden states are the output, or the first of several."""
    _leave(block, output[0] if isinstance(output, tuple) else output)


def _leave(block: nn.Module, hidden: object) -> NoReturn:
    """Leave the model with `hidden`, once sure that it is a tensor."""
    if not isinstance(hidden, Tensor):
        raise TypeError(
            f"hidden states of type {type(hidden).__name__} at {type(block).__name__} must be a tensor, its first "
            "argument or output; pass another list of blocks"
        )
    raise _Reached(hidden)


def _outer_lists(module: nn.Module) -> Iterator[nn.ModuleList]:
    """Each `nn.ModuleList` that is in no other one, in module order."""
    if isinstance(module, nn.ModuleList):
        yield module
        return
    for child in module.children():
        yield from _outer_lists(child)
