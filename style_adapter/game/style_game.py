"""The game: generator and discriminator in one module, one forward, named losses.

The adapted backbone is the generator G(x, s, z); the discriminator reads the first blocks of the same backbone with
the adapter off. Accelerate wraps this module and nothing else, so every differentiable call of a step happens inside
its one forward (DDP and FSDP synchronise what passes there).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..adversary import FeatureStore, Judgement, StyleDiscriminator, StylePrototypes
from ..data import pad
from ..functional import IGNORED
from ..model import styles_of
from ..replay import ReplayBuffer
from .fakes import Fakes
from .features import FrozenFeatures, backbone_of, width_of
from .generator import Generator
from .lesson import Lesson
from .memory import GameMemory
from .order import Order
from .reader import Reader
from .rules import GameRules, check_rules, verdict_of
from .terms import Sides, Table, Twins
from .writer import Writer


@dataclass(frozen=True)
class StepLosses:
    """What one forward of the game gives.

    Attributes:
        rows: Each term by name, one value a row (a likelihood is summed over the row's target tokens).
        scores: D's logits by name, detached, to watch the game: "real" and "fake".
    """

    rows: dict[str, Float[Tensor, " _rows"]]  # of all rows for "ce" and "rec", of the judged ones for the others
    scores: dict[str, Float[Tensor, " _judged"]]


class StyleGame(nn.Module):
    """The PEFT model and its discriminator, trained against each other.

    Args:
        model: A model with a style adapter.
        discriminator: None trains without a game.
        rules: What is played for, and how.
        writer: Writes the texts of a game with sampled fakes.
        backbone: What the discriminator reads where the model's own backbone trains too; see `frozen_copy`.
        store: Keeps the features of real texts.
        replay: Old fakes for the discriminator.

    Raises:
        ValueError: An unknown game, a `depth` that the backbone does not have, one that trains, or rules that do not
            go together.
    """

    accepts_loss_kwargs = False  # the trainer divides the sums by its own counts
    lockstep = False  # whether every process must run the same blocks: weights are gathered from all at each
    blur = 0.0  # instance noise in units of the features' own size; falls to 0 over a run

    def __init__(
        self,
        model: PeftModel,
        discriminator: StyleDiscriminator | None,
        rules: GameRules | None = None,
        *,
        writer: Writer | None = None,
        backbone: PreTrainedModel | None = None,
        store: FeatureStore | None = None,
        replay: ReplayBuffer | None = None,
    ) -> None:
        """Fits the memory to the backbone's width and the adapter's styles."""
        super().__init__()
        self.model, self.discriminator = model, discriminator
        self.rules = rules or GameRules()
        check_rules(self.rules, writes=writer is not None)
        self.features = FrozenFeatures(model, self.rules.depth, backbone=backbone)
        if discriminator is not None:
            self.features.check_depth()
            self.features.check_frozen()
            self.verdict = verdict_of(self.rules, discriminator.kind)
        self.n_styles = len(styles_of(model))
        self.memory = GameMemory(self.n_styles, width_of(model), rate=self.rules.prototype_rate, replay=replay)
        self.generator = Generator(model, self.rules, writer)
        self.reader = Reader(self.features, self.rules, self.memory, store)

    @property
    def prototypes(self) -> StylePrototypes:
        """S*: the mean features of real texts of each style."""
        return self.memory.prototypes

    @property
    def _no_split_modules(self) -> list[str]:
        """The backbone's blocks, where FSDP looks for what it wraps."""
        return list(getattr(backbone_of(self.model), "_no_split_modules", None) or ())

    def tie_weights(self) -> None:
        """Ties the backbone's weights again, as FSDP asks for after it has replaced them."""
        backbone_of(self.model).tie_weights()

    @property
    def config(self) -> Any:
        """The backbone's config, where Trainer looks for it."""
        return backbone_of(self.model).config

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Checkpoints the backbone's blocks, as Trainer asks for."""
        self.model.enable_input_require_grads()
        self.model.activation_checkpointing_enable(**options)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """The same, by the name that older releases of transformers give it."""
        self.model.enable_input_require_grads()
        self.model.gradient_checkpointing_enable(**options)

    def forward(self, *, play: bool = True, teach: bool = True, **batch: Tensor) -> StepLosses:
        """One step: learn, write, read, judge; the losses of both sides.

        Args:
            play: False (warm-up, evaluation) gives the likelihood alone.
            teach: False gives the discriminator's side alone.
            batch: What a collator made.
        """
        generator, unpaired = self.generator, "source_ids" in batch
        code = generator.code(batch, "style")
        if "token_weights" not in batch:  # no text to write: classes of rows or words, masked tokens
            return StepLosses({"ce": generator.label_losses(batch, code)}, {})
        with torch.set_grad_enabled(teach and torch.is_grad_enabled()):
            lesson = Lesson.of(batch, code)
            logits = generator.logits(lesson)  # [tokens, vocab]
            surprises = generator.surprises(lesson, logits)
            rows = {"rec" if unpaired else "ce": lesson.weighted(surprises)}
            if self.rules.preference and "rejected_labels" in batch:
                rows["pref"] = generator.preference(lesson, surprises, batch)
            if not self._is_played(play, batch["judged"]):
                return StepLosses(self._connected(rows), {})
            judged, counts = self._keep_step(batch["judged"])
            wanted = generator.code(batch, "wanted") if unpaired else code
            order = Order.of(batch, wanted, decoder_only=generator.decoder_only).keep(judged)
            fakes = generator.write(order, lesson, logits, judged, lockstep=self.lockstep)  # G(x, s, z)
            if self.rules.back_translation:
                rows["bt"] = generator.translate_back(fakes, lesson.keep(judged)) * counts
            if self.rules.kl:
                rows["kl"] = generator.divergence(fakes) * counts
            if self.discriminator is None:
                return StepLosses(rows, {})
            table = self.lay_out(order, fakes, counts)  # phi_k(x), phi_k(G(x, s, z))
        sides = Sides(self.discriminator, self.memory, self.verdict, self.rules)
        of_discriminator, on_real, on_fake = sides.discriminator(table, learn=self.training)
        of_generator = sides.generator(table, on_real, learn=self.training) if teach else {}
        terms = {name: term * counts for name, term in (of_generator | of_discriminator).items()}
        scores = {"real": on_real.realness.detach()[counts], "fake": on_fake.realness.detach()[counts]}
        return StepLosses(rows | terms if teach else self._at_rest(terms), scores)

    @torch.no_grad()
    def judge(self, texts: Sequence[Sequence[int]], style: Float[Tensor, "rows n_styles"]) -> Judgement:
        """What the discriminator says of texts as token ids, each asked for its row of `style`.

        Raises:
            ValueError: A game without a discriminator.
        """
        if self.discriminator is None:
            raise ValueError(
                "discriminator=None must be a StyleDiscriminator to judge texts; train with adversary_fraction > 0"
            )
        labels = pad(texts, IGNORED).to(style.device)
        mask = labels != IGNORED
        return self.discriminator(self.reader.read(labels[mask], mask), mask, style)

    def lay_out(self, order: Order, fakes: Fakes, counts: Bool[Tensor, " rows"]) -> Table:
        """Features of real texts and of what was written in their styles, side by side."""
        style, seeds = order.style(self.n_styles) * counts[:, None], order.seeds.tolist()
        tokens, fake = self.reader.fakes(fakes)
        real = self.reader.real(order).blurred(seeds, self.blur, "blur real")
        fake = fake.blurred(seeds, self.blur, "blur fake")
        old = self.reader.with_old(fake.detached(), order, style, lockstep=self.lockstep)
        twins = self.twins(order, fakes) if self.rules.diversity and torch.is_grad_enabled() else None
        if self.training:
            self.memory.note_fakes(order.row_ids, tokens.split(fake.mask.sum(-1).tolist()), style, counts)
        return Table(real, fake, old, style, fakes, tokens, twins)

    def twins(self, order: Order, fakes: Fakes) -> Twins:
        """The fakes written with two noises z, z2: phi_k of the mixtures of tokens, smooth in the noise."""
        again, noise = self.generator.write_again(order, fakes)
        assert order.code.noise is not None
        return Twins(self.reader.mixtures(fakes), self.reader.mixtures(again), order.code.noise, noise)

    def _is_played(self, play: bool, judged: Bool[Tensor, " batch"]) -> bool:
        """Whether anything is written in this step."""
        wanted = self.discriminator is not None or self.rules.back_translation or self.rules.kl
        return bool(play and wanted and (self.lockstep or judged.any()))

    @staticmethod
    def _keep_step(judged: Tensor) -> tuple[Bool[Tensor, " batch"], Bool[Tensor, " _judged"]]:
        """The judged rows, and which of them count: without any, the first row is run for the other processes' sake."""
        run = judged if judged.any() else torch.arange(len(judged), device=judged.device) == 0
        return run, judged[run]

    def _connected(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """`rows`, with D's weights in the graph at zero: DDP waits for a gradient of every parameter."""
        if self.discriminator is None or not torch.is_grad_enabled():
            return rows
        (name, first), *others = rows.items()
        features = first.new_zeros(1, 1, width_of(self.model))
        judged = self.discriminator(features, features[..., 0] == 0, first.new_zeros(1, self.n_styles))
        nothing = sum(said.sum() for said in (judged.realness, judged.style_logits, judged.pooled)) * 0.0
        return {name: first + nothing, **dict(others)}

    def _at_rest(self, rows: dict[str, Tensor]) -> dict[str, Tensor]:
        """`rows`, with the adapter's weights in the graph at zero, for the same reason."""
        nothing = sum(p.sum() for p in self.model.parameters() if p.requires_grad) * 0.0
        return {name: row + nothing if name == "d_adv" else row for name, row in rows.items()}
