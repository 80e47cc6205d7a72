"""What the adapter itself says of rewrites, against the losses of transformers."""

import numpy as np
import pytest
import torch
from training_fixtures import adapted, byte_tokenizer, randomised

from style_adapter import transfer_best
from style_adapter.data import closed_ids, prompt_ids
from style_adapter.inference import choose, default_score, drafts, prompt_of
from style_adapter.model import styled

NAMES = ["loud", "calm", "odd"]
SOURCES, OUTPUTS = ["ab", "cdefg", "", "ab"], ["ba", "c", "fg h", "ab"]


def plain_likelihood(model, source: str, output: str, style) -> float:
    """-loss of transformers for one pair."""
    tokenizer = byte_tokenizer()
    (prompt,), (target,) = prompt_ids(tokenizer, prompt_of(model), [source]), closed_ids(tokenizer, [output])
    with torch.no_grad(), styled(model, style):
        loss = model(
            input_ids=torch.tensor([[*prompt, *target]]), labels=torch.tensor([[*[-100] * len(prompt), *target]])
        ).loss
    return -loss.item()


def test_the_default_score_is_what_transformers_losses_say_there_and_back():
    model = randomised(adapted(styles=NAMES)).eval()
    styles = ["loud", "calm", "0.5*loud + -1*odd", "odd"]
    expected = []
    for source, output, style in zip(SOURCES, OUTPUTS, styles, strict=True):
        others = [name for name in NAMES if name != style]
        there = plain_likelihood(model, source, output, model.styles.parse(style))
        expected.append(there + max(plain_likelihood(model, output, source, name) for name in others))
    found = default_score(model, byte_tokenizer())(SOURCES, OUTPUTS, styles)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_adapter_of_one_style_scores_by_the_way_there_alone():
    model = randomised(adapted(styles=["loud"])).eval()
    found = default_score(model, byte_tokenizer())(SOURCES, OUTPUTS, ["loud"] * 4)
    expected = [plain_likelihood(model, *pair, "loud") for pair in zip(SOURCES, OUTPUTS, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("style", ["calm", {"loud": 0.5, "calm": -0.25}])
def test_without_a_score_the_default_one_chooses(style):
    model, tokenizer = randomised(adapted()), byte_tokenizer()
    texts, room = ["ab", "cde"], {"max_new_tokens": 6}
    candidates = drafts(model, tokenizer, texts, style, samples=4, **room)
    labels = model.styles.labels([style] * 2)
    expected = [choice.text for choice in choose(texts, candidates, labels, default_score(model, tokenizer))]
    assert transfer_best(model, tokenizer, texts, style, samples=4, **room) == expected
