"""Ways to hold and spread a backbone, and what each costs a GPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from ..metrics import markdown_table
from .survey import Model, Work, survey

GIB = 2**30
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)  # of a weight: its code, its share of a scale in 8 bits and of that one's
ADAM = 16  # bytes of a trained number: itself, its gradient and AdamW's two moments, in fp32
OVERHEAD = 1.0  # GiB that a CUDA context, its libraries and communication buffers hold before the first tensor
USABLE = 0.95  # of a GPU's memory: the rest is lost between blocks of PyTorch's allocator


@dataclass(frozen=True)
class Way:
    """How a backbone is held and spread.

    Attributes:
        sharded: Whether each GPU holds its share of all weights alone: FSDP2, ZeRO-3; else each holds all: DDP.
        checkpointing: Whether blocks are run again in backward, which keeps only what goes into them.
        four_bit: Whether the frozen linear layers have 4 bits a weight (nf4, double quantisation).
    """

    sharded: bool = False
    checkpointing: bool = False
    four_bit: bool = False

    def __str__(self) -> str:
        """As it is called."""
        more = [" 4-bit"] * self.four_bit + [" gradient checkpointing"] * self.checkpointing
        return ",".join(["FSDP2 / ZeRO-3" if self.sharded else "DDP", *more])


WAYS = [Way(sharded, again, four) for four, sharded, again in product((False, True), repeat=3)]


@dataclass(frozen=True)
class Cost:
    """Bytes on one GPU at the peak of a step, and those that it sends in one.

    Attributes:
        weights: Frozen weights, and those that are gathered at a time where they are sharded.
        trained: Factors and gates: numbers, gradients, moments.
        step: What forward and backward hold at their peak: kept activations, logits, what is computed on the way.
        traffic: Sent by each GPU in a step.
    """

    weights: int
    trained: int
    step: int
    traffic: int

    @property
    def total(self) -> int:
        """All at once."""
        return self.weights + self.trained + self.step

    def fits(self, memory: float) -> bool:
        """Whether a GPU of `memory` GiB holds it."""
        return self.total / GIB + OVERHEAD <= USABLE * memory


def cost(model: Model, work: Work, way: Way, gpus: int = 1) -> Cost:
    """Bytes of a step on each of `gpus` GPUs.

    DDP holds everything and sends each gradient about twice (a ring's all-reduce). Sharded weights are gathered block
    by block, in forward and again in backward, one block ahead; what is in no block stays whole during a step.
    """
    width = work.dtype.itemsize
    held = (model.frozen - model.linear) * width + model.linear * (NF4_BYTES if way.four_bit else width)
    unpacked = model.largest * width if way.four_bit else 0
    trained, others, step = ADAM * model.trained, (gpus - 1) / gpus, model.steps[way.checkpointing]
    if not way.sharded:
        return Cost(int(held + unpacked), trained, step, int(2 * others * 4 * model.trained))
    outside = (model.frozen - model.blocks) * width
    gathered = outside + 2 * model.block / model.blocks * (held - outside)
    weights = held / gpus + gathered * others + unpacked
    return Cost(int(weights), trained // gpus, step, int(others * (2 * held + 3 * 4 * model.trained)))


def costs_of(model: Model, work: Work, gpus: int) -> dict[Way, Cost]:
    """What each way costs, the simplest first; one GPU has nobody to share with."""
    return {way: cost(model, work, way, gpus) for way in WAYS if gpus > 1 or not way.sharded}


def first_fitting(costs: Mapping[Way, Cost], memory: float) -> Way | None:
    """The first way that GPUs of `memory` GiB hold, if there is one."""
    return next((way for way, found in costs.items() if found.fits(memory)), None)


def plan(backbone: str, *, gpus: int = 1, gpu_memory: float = 80.0, work: Work | None = None) -> str:
    """A table of the ways to train an adapter: what a GPU holds, what it sends, and whether it fits.

    Args:
        backbone: Hub id or folder.
        gpus: How many.
        gpu_memory: GiB of each.
        work: The step of each, a `style_adapter.planning.Work`; 8 rows of 256 + 256 tokens in bf16 if left out.

    Raises:
        ValueError: No GPU, or none with memory.
    """
    if gpus < 1 or gpu_memory <= 0:
        raise ValueError(
            f"gpus={gpus} and gpu_memory={gpu_memory:g} must be at least 1 and above 0; give what you have"
        )
    work = work or Work()
    model = survey(backbone, work)
    costs = costs_of(model, work, gpus)
    rows = []
    for name, each in costs.items():
        parts = (each.weights, each.trained, each.step, each.total, each.traffic)
        rows.append((str(name), *(f"{part / GIB:.2f}" for part in parts), "yes" if each.fits(gpu_memory) else "no"))
    head = ("way", "frozen, GiB", "trained", "step", "in all", "sent a step", "fits")
    way = first_fitting(costs, gpu_memory)
    advice = f"Use: {way}." if way else "None fits: take more GPUs, a smaller batch or shorter texts."
    counts = f"{model.frozen:,} frozen numbers, {model.trained:,} trained, {model.style:,} of them a style's own"
    return "\n\n".join([f"{backbone}: {counts}.", markdown_table(head, rows), advice])
