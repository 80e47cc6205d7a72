"""Rewriting without a network: a beam search over edits that the other pile of texts suggests."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from .arrays import rank_within
from .drafts import Drafts, Edits
from .evidence import StyleEvidence
from .lexicon import EDGE
from .neighbours import LONGEST, Neighbours, key_of, words_of
from .ngrams import NGrams
from .scoring import RewriteWeights, cosine


@dataclass(frozen=True)
class EditSearch:
    """The best draft y of a text x that at most `edits` replacements make, by score(y | x, s) of `RewriteWeights`.

    A replacement puts what the pile of style s has between two words for what the draft has there, up to three words
    for up to three. Only those are tried whose words by themselves speak for s, and what was put in stays.

    Attributes:
        style: s.
        evidence: Of the styles.
        language: What is usual in the pile of s.
        neighbours: What that pile has between two words.
        vectors: Of the words.
        weights: Of the score.
        edits: Most replacements of a text.
        beams: Drafts of a text that are kept from one replacement to the next.
        tried: Replacements of a draft that are scored, those whose words promise most.
        least: What the words of a replacement must add to the logit of s.
    """

    style: str
    evidence: StyleEvidence
    language: NGrams
    neighbours: Neighbours
    vectors: Float[np.ndarray, "words dim"]
    weights: RewriteWeights = field(default_factory=RewriteWeights)
    edits: int = 3
    beams: int = 4
    tried: int = 30
    least: float = 0.3

    def rewrite(self, ids: Int[np.ndarray, "texts length"], count: int = 1) -> Drafts:
        """The best `count` drafts of each text that has any, in the order of the texts, best first."""
        before = self._commonplace(ids)
        beam = Drafts.of(ids, self.vectors.shape[1])
        found = [beam[:0]]
        for _ in range(self.edits):
            edits = self._promising(beam)
            if len(edits) == 0:
                break
            beam = self._scored(beam.after(edits, self.vectors), before).best(self.beams)
            found.append(beam)
        return Drafts.joined(found).best(count)

    def _promising(self, drafts: Drafts) -> Edits:
        """For each draft the edits that look best by their words alone."""
        edits = Edits.joined([self._suggested(drafts, length) for length in range(LONGEST + 1)])
        gain = self._worth[edits.words].sum(1) - edits.taken_of(self._worth[drafts.ids])
        edits, gain = edits[gain > self.least], gain[gain > self.least]
        look = self.weights.style * np.minimum(gain, self.weights.cap) - self.weights.keep * edits.changed
        order = np.lexsort((-look, edits.draft))
        return edits[order[rank_within(edits.draft[order]) < self.tried]]

    def _suggested(self, drafts: Drafts, length: int) -> Edits:
        """Every replacement of `length` words that the pile knows between their neighbours."""
        draft, start = drafts.spans(length)
        edged = np.pad(drafts.ids, ((0, 0), (1, 1)), constant_values=EDGE)
        keys = key_of(edged[draft, start], edged[draft, start + length + 1])
        which, span = _all_of(*self.neighbours.ranges(keys))
        words, inserted = words_of(self.neighbours.spans[span])
        return Edits(draft[which], start[which], np.full(len(which), length), words, inserted)

    def score(
        self,
        sources: Int[np.ndarray, "texts length"],
        outputs: Int[np.ndarray, "texts other_length"],
        similarity: Float[np.ndarray, " texts"],
        changed: Int[np.ndarray, " texts"],
    ) -> Float[np.ndarray, " texts"]:
        """score(y | x, s) of texts that came about elsewhere."""
        return self._judged(outputs, self._commonplace(sources), similarity, changed)[1]

    def _scored(self, drafts: Drafts, before: Float[np.ndarray, " texts"]) -> Drafts:
        """The drafts with their scores; `before` is what is commonplace in their sources."""
        similarity = cosine(drafts.removed, drafts.inserted)
        logit, score = self._judged(drafts.ids, before[drafts.source], similarity, drafts.changed)
        return replace(drafts, logit=logit, score=score)

    def _judged(
        self,
        outputs: Int[np.ndarray, "texts length"],
        before: Float[np.ndarray, " texts"],
        similarity: Float[np.ndarray, " texts"],
        changed: Int[np.ndarray, " texts"],
    ) -> tuple[Float[np.ndarray, " texts"], Float[np.ndarray, " texts"]]:
        """(logit, score) of texts, `before` being what is commonplace in the source of each."""
        logit = self.evidence.logit(outputs, self.style)
        gain = self._commonplace(outputs) - before
        return logit, self.weights.score(logit=logit, cosine=similarity, changed=changed, gain=gain)

    def _commonplace(self, ids: Int[np.ndarray, "texts length"]) -> Float[np.ndarray, " texts"]:
        """Log-likelihood of texts, less what the commonness of their words explains."""
        return self.language.log_probability(ids) - self.weights.commonness * self.language.usualness(ids)

    @cached_property
    def _worth(self) -> Float[np.ndarray, " words"]:
        """What each word by itself adds to the logit of the style."""
        worth = self.evidence.words(self.style, len(self.vectors))
        worth[EDGE] = 0.0
        return worth


def _all_of(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(i, j) of every j in first[i] .. last[i] - 1."""
    counts = last - first
    which = np.repeat(np.arange(len(first)), counts)
    return which, np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts) + first[which]
