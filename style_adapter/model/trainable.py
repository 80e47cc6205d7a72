"""What trains and what does not: blocks, the backbone, shared weights."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from .._peft import PREFIX, STYLE_ADAPTER, AuxiliaryTrainingWrapper


def in_top_blocks(model: nn.Module, key: str, trainable: str) -> bool:
    """Whether the module `key` lies in the last N blocks of its stack, where `trainable` is "top:N".

    A stack is an outermost `nn.ModuleList` (an encoder and a decoder have one each), its members are the blocks; a
    module outside of any, such as an embedding, lies in no block.
    """
    if not trainable.startswith("top:"):
        return True
    module, parts = model, key.split(".")
    for i, part in enumerate(parts[:-1]):
        module = module.get_submodule(part)
        if isinstance(module, nn.ModuleList):
            return int(parts[i + 1]) >= len(module) - int(trainable.removeprefix("top:"))
    return False


def set_trainable(model: nn.Module, configs: Iterable[Any]) -> None:
    """Makes the backbone train too where a config says `trainable="all"`.

    Raises:
        ValueError: The backbone is quantised: its weights have no gradient.
    """
    training = (config for config in configs if config.peft_type == STYLE_ADAPTER and not config.inference_mode)
    if not any(config.trainable == "all" for config in training):
        return
    auxiliary = [name for name, module in model.named_modules() if isinstance(module, AuxiliaryTrainingWrapper)]
    for name, parameter in model.named_parameters():
        if PREFIX in name or name.startswith(tuple(f"{prefix}." for prefix in auxiliary)):
            continue
        if not parameter.is_floating_point():
            raise ValueError(
                f"trainable='all' must have a floating-point backbone, and {name} is {parameter.dtype}; load the model "
                "unquantised, or set trainable='adapter'"
            )
        parameter.requires_grad_(True)


def is_tied(model: nn.Module, target: nn.Module) -> bool:
    """Whether another module of `model` has the weight of `target` too, as tied embeddings do."""
    weight = getattr(target, "weight", None)
    if not isinstance(target, (nn.Embedding, nn.Linear)) or weight is None:
        return False
    if not isinstance(target, nn.Embedding) and target is not _output_embeddings(model):
        return False
    return sum(weight is parameter for module in model.modules() for parameter in module._parameters.values()) > 1


def reads_tokens(model: nn.Module, target: nn.Module, key: str) -> bool:
    """Whether `target` is the table of the model's tokens; where the model does not say, whatever numbers no positions.

    Its input has one row for each of the batch, where position numbers may have one for all.
    """
    try:
        table = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):  # as CLIP, which has an input of words and one of pixels
        return "pos" not in key.rpartition(".")[2]
    return target.weight is getattr(table, "weight", None)


def check_called(model: nn.Module, target: nn.Module, key: str) -> None:
    """Refuses a table that only holds the weight which the encoder's and the decoder's own modules read.

    Raises:
        ValueError: An adapter on it would never run; the message names those that do.
    """
    if not isinstance(target, nn.Embedding) or key.rpartition(".")[2] != "shared":
        return
    tables = {n: m for n, m in model.named_modules() if isinstance(m, nn.Embedding) and m is not target}
    readers = [name for name, module in tables.items() if module.weight is target.weight]
    if readers:
        raise ValueError(
            f"target_modules matched {key}, which must not be adapted: its weight is read through {', '.join(readers)} "
            "alone; name these (embed_tokens) in target_modules"
        )


def _output_embeddings(model: nn.Module) -> nn.Module | None:
    """The head over the vocabulary, if the model has one."""
    return model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None  # type: ignore[operator]


def with_backbone(tensors: dict[str, Tensor], state: dict[str, Tensor], config: Any) -> dict[str, Tensor]:
    """What is saved: `tensors` of the adapter, and every tensor of the backbone where it trains too.

    Args:
        tensors: The adapter's, under the model's keys.
        state: All tensors of the model, without those of other adapters.
        config: The adapter's config.
    """
    if config.trainable != "all":
        return tensors
    backbone = {key: value for key, value in state.items() if PREFIX not in key and not _is_auxiliary(key)}
    return {**backbone, **tensors}


def _is_auxiliary(key: str) -> bool:
    """Whether PEFT saves it as one of `modules_to_save` itself."""
    return ".modules_to_save." in key or ".original_module." in key
