"""Tables that share their weight: a merge must change the adapted side alone, and a saved model must stay so."""

import copy

import pytest
import torch
from conftest import adapted, gpt2, llama, t5, token_ids
from torch import Tensor, nn

from style_adapter import OFF

TIED = "ignore:Model has `tie_word_embeddings=True` and a tied layer is part:UserWarning"
UNTIED = "ignore:Input and output embeddings are no longer tied after merging:UserWarning"
pytestmark = pytest.mark.filterwarnings(TIED, UNTIED)  # PEFT's own, at injection and at unloading

CASES = [
    (llama, ["embed_tokens"]),
    (llama, ["lm_head"]),
    (llama, ["embed_tokens", "lm_head", "q_proj"]),
    (gpt2, ["wte"]),
    (gpt2, ["lm_head"]),
    (t5, ["embed_tokens"]),
    (t5, ["lm_head"]),
    (t5, ["embed_tokens", "lm_head"]),
]
cases = pytest.mark.parametrize(("family", "targets"), CASES, ids=lambda x: x.__name__ if callable(x) else "+".join(x))


def tied(family) -> nn.Module:
    backbone = family(tie_word_embeddings=True)
    backbone.tie_weights()
    return backbone


def inputs(family) -> dict[str, Tensor]:
    ids = token_ids(3)
    return {"input_ids": ids} | ({"decoder_input_ids": ids.flip(0)} if family is t5 else {})


def weights_of_tables(model: nn.Module) -> list[nn.Parameter]:
    """The base weight of every table of the vocabulary and of the head."""
    found = (
        getattr(module, "base_layer", module)
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in ("embed_tokens", "lm_head", "wte", "shared")
    )
    return [module.weight for module in found]


@cases
def test_an_adapted_side_equals_an_untied_model_with_its_own_copy(family, targets):
    model, given = adapted(tied(family), target_modules=targets), inputs(family)
    expected = adapted(copy.deepcopy(tied(family)), target_modules=targets)
    for module in expected.modules():  # every table gets a copy of its own
        base = getattr(module, "base_layer", module)
        if isinstance(base, (nn.Embedding, nn.Linear)) and base.weight.shape[0] == 31:
            base.weight = nn.Parameter(base.weight.detach().clone())
    expected.base_model.model.config.tie_word_embeddings = False
    with torch.no_grad():
        torch.testing.assert_close(model(**given, styles="kjv").logits, expected(**given, styles="kjv").logits)
        assert not torch.allclose(model(**given, styles="kjv").logits, model(**given, styles=OFF).logits, atol=1e-3)


@cases
def test_merging_leaves_the_other_side_the_frozen_one_and_unmerging_ties_again(family, targets):
    model, given = adapted(tied(family), target_modules=targets), inputs(family)
    before = weights_of_tables(model)
    names = list(model.state_dict())
    assert len(set(map(id, before))) == 1
    frozen = before[0].detach().clone()
    with torch.no_grad():
        expected = model(**given, styles="kjv").logits
        for safe in (False, True):
            with model.styled("kjv"):
                model.merge_adapter(safe_merge=safe)
            torch.testing.assert_close(model(**given).logits, expected, rtol=1e-4, atol=1e-5)
            assert list(model.state_dict()) == names
            merged = weights_of_tables(model)
            if len(targets) == 1:
                assert any(torch.equal(weight, frozen) for weight in merged)
            assert not all(torch.equal(weight, frozen) for weight in merged)
            model.unmerge_adapter()
            assert all(now is then for now, then in zip(weights_of_tables(model), before, strict=True))
            assert torch.equal(before[0], frozen)
            torch.testing.assert_close(model(**given, styles="kjv").logits, expected, rtol=1e-4, atol=1e-5)


@cases
def test_a_merged_model_that_was_saved_gives_the_same_logits(family, targets, tmp_path):
    model, given = adapted(tied(family), target_modules=targets), inputs(family)
    with torch.no_grad(), model.styled("kjv"):
        expected = model(**given).logits
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(**given).logits, expected, rtol=1e-4, atol=1e-5)
        merged.save_pretrained(tmp_path)
        loaded = type(merged).from_pretrained(tmp_path).eval()
        torch.testing.assert_close(loaded(**given).logits, expected, rtol=1e-4, atol=1e-5)
    if merged.get_input_embeddings().weight is not merged.get_output_embeddings().weight:
        assert merged.config.tie_word_embeddings is False


@cases
def test_unloading_without_a_merge_leaves_the_tables_tied(family, targets):
    plain, given = tied(family).requires_grad_(False), inputs(family)
    model = adapted(copy.deepcopy(plain), target_modules=targets).unload()
    assert len(set(map(id, weights_of_tables(model)))) == 1
    assert model.config.tie_word_embeddings is True
    assert torch.equal(model(**given).logits, plain(**given).logits)


def test_a_table_that_only_holds_the_weight_of_others_raises_and_names_them():
    with pytest.raises(ValueError, match=r"matched shared, .* read through encoder.embed_tokens, decoder.embed_tokens"):
        adapted(t5(), target_modules=["shared"])


def test_peft_still_warns_of_tied_tables_at_injection():
    with pytest.warns(UserWarning, match="Model has `tie_word_embeddings=True` and a tied layer is part"):
        adapted(tied(llama), target_modules=["embed_tokens"])
