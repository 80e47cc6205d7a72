"""How likely rewrites are, against the loss of transformers."""

import pytest
import torch
from training_fixtures import adapted, byte_tokenizer, llama, randomised, t5

from style_adapter.data import closed_ids, prompt_ids
from style_adapter.inference import log_likelihoods, prompt_of
from style_adapter.model import styled

SOURCES, OUTPUTS, STYLES = ["ab", "cdefg", ""], ["ba", "c", "fg h"], ["loud", "calm", "calm"]


@pytest.mark.parametrize("kind", ["llama", "t5"])
def test_the_mean_log_likelihood_is_the_loss_of_transformers_for_each_pair_alone(kind):
    backbone = llama() if kind == "llama" else t5()
    model = randomised(adapted(backbone, task_type="CAUSAL_LM" if kind == "llama" else "SEQ_2_SEQ_LM")).eval()
    tokenizer = byte_tokenizer()
    found = log_likelihoods(model, tokenizer, SOURCES, OUTPUTS, STYLES)
    prompts, targets = prompt_ids(tokenizer, prompt_of(model), SOURCES), closed_ids(tokenizer, OUTPUTS)
    for value, prompt, target, style in zip(found, prompts, targets, STYLES, strict=True):
        if kind == "llama":
            inputs, labels = [[*prompt, *target]], [[*[-100] * len(prompt), *target]]
        else:
            inputs, labels = [prompt], [target]
        with torch.no_grad(), styled(model, style):
            loss = model(input_ids=torch.tensor(inputs), labels=torch.tensor(labels)).loss
        assert value == pytest.approx(-loss.item(), rel=1e-5)


def test_an_output_for_each_source_is_needed():
    with pytest.raises(ValueError, match="outputs of length 1 must be as long as sources, 2"):
        log_likelihoods(randomised(adapted()), byte_tokenizer(), ["a", "b"], ["c"], "calm")
