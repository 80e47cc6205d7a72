"""The generator G(x, s, z): the adapted backbone, what it is taught and what it writes."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from peft import PeftModel
from torch import Tensor

from ..functional import IGNORED
from ..losses import preference_loss, token_cross_entropy, token_kl
from ..model import head_reads, styled, styles_of, target_logits
from ..seeds import generator_of, seeds_for
from ..style import OFF, StyleCode
from .fakes import Fakes
from .features import backbone_of
from .lesson import Batch, Lesson
from .order import Order
from .rules import GameRules
from .writer import Writer


@dataclass(frozen=True)
class Generator:
    """G(x, s, z) as a game uses it; its weights are the model's own.

    Attributes:
        model: A model with a style adapter.
        rules: What is played for.
        writer: Writes freely, where fakes are sampled.
    """

    model: PeftModel
    rules: GameRules
    writer: Writer | None

    @property
    def decoder_only(self) -> bool:
        """Whether prompt and target stand in one sequence."""
        return not getattr(backbone_of(self.model).config, "is_encoder_decoder", False)

    def code(self, batch: Batch, which: str) -> StyleCode:
        """The style that a row has ("style") or is asked for ("wanted"), with the row's noise z."""
        return StyleCode(batch[f"{which}_ids"], batch[f"{which}_weights"], noise=self.noise(batch))

    def noise(self, batch: Batch, use: str = "noise") -> Float[Tensor, "rows noise_dim"] | None:
        """z of each row: the batch's own, or drawn by the row's seed; None for an adapter without noise."""
        bank = styles_of(self.model)
        if use in batch or not bank.noise_dim or "seeds" not in batch:
            return batch.get(use)
        seeds = seeds_for(batch["seeds"].tolist(), use)
        rows = [bank.sample_noise(1, generator=generator_of(seed)) for seed in seeds]
        return torch.cat(rows).to(batch["seeds"].device)

    def label_losses(self, batch: Batch, code: StyleCode) -> Float[Tensor, " batch"]:
        """CE_b = sum_t -log softmax(a_bt)[labels_bt] over the labels of row b: its class, its words', masked tokens."""
        mask = batch["labels"] != IGNORED  # [batch] or [batch, seq]
        logits = self.label_logits(batch, code, mask)
        per_label = token_cross_entropy(logits[:, None], batch["labels"][mask][:, None])
        return per_label.new_zeros(len(mask)).index_add(0, mask.nonzero()[:, 0], per_label)

    def label_logits(
        self, batch: Batch, code: StyleCode, mask: Bool[Tensor, "batch ..."]
    ) -> Float[Tensor, "labels classes"]:
        """Logits of the model's own head, the style classifier, at the labels; a vocabulary's head runs there alone."""
        with styled(self.model, code), head_reads(self.model, lambda hidden: hidden[mask]):
            logits = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return logits if logits.dim() == mask.dim() == 2 else logits[mask]

    def logits(self, lesson: Lesson, *, frozen: bool = False) -> Float[Tensor, "tokens vocab"]:
        """Logits that predict the target tokens; `frozen` asks the backbone instead of the adapted model."""
        with styled(self.model, OFF if frozen else lesson.code):
            return target_logits(
                self.model,
                input_ids=lesson.input_ids,
                attention_mask=lesson.attention_mask,
                labels=lesson.labels,
                mask=lesson.mask,
                decoder_only=self.decoder_only,
            )

    @staticmethod
    def surprises(lesson: Lesson, logits: Float[Tensor, "tokens vocab"]) -> Float[Tensor, " tokens"]:
        """-log p(target_t | prompt, s, z) of each target token: over the vocabulary, so read once for all terms."""
        return token_cross_entropy(logits[:, None], lesson.labels[lesson.mask][:, None])

    def preference(
        self, lesson: Lesson, surprises: Float[Tensor, " tokens"], batch: Batch
    ) -> Float[Tensor, " compared"]:
        """Of each target that has a worse one: how far the model is from finding it likelier; see `preference_loss`."""
        worse = Lesson.rejected(batch, lesson.code)
        chosen = -lesson.per_row(surprises)[batch["preferred"]]
        rejected = -worse.per_row(self.surprises(worse, self.logits(worse)))
        return preference_loss(chosen, rejected, beta=self.rules.preference)

    def write(
        self,
        order: Order,
        lesson: Lesson,
        logits: Float[Tensor, "tokens vocab"],
        rows: Bool[Tensor, " batch"],
        *,
        lockstep: bool,
    ) -> Fakes:
        """The fakes of some rows: sampled texts, read again for their logits, or the lesson's logits at its targets.

        Args:
            order: What those rows are asked to write.
            lesson: The lesson of all rows.
            logits: Its logits.
            rows: Which rows.
            lockstep: Whether every process must run the model equally often.
        """
        if self.rules.fakes == "teacher_forced":
            return Fakes(lesson.keep(rows), logits[rows[lesson.row_of]], order.seeds)
        assert self.writer is not None
        texts = self.writer(self.model, order.prompts, order.code, order.draws("write"), lockstep=lockstep)
        answer = self._lesson(order.prompts, texts, order.code)
        return Fakes(answer, self.logits(answer), order.seeds, answer.labels[answer.mask])

    def write_again(self, order: Order, fakes: Fakes) -> tuple[Fakes, Tensor]:
        """What other noise z2 makes of the fakes at the same positions, and z2.

        Raises:
            ValueError: An adapter without noise.
        """
        noise = self.noise({"seeds": order.seeds}, "twin")
        if noise is None:
            raise ValueError("noise_dim=0 must be >= 1 for the diversity term; set noise_dim in StyleAdapterConfig")
        lesson = fakes.lesson.with_noise(noise)
        return replace(fakes, lesson=lesson, logits=self.logits(lesson)), noise

    def translate_back(self, fakes: Fakes, lesson: Lesson) -> Float[Tensor, " rows"]:
        """CE(x | y, s_x): from each rewrite y back to its source x (Sennrich et al. 2016, arXiv 1511.06709)."""
        assert self.writer is not None
        back = self._lesson(self.writer.fill(fakes.lesson.targets()), lesson.targets(), lesson.code)
        return back.per_row(self.surprises(back, self.logits(back)))

    def divergence(self, fakes: Fakes) -> Float[Tensor, " rows"]:
        """KL(adapted || frozen) a token of each fake: what the backbone finds unlikely costs."""
        with torch.no_grad():
            reference = self.logits(fakes.lesson, frozen=True)
        targets = fakes.lesson.labels[fakes.lesson.mask]
        losses = token_kl(fakes.logits[:, None], reference[:, None], targets[:, None])
        return fakes.lesson.per_row(losses) / fakes.lesson.mask.sum(-1)

    def _lesson(self, prompts: list[list[int]], targets: list[list[int]], code: StyleCode) -> Lesson:
        """The teacher-forced pass of texts as token ids."""
        assert self.writer is not None
        return Lesson.written(prompts, targets, code, pad=self.writer.pad, decoder_only=self.decoder_only)
