"""Stored features against those read anew."""

import pytest
import torch
from training_fixtures import adapted, randomised, toy_batch

from style_adapter.adversary import FeatureStore
from style_adapter.functional import IGNORED
from style_adapter.game import FrozenFeatures


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_stored_features_equal_those_read_in_a_batch_and_are_read_once(where, dtype, tmp_path):
    model = randomised(adapted()).to(dtype)
    features, batch = FrozenFeatures(model, 1), toy_batch(model)
    mask = batch["labels"] != IGNORED
    tokens, store, read = batch["labels"][mask], FeatureStore(where, str(tmp_path)), []

    def once(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        read.append(tokens)
        return features(features.embed(tokens, mask), mask)

    with torch.no_grad():
        expected = features(features.embed(tokens, mask), mask)
        first = store(batch["row_ids"], tokens, mask, once)
    again = store(batch["row_ids"], tokens, mask, once)
    tolerance = {"rtol": 0.05, "atol": 0.05} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(first[mask], expected[mask], **tolerance)
    assert torch.equal(first, again)
    assert first.dtype == dtype
    assert len(read) == len(store) == 4
    order = torch.tensor([2, 0])
    part = store(batch["row_ids"][order], batch["labels"][order][mask[order]], mask[order], once)
    assert torch.equal(part, first[order])
    assert len(read) == 4


def test_a_file_of_features_goes_with_its_store(tmp_path):
    store = FeatureStore("disk", str(tmp_path / "run"))
    store(
        torch.tensor([0]),
        torch.tensor([5]),
        torch.ones(1, 1, dtype=torch.bool),
        lambda tokens, mask: torch.ones(1, 1, 4),
    )
    del store
    assert list((tmp_path / "run").iterdir()) == []


def test_an_unknown_place_is_refused():
    with pytest.raises(ValueError, match="where='cloud' must be one of memory, disk"):
        FeatureStore("cloud")
