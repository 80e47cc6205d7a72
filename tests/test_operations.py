"""Operations around a styled model: other ways to decode, copies, threads and tasks, parts of a model, replicas."""

import asyncio
import copy
import gc
import pickle
import threading
import weakref
from functools import partial
from typing import Any

import pytest
import torch
from conftest import STYLES, adapted, gradients, llama, randomise, t5, token_ids
from peft import PeftModel, inject_adapter_in_model
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from style_adapter import OFF, Style, StyleAdapterConfig, styled, styles_of
from style_adapter.style import StyleCode

EXACT = {"rtol": 0, "atol": 1e-9}
SAME = {"rtol": 1e-4, "atol": 1e-6}


def logits(model: nn.Module, ids: Tensor, **options: Any) -> Tensor:
    """Logits without gradient."""
    with torch.no_grad():
        return model(input_ids=ids, **options).logits


def generated(model: nn.Module, ids: Tensor, **options: Any) -> Tensor:
    """Greedy new tokens of a decoder, or as `options` say."""
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 8, "do_sample": False} | options
    return model.generate(input_ids=ids, **options)[:, ids.shape[1] :]


# Decoding


@pytest.fixture
def speaker() -> PeftModel:
    """A Llama in fp64 whose styles say different things."""
    return adapted(llama(), target_modules="all-linear", task_type="CAUSAL_LM").double()


@pytest.mark.parametrize("helper", ["backbone", "smaller", "styled"])
@pytest.mark.filterwarnings("ignore:.*assisted:UserWarning")
def test_assisted_decoding_says_what_the_styled_model_says_alone(speaker, helper):
    assistant = llama().double() if helper == "backbone" else llama(num_hidden_layers=1).double()
    if helper == "styled":  # one of the assistant's own, which is its own model's business
        assistant = adapted(llama(), seed=7, task_type="CAUSAL_LM").double().get_base_model()
    ids, said = token_ids(1), []
    for spec in ("kjv", {"pirate": 0.5}, OFF):
        expected = generated(speaker, ids, styles=spec)
        assert torch.equal(generated(speaker, ids, styles=spec, assistant_model=assistant), expected)
        with speaker.styled(spec):
            assert torch.equal(generated(speaker, ids, assistant_model=assistant), expected)
        said.append(expected)
    assert not torch.equal(said[0], said[1])


def test_prompt_lookup_says_what_the_styled_model_says_alone(speaker):
    ids = token_ids(1, length=4).repeat(1, 3)  # a prompt that repeats itself has something to look up
    for spec in ("kjv", "pirate", OFF):
        expected = generated(speaker, ids, styles=spec)
        assert torch.equal(generated(speaker, ids, styles=spec, prompt_lookup_num_tokens=3), expected)


@pytest.mark.parametrize("beams", [1, 3])
def test_padding_on_the_left_changes_no_row(speaker, beams):
    lengths, texts = (3, 7, 5), token_ids(3)
    rows = [text[:length] for text, length in zip(texts, lengths, strict=True)]
    ids = torch.stack([torch.cat([torch.zeros(7 - len(row), dtype=torch.long), row]) for row in rows])
    together = generated(speaker, ids, attention_mask=(ids != 0).long(), styles=STYLES, num_beams=beams)
    alone = [generated(speaker, r[None], styles=s, num_beams=beams) for r, s in zip(rows, STYLES, strict=True)]
    assert torch.equal(together, torch.cat(alone))


def test_a_cache_filled_in_one_style_is_read_in_another(speaker):
    ids = token_ids(2)
    with torch.no_grad():
        cache = speaker(input_ids=ids[:, :4], styles="kjv", use_cache=True).past_key_values
        next_logits = speaker(input_ids=ids[:, 4:], past_key_values=copy.deepcopy(cache), styles="pirate").logits
        again = speaker(input_ids=ids[:, 4:], past_key_values=cache, styles="kjv").logits
    torch.testing.assert_close(again, logits(speaker, ids, styles="kjv")[:, 4:], **EXACT)
    assert not torch.allclose(next_logits, again)


# Copies, threads and tasks


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_a_copy_made_under_styled_has_its_default_style_and_can_be_styled(speaker, travel):
    ids = token_ids(2)
    default, expected = logits(speaker, ids), logits(speaker, ids, styles="kjv")
    with speaker.styled(["pirate", "kjv"]):
        twin = travel(speaker)
        assert torch.equal(logits(twin, ids), default)
        with twin.styled("kjv"):
            assert torch.equal(logits(twin, ids), expected)
            assert not torch.equal(logits(speaker, ids), expected)
    assert torch.equal(
        generated(twin, ids, styles=["kjv", "pirate"]), generated(speaker, ids, styles=["kjv", "pirate"])
    )


