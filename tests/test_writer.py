"""Sampled text against greedy search, against softmax, and against the same row in another batch."""

from collections import Counter

import pytest
import torch
from training_fixtures import END, PAD, adapted, byte_tokenizer, gpt2, llama, randomised, t5

from style_adapter.game import Writer
from style_adapter.model import styles_of
from style_adapter.sampling import SeededSampling

BACKBONES = {"llama": (llama, "CAUSAL_LM"), "gpt2": (gpt2, "CAUSAL_LM"), "t5": (t5, "SEQ_2_SEQ_LM")}
PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]


def writer(**options) -> Writer:
    return Writer(lambda texts: texts, PAD, END, **options)


def written(model, rows: list[int], seeds: list[int], **options) -> list[list[int]]:
    """The texts for some of the prompts, in alternating styles."""
    code = styles_of(model).code([["loud", "calm"][row % 2] for row in rows])
    return writer(**options)(model, [PROMPTS[row] for row in rows], code, [seeds[row] for row in rows])


@pytest.mark.parametrize("kind", BACKBONES)
def test_temperature_zero_is_greedy_search(kind):
    backbone, task_type = BACKBONES[kind]
    model = randomised(adapted(backbone(), task_type=task_type)).eval()
    for row, prompt in enumerate(PROMPTS):
        style = ["loud", "calm"][row % 2]
        options = {"max_new_tokens": 9, "do_sample": False, "pad_token_id": PAD, "eos_token_id": END, "styles": style}
        found = model.generate(input_ids=torch.tensor([prompt]), **options)[0].tolist()
        new = found[1:] if kind == "t5" else found[len(prompt) :]
        new = new[: new.index(END) + 1] if END in new else new
        assert written(model, [row], [0, 1, 2], temperature=0.0, room=9) == [new]


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_rows_text_depends_on_its_seed_and_not_on_its_batch(kind):
    backbone, task_type = BACKBONES[kind]
    model = randomised(adapted(backbone(), task_type=task_type))
    whole = written(model, [0, 1, 2], [7, 8, 9])
    assert written(model, [2], [7, 8, 9]) == whole[2:]
    assert written(model, [2, 0], [7, 8, 9]) == [whole[2], whole[0]]
    assert all(one != other for one, other in zip(written(model, [0, 1, 2], [17, 18, 19]), whole, strict=True))
    assert model.training


def test_a_text_is_as_long_as_its_own_prompt_allows():
    model = randomised(adapted())
    texts = written(model, [0, 1, 2], [1, 2, 3])
    assert all(0 < len(text) <= len(prompt) * 3 // 2 + 8 for text, prompt in zip(texts, PROMPTS, strict=True))
    assert all(END not in text[:-1] for text in texts)
    assert max(map(len, written(model, [0, 1, 2], [1, 2, 3], room=4))) <= 4


def test_draws_follow_the_softmax_of_the_tokens_that_may_be_drawn():
    logits = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0])

    def shares(**options) -> torch.Tensor:
        draw = SeededSampling(range(20_000), 1, **options)
        scores = draw(torch.zeros(20_000, 1, dtype=torch.long), logits.expand(20_000, 5))
        assert (scores == 0).sum(-1).eq(1).all()
        counts = Counter(scores.argmax(-1).tolist())
        return torch.tensor([counts[token] / 20_000 for token in range(5)])

    bound = 4 * (0.25 / 20_000) ** 0.5  # four standard deviations of a share
    assert (shares(top_k=5) - logits.softmax(0)).abs().max() < bound
    assert (shares(top_k=5, temperature=0.5) - (logits / 0.5).softmax(0)).abs().max() < bound
    three = logits[:3].softmax(0)
    assert (shares(top_k=3)[:3] - three).abs().max() < bound
    assert shares(top_k=3)[3:].sum() == 0
    nucleus = shares(top_k=5, top_p=0.7)  # the first two have 0.73 of the probability together
    assert (nucleus[:2] - logits[:2].softmax(0)).abs().max() < bound
    assert nucleus[2:].sum() == 0


@pytest.mark.parametrize("options", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}])
def test_draws_that_are_none_are_refused(options):
    with pytest.raises(ValueError, match=r"must be >= 0, .* and .* in"):
        SeededSampling([1], 1, **options)


def test_the_toys_tokenizer_ends_texts_with_the_token_the_writer_looks_for():
    assert byte_tokenizer().eos_token_id == END
