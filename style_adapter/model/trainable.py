"""What trains and what does not: blocks, the backbone, shared weights."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def check_stacks(model: nn.Module, trainable: str) -> None:
    """Refuses "top:N" on a model without blocks to count: nothing would be adapted.

    Raises:
        ValueError: The model has no `nn.ModuleList`.
    """
    if trainable.startswith("top:") and not any(isinstance(module, nn.ModuleList) for module in model.modules()):
        raise ValueError(
            f"trainable={trainable!r} must have a model with a list of blocks (nn.ModuleList), and "
            f"{type(model).__name__} has none; name the modules to adapt in target_modules, with trainable='adapter'"
        )


def set_trainable(model: nn.Module, configs: Iterable[Any]) -> None:
    """Makes the backbone train too where a config says `trainable="all"`.

    Raises:
        ValueError: The backbone is quantised: its weights have no gradient.
    """
    training = (config for config in configs if config.peft_type == STYLE_ADAPTER and not config.inference_mode)
    if not any(config.trainable == "all" for config in training):
        return
    for name, parameter in backbone_parameters(model):
        if not parameter.is_floating_point():
            raise ValueError(
                f"trainable='all' must have a floating-point backbone, and {name} is {parameter.dtype}; load the model "
                "unquantised, or set trainable='adapter'"
            )
        parameter.requires_grad_(True)


def backbone_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The backbone's parameters by name, without those that PEFT trains whole."""
    auxiliary = tuple(f"{n}." for n, module in model.named_modules() if isinstance(module, AuxiliaryTrainingWrapper))
    for name, parameter in model.named_parameters():
        if PREFIX not in name and not name.startswith(auxiliary):
            yield name, parameter


def pause_backbone(model: nn.Module, paused: Sequence[nn.Parameter], *, trains: bool) -> list[nn.Parameter]:
    """Freezes what trains of the backbone, or makes what was `paused` train again; gives what is paused now."""
    if trains:
        for parameter in paused:
            parameter.requires_grad_(True)
        return []
    training = [parameter for _, parameter in backbone_parameters(model) if parameter.requires_grad]
    for parameter in training:
        parameter.requires_grad_(False)
    return [*paused, *training]


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


TOKEN_HEADS = ("classifier", "score")  # what PEFT trains whole for TOKEN_CLS
CLASS_HEAD = "classification_head"  # of encoder-decoders, which PEFT does not know


def spare_head(model: nn.Module, config: Any) -> None:
    """Leaves the head that sorts tokens out of "all-linear": it trains whole, and PEFT spares that of SEQ_CLS alone."""
    everything = isinstance(config.target_modules, str) and config.target_modules.lower() == "all-linear"
    heads = [name for name in TOKEN_HEADS if hasattr(model, name)]
    if not everything or config.task_type != "TOKEN_CLS" or not heads:
        return
    spared = config.exclude_modules
    config.exclude_modules = "|".join([spared, *heads]) if isinstance(spared, str) else {*(spared or ()), *heads}


def save_head(model: nn.Module, config: Any) -> None:
    """Trains and saves an encoder-decoder's head for classes whole: PEFT knows the names of others' heads alone."""
    modules = config.modules_to_save or []
    if config.task_type == "SEQ_CLS" and hasattr(model, CLASS_HEAD) and CLASS_HEAD not in modules:
        config.modules_to_save = [*modules, CLASS_HEAD]


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


def with_backbone(tensors: dict[str, Tensor], state: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    """What is saved: `tensors` of the adapter, and every tensor of the backbone where it trains too.

    Args:
        tensors: The adapter's, under the model's keys.
        state: All tensors of the model, without those of other adapters.
        config: The adapter's config.
    """
    if config.trainable != "all":
        return tensors
    return {**{_unwrapped(key): tensor for key, tensor in _of_backbone(state).items()}, **tensors}


def restored(tensors: dict[str, Tensor], model: nn.Module, config: Any) -> dict[str, Tensor]:
    """What is loaded: `tensors` with those of the backbone, where they were saved too, as `model` takes them.

    Under the model's keys, for a layer may be adapted here that was not when the file was written; of its dtype and on
    its device, and one parameter for all modules that share it: `low_cpu_mem_usage` puts them in place as they are.

    Raises:
        ValueError: A weight of the backbone that the file has not, or a quantised one.
    """
    if config.trainable != "all":
        return tensors
    found = {_plain(key): tensor for key, tensor in _of_backbone(tensors).items()}
    places = _of_backbone(model.state_dict(keep_vars=True))
    shared = {id(place): found[_plain(key)] for key, place in places.items() if _plain(key) in found}
    for name, parameter in backbone_parameters(model):
        _check_restorable(name, parameter, shared.get(id(parameter)))
    ready = {id(place): _like(place, shared[id(place)]) for place in places.values() if id(place) in shared}
    adapter = {key: tensor for key, tensor in tensors.items() if key not in _of_backbone(tensors)}
    return {**adapter, **{key: ready[id(place)] for key, place in places.items() if id(place) in ready}}


def _of_backbone(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `state` that are neither an adapter's nor those of a module that PEFT saves whole."""
    whole = {key.partition(".modules_to_save.")[0] for key in state if ".modules_to_save." in key}
    return {
        key: tensor
        for key, tensor in state.items()
        if PREFIX not in key and ".modules_to_save." not in key and key.partition(".original_module.")[0] not in whole
    }


def _unwrapped(key: str) -> str:
    """`key` as the plain backbone has it, whatever PEFT has put around its modules."""
    return re.sub(r"\.(base_layer|original_module)(?=\.)", "", key)


def _plain(key: str) -> str:
    """The same without PEFT's name of the whole backbone, which an injected model has not."""
    return _unwrapped(key).removeprefix("base_model.model.")


def _check_restorable(name: str, parameter: nn.Parameter, tensor: Tensor | None) -> None:
    """Refuses a backbone that the file cannot make the one it was saved with."""
    if tensor is None:
        raise ValueError(
            f"the file of an adapter with trainable='all' must hold the whole backbone, and {name} is not in it; load "
            "it on the model that it was trained with, or save it again"
        )
    if not parameter.is_floating_point():
        raise ValueError(
            f"trainable='all' must have a floating-point backbone, and {name} is {parameter.dtype}; load the model "
            "unquantised"
        )


def _like(place: Tensor, tensor: Tensor) -> Tensor:
    """`tensor` as what stands at `place` in the model."""
    value = tensor if place.is_meta else tensor.to(place.device, place.dtype)
    if isinstance(place, nn.Parameter):
        return nn.Parameter(value, requires_grad=place.requires_grad)
    return value