def test_threads_generate_in_different_styles_at_once(speaker):
    ids = token_ids(2)
    expected = {spec: generated(speaker, ids, styles=spec) for spec in STYLES}
    barrier, found = threading.Barrier(3), {}

    def serve(spec: str) -> None:
        barrier.wait()
        with speaker.styled(spec):
            found[spec] = [generated(speaker, ids) for _ in range(3)]

    threads = [threading.Thread(target=serve, args=(spec,)) for spec in STYLES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for spec, outputs in found.items():
        assert all(torch.equal(output, expected[spec]) for output in outputs)
    assert found.keys() == expected.keys()


def test_asyncio_tasks_keep_their_styles_while_others_run(speaker):
    ids = token_ids(2)
    expected = {spec: logits(speaker, ids, styles=spec) for spec in STYLES}

    async def serve(spec: str) -> bool:
        with speaker.styled(spec):
            right = []
            for _ in range(3):
                await asyncio.sleep(0)
                right.append(torch.equal(logits(speaker, ids), expected[spec]))
                right.append(torch.equal(await asyncio.to_thread(logits, speaker, ids), expected[spec]))
            return all(right)

    async def together() -> list[bool]:
        return await asyncio.gather(*map(serve, STYLES))

    assert asyncio.run(together()) == [True] * 3
    assert torch.equal(logits(speaker, ids), expected[STYLES[0]])


# Checkpointing


def checkpoint(backbone: nn.Module, *, reentrant: bool) -> None:
    """Gradient checkpointing, by the newest name it has."""
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    next(getattr(backbone, name) for name in names if hasattr(backbone, name))({"use_reentrant": reentrant})


def learned_features(*, checkpointing: str | None, rows: bool) -> dict[str, Tensor]:
    """Gradients of the adapter and of the encoder that makes its features."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))  # its graph keeps tensors, freed once
    model = adapted(llama(), style_dim=2).train()
    model.enable_input_require_grads()
    base = model.get_base_model()
    if checkpointing in ("reentrant", "not reentrant"):
        checkpoint(base, reentrant=checkpointing == "reentrant")
    elif checkpointing:
        wrapper = partial(checkpoint_wrapper, checkpoint_impl=CheckpointImpl[checkpointing])
        check = lambda module: isinstance(module, LlamaDecoderLayer)  # noqa: E731 - torch's own interface
        apply_activation_checkpointing(base, checkpoint_wrapper_fn=wrapper, check_fn=check)
    f = encoder(torch.tensor([[1.0, -1.0, 0.5], [0.3, 0.2, -2.0]]))
    spec = [Style({"kjv": 1.0}, f[0]), Style({"pirate": 1.0}, f[1])] if rows else Style({"kjv": 1.0}, f[0] + f[1])
    with model.styled(spec):
        loss = model(input_ids=token_ids(2), use_cache=False).logits.square().mean()
    with model.styled("modern"):
        loss.backward()
    found = {name.replace("_checkpoint_wrapped_module.", ""): grad for name, grad in gradients(model).items()}
    return found | {f"encoder.{name}": grad for name, grad in gradients(encoder).items()}


@pytest.mark.parametrize("rows", [False, True], ids=["one style", "one a row"])
@pytest.mark.parametrize("checkpointing", ["reentrant", "not reentrant", "REENTRANT", "NO_REENTRANT"])
def test_an_encoder_learns_through_checkpointed_blocks(checkpointing, rows):
    expected = learned_features(checkpointing=None, rows=rows)
    found = learned_features(checkpointing=checkpointing, rows=rows)
    assert found.keys() == expected.keys()
    assert sum(name.startswith("encoder.") for name in found) == 4
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, **SAME)
        assert grad.abs().max() > 0


@pytest.mark.parametrize("reentrant", [False, True])
def test_learned_weights_of_a_mixture_get_their_gradient_through_checkpointed_blocks(reentrant):
    found = []
    for checkpointing in (False, True):
        model = adapted(llama()).train()
        if checkpointing:
            checkpoint(model.get_base_model(), reentrant=reentrant)
        model.enable_input_require_grads()
        mixture = torch.tensor([0.2, 0.3, 0.5], requires_grad=True)
        code = StyleCode(torch.arange(3)[None], mixture.softmax(0)[None])
        with model.styled(code):
            loss = model(input_ids=token_ids(2), use_cache=False).logits.square().mean()
        loss.backward()
        found.append(mixture.grad)
    torch.testing.assert_close(*found, **SAME)
    assert found[0].abs().max() > 0


# Parts of a model


def parts(names: tuple[str, str] = ("default", "default"), **options: Any) -> nn.Module:
    """A T5 in fp64 whose encoder and decoder were given adapters apart from one another."""
    model, defaults = t5(), {"styles": list(STYLES), "r": 2, "target_modules": "all-linear", "init_weights": False}
    for side, name in zip(("encoder", "decoder"), names, strict=True):
        config = StyleAdapterConfig(**defaults | options.get(side, {}))
        inject_adapter_in_model(config, getattr(model, side), adapter_name=name)
    return randomise(model).double().eval()


def said(model: nn.Module, ids: Tensor) -> Tensor:
    """Logits of an encoder-decoder."""
    return logits(model, ids, decoder_input_ids=ids.flip(1))


@pytest.mark.parametrize("spec", ["kjv", {"pirate": 0.5}, STYLES, torch.tensor([2, 0, 1]), [OFF, "kjv", 2], OFF])
def test_styled_reaches_parts_that_were_adapted_apart(spec):
    model, ids = parts(), token_ids(3)
    assert list(styles_of(model)) == STYLES
    before = said(model, ids)
    with styled(model.encoder, spec), styled(model.decoder, spec):
        expected = said(model, ids)
    with styled(model, spec):
        assert torch.equal(said(model, ids), expected)
    assert torch.equal(said(model, ids), before)
    assert not torch.equal(expected, before)


def test_parts_of_other_styles_take_theirs_and_are_addressed_by_adapter():
    model = parts(("reader", "writer"), decoder={"styles": ["kjv", "robot"]})
    ids = token_ids(2)
    assert list(styles_of(model)) == [*STYLES, "robot"]
    cases = [
        ("kjv", "kjv", "kjv"),
        ("robot", "modern", "robot"),
        ({"pirate": 0.5, "robot": 2.0}, {"pirate": 0.5}, {"robot": 2.0}),
        (["robot", OFF], ["modern", OFF], ["robot", OFF]),
        ({"reader": "pirate", "writer": [1, 0]}, "pirate", ["robot", "kjv"]),
        ({"writer": "robot"}, "modern", "robot"),
    ]
    for spec, reader, writer in cases:
        with styled(model.encoder, reader), styled(model.decoder, writer):
            expected = said(model, ids)
        with styled(model, spec):
            assert torch.equal(said(model, ids), expected)
    with pytest.raises(ValueError, match="'klingon' must be one of the adapter's styles: modern, kjv, pirate, robot"):
        styled(model, "klingon").__enter__()
    with pytest.raises(ValueError, match=r"must address one adapter, 2 are active; write \{adapter: styles\}"):
        styled(model, 1).__enter__()


def test_strength_names_layers_of_any_part():
    model, ids = parts(), token_ids(2)
    with (
        styled(model.encoder, "kjv", strength={"block.0": 0.5}),
        styled(model.decoder, "kjv", strength={"block.0": 0.5}),
    ):
        both = said(model, ids)
    with styled(model, "kjv", strength={"block.0": 0.5}):
        assert torch.equal(said(model, ids), both)
    with styled(model.encoder, "kjv"), styled(model.decoder, "kjv", strength={"EncDecAttention": 0.0}):
        decoder = said(model, ids)
    with styled(model, "kjv", strength={"EncDecAttention": 0.0}):
        assert torch.equal(said(model, ids), decoder)
    with pytest.raises(ValueError, match="strength: 'nowhere' must name an adapted layer"):
        styled(model, "kjv", strength={"nowhere": 0.0}).__enter__()


def test_noise_reaches_every_part_of_the_same_styles():
    noisy = {"noise_dim": 3}
    model, ids, z = parts(encoder=noisy, decoder=noisy), token_ids(2), torch.randn(2, 3)
    with styled(model.encoder, "kjv", noise=z), styled(model.decoder, "kjv", noise=z):
        expected = said(model, ids)
    with styled(model, "kjv", noise=z):
        assert torch.equal(said(model, ids), expected)


def test_checkpointed_parts_recompute_in_their_own_styles():
    found = []
    for checkpointing in (False, True):
        model = parts(("reader", "writer"), decoder={"styles": ["kjv", "robot"]}).train()
        if checkpointing:
            checkpoint(model, reentrant=False)
        ids = token_ids(2)
        with styled(model, {"reader": "pirate", "writer": "robot"}):
            loss = model(input_ids=ids, decoder_input_ids=ids, use_cache=False).logits.square().mean()
        with styled(model, "kjv"):
            loss.backward()
        found.append(gradients(model))
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, **SAME)


# Replicas of DataParallel


def replicas(model: nn.Module, count: int, monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """What DataParallel makes of `model`, its parameters copied on the CPU instead of sent to GPUs."""
    replicate = torch.nn.parallel.replicate.__globals__
    sent = lambda tensors, devices, detach=False: [[t.clone() for t in tensors] for _ in devices]  # noqa: E731
    monkeypatch.setitem(replicate, "_broadcast_coalesced_reshape", sent)
    return torch.nn.parallel.replicate(model, list(range(count)))


def in_threads(calls: list[Any]) -> list[Any]:
    """What each call gives in a thread of its own, as DataParallel runs replicas."""
    found: dict[int, Any] = {}

    def run(number: int) -> None:
        try:
            found[number] = calls[number]()
        except ValueError as error:
            found[number] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[i] for i in range(len(calls))]


@pytest.mark.parametrize("spec", [None, "kjv", {"pirate": 0.5}, OFF], ids=str)
def test_replicas_run_their_own_weights_in_the_style_of_the_original(monkeypatch, speaker, spec):
    ids = token_ids(4)
    expected = logits(speaker, ids, styles=spec)
    with styled(speaker, "modern" if spec is None else spec):
        both = replicas(speaker, 2, monkeypatch)
    for original in speaker.parameters():
        original.data.zero_()  # what reads the original says nothing now
    found = in_threads([partial(logits, m, rows) for m, rows in zip(both, ids.split(2), strict=True)])
    torch.testing.assert_close(torch.cat(found), expected, **EXACT)
    kept = in_threads(
        [partial(logits, both[0], ids, styles="pirate"), partial(logits, both[1], ids, styles=STYLES[:1] * 4)]
    )
    assert not torch.allclose(kept[0], kept[1])


def test_replicas_take_row_numbers_and_refuse_a_style_for_each_row_of_the_whole_batch(monkeypatch, speaker):
    ids, numbers = token_ids(4), torch.tensor([0, 1, 2, 0])
    expected = logits(speaker, ids, styles=numbers)
    both = replicas(speaker, 2, monkeypatch)
    calls = [partial(logits, m, i, styles=n) for m, i, n in zip(both, ids.split(2), numbers.split(2), strict=True)]
    torch.testing.assert_close(torch.cat(in_threads(calls)), expected, **EXACT)
    with speaker.styled(numbers):
        both = replicas(speaker, 2, monkeypatch)
        errors = in_threads([partial(logits, m, rows) for m, rows in zip(both, ids.split(2), strict=True)])
    assert all("4 styles for a batch of 2 rows" in str(error) for error in errors)


def test_gradients_of_replicas_reach_the_original(monkeypatch, speaker):
    ids = token_ids(4)
    speaker.train()
    with speaker.styled("kjv"):
        speaker(input_ids=ids).logits.square().sum().backward()
        expected = gradients(speaker)
        speaker.zero_grad()
        both = replicas(speaker, 2, monkeypatch)
    losses = [m(input_ids=rows).logits.square().sum() for m, rows in zip(both, ids.split(2), strict=True)]
    sum(losses).backward()
    found = gradients(speaker)
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-9, atol=1e-9)


def test_unloading_takes_the_replication_away(speaker):
    assert "_replicate_for_data_parallel" in vars(speaker.get_base_model())
    plain = speaker.unload()
    assert not any("_replicate_for_data_parallel" in vars(module) for module in plain.modules())


# What is remembered about the layers


def test_styles_reach_layers_that_came_after_the_first_call():
    model, ids = parts(), token_ids(3)
    with styled(model, "kjv"):
        before = said(model, ids)
    model.encoder = copy.deepcopy(model.encoder)  # adapted layers with a context of their own
    with styled(model, "kjv"):
        assert torch.equal(said(model, ids), before)


def test_what_is_remembered_about_a_model_does_not_keep_it_alive():
    model = parts()
    with styled(model, "kjv"):
        alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
