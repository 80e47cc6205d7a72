"""What changes when the processes share out the weights: what is refused, what is gathered, what is spread again."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy
from torch.distributed.tensor import DTensor, distribute_tensor

from ..arguments import StyleTrainingArguments


def check_launch(args: StyleTrainingArguments) -> None:
    """Refuses launches that would run, and do something else than they were asked for.

    `accelerate launch --cpu --num_processes 2` silently starts one process, and on CPU Accelerate leaves FSDP out.

    Raises:
        ValueError: Another number of processes than `expected_processes`, one process for several GPUs, or a way of
            sharding that does not run here.
    """
    expected = args.expected_processes
    if expected is not None and expected != args.world_size:
        raise ValueError(
            f"expected_processes={expected} must equal the number of processes, {args.world_size}; on CPU start "
            f"with: accelerate launch --multi_gpu --num_processes {expected} and use_cpu: true, ddp_backend: gloo"
        )
    if args.n_gpu > 1:  # Trainer would split the batch over threads, which cannot gather losses by name
        raise ValueError(
            f"n_gpu={args.n_gpu} must be 1 a process; start one for each with accelerate launch, or set "
            "CUDA_VISIBLE_DEVICES to one of them"
        )
    if args.asks_fsdp == 1:
        # PEFT 0.21 looks for the adapter under the names that the wrapped modules have, and writes an empty file.
        raise ValueError(
            "fsdp_version=1 must be 2: the adapter could not be written out of FSDP1; start with the configuration "
            "fsdp2.yaml of examples/accelerate"
        )
    if args.asks_fsdp and args.device.type == "cpu":
        _check_cpu(args)


def _check_cpu(args: StyleTrainingArguments) -> None:
    """Where FSDP2 does not run on CPU."""
    if args.world_size < 2:
        raise ValueError(
            "FSDP must have at least 2 processes on CPU, not 1; start with accelerate launch --num_processes 2"
        )
    if torch.accelerator.is_available():  # fully_shard chooses the mesh by what the machine has
        raise ValueError("use_cpu=True must not be set for FSDP where there are GPUs; hide them: CUDA_VISIBLE_DEVICES=")


def hides_weights(accelerator: Accelerator) -> bool:
    """Whether ZeRO-3 is in force: outside a module's own forward it leaves empty tensors in place of the weights.

    A step of the game reads the discriminator's weights there, and a text that is generated all weights.
    """
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    return plugin is not None and plugin.zero_stage == 3


def set_up_sharding(accelerator: Accelerator, args: StyleTrainingArguments) -> None:
    """FSDP as this trainer needs it: also on CPU, with autocast's precision, and recomputing where styles are known.

    Raises:
        ValueError: A way of sharding, or an option of it, under which gradients would be wrong.
    """
    if hides_weights(accelerator) and (args.plays or args.eval_strategy != "no"):
        raise ValueError(
            "ZeRO-3 must come with adversary_fraction: 0 and eval_strategy: 'no', since it hides weights outside a "
            "module's own forward; for the game and for evaluations start with fsdp2.yaml of examples/accelerate"
        )
    if args.asks_deepspeed and args.plays and (args.bf16 or args.fp16):
        raise ValueError(
            f"bf16={args.bf16} and fp16={args.fp16} must be false for the game under DeepSpeed, which would lower the "
            "discriminator too; load the backbone with dtype: bfloat16 instead"
        )
    state = accelerator.state
    if args.asks_fsdp and accelerator.distributed_type == DistributedType.MULTI_CPU:
        state.fsdp_plugin = FullyShardedDataParallelPlugin(**(args.fsdp_plugin_args or {}))
        state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
    plugin = getattr(state, "fsdp_plugin", None)
    if args.push_to_hub:
        check_push(sharded=plugin is not None or hides_weights(accelerator))
    if plugin is None:
        return
    if plugin.activation_checkpointing:
        raise ValueError(
            "fsdp_activation_checkpointing must be false: its recomputation runs without the styles of the batch; "
            "set gradient_checkpointing: true in the recipe instead"
        )
    if plugin.auto_wrap_policy is size_based_auto_wrap_policy:
        raise ValueError(
            "fsdp_auto_wrap_policy=SIZE_BASED_WRAP must be TRANSFORMER_BASED_WRAP or NO_WRAP: the discriminator's "
            "features leave the backbone half way, between two blocks"
        )
    if args.feature_store != "none":
        raise ValueError(
            f"feature_store={args.feature_store!r} must be 'none' under FSDP: every process must read as often as the "
            "others, and a stored text is not read"
        )
    if plugin.cpu_ram_efficient_loading and args.plays and args.discriminator_spectral_norm:
        raise ValueError(
            "fsdp_cpu_ram_efficient_loading must be false with discriminator_spectral_norm: Accelerate spreads "
            "parameters only, and spectral normalisation keeps buffers"
        )
    # The policy would lower the discriminator too. Autocast, as in every other mode, leaves it in fp32.
    plugin.mixed_precision_policy = None


def check_push(*, sharded: bool) -> None:
    """Refuses to push out of shards: one process alone exports each style, from weights that it must have whole.

    Raises:
        ValueError: They are `sharded`.
    """
    if sharded:
        raise ValueError("push_to_hub must be false for sharded weights; push the saved adapter: style-adapter push")


def check_rewriting(*, hides_weights: bool, sampled: bool) -> None:
    """Refuses to write texts token by token from weights that only a module's own forward finds.

    Raises:
        ValueError: They are to be `sampled`.
    """
    if hides_weights and sampled:
        raise ValueError(
            "ZeRO-3 must come with paired rows and fakes: teacher_forced, since it hides weights while texts are "
            "sampled; start with fsdp2.yaml of examples/accelerate"
        )


def whole(tensor: Tensor) -> Tensor:
    """`tensor` with all its shards; every process must ask for the same ones in the same order."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def spread_like(tensor: Tensor, like: Tensor) -> Tensor:
    """`tensor`, which every process holds whole, sharded as `like` is."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor.to(like.device, like.dtype), like.device_mesh, like.placements)


def shards_of(module: nn.Module) -> list[FSDPModule]:
    """The modules of FSDP2 in `module`; none in every other mode."""
    return [m for m in module.modules() if isinstance(m, FSDPModule)]


def let_go(module: nn.Module) -> None:
    """Frees what a forward without a backward has left gathered: a file is read into shards, and written from them."""
    for shard in shards_of(module):
        shard.reshard()


@contextmanager
def whole_weights(module: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Inside the block each process holds every weight of `module`, and no forward communicates.

    Generation needs it: processes write texts of different lengths, so they run the model a different number of times.

    Raises:
        ValueError: Weights that only a module's own forward finds.
    """
    if hides_weights(accelerator):
        raise ValueError("eval_dataset must not be given under ZeRO-3; evaluate the saved adapter instead")
    shards = shards_of(module)
    reshard = bool(shards) and accelerator.state.fsdp_plugin.reshard_after_forward
    for shard in shards:
        shard.set_reshard_after_forward(False, recurse=False)
        shard.unshard()
    try:
        yield
    finally:
        for shard in shards:
            shard.set_reshard_after_forward(reshard and shard is not module, recurse=False)
            shard.reshard()


def clip(parameters: list[nn.Parameter], most: float) -> Tensor:
    """g <- g * min(1, most / ||g||_2), the norm taken over all shards; returns it."""
    return whole(nn.utils.clip_grad_norm_(parameters, most))
