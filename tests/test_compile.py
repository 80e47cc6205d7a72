"""Compiled models: equal to eager ones, in one graph that no other style, strength or mixture compiles anew."""

import copy
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import conftest
import jaxtyping
import pytest
import torch
from conftest import STYLES, adapted, gradients, randomise, t5, token_ids
from peft import PeftModel
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.utils.checkpoint import checkpoint
from transformers import CompileConfig

from style_adapter import OFF, StyleAdapterConfig, styled

SAME = {"rtol": 1e-5, "atol": 1e-6}


class Block(nn.Module):
    """Two layers with a residual, checkpointed as transformers' blocks are."""

    def __init__(self, breaking: bool) -> None:
        super().__init__()
        self.up, self.down, self.breaking = nn.Linear(8, 12), nn.Linear(12, 8), breaking
        self._gradient_checkpointing_func = None

    def inner(self, x: Tensor) -> Tensor:
        """The block, with a graph break in the middle if wanted."""
        hidden = self.up(x)
        if self.breaking:
            torch._dynamo.graph_break()
        return x + self.down(torch.tanh(hidden))

    def forward(self, x: Tensor) -> Tensor:
        if self._gradient_checkpointing_func is not None and self.training:
            return self._gradient_checkpointing_func(self.inner, x)
        return self.inner(x)


class Plain(nn.Module):
    """A backbone that takes a tenth of a Llama's time to compile."""

    def __init__(self, *, blocks: int = 1, breaking: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed, self.head = nn.Embedding(31, 8), nn.Linear(8, 5)
        self.blocks = nn.ModuleList(Block(breaking) for _ in range(blocks))
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)

    def checkpoint(self, *, reentrant: bool) -> None:
        """Turns gradient checkpointing on."""
        for block in self.blocks:
            block._gradient_checkpointing_func = partial(checkpoint, use_reentrant=reentrant)


def plain(**options: Any) -> PeftModel:
    """The plain backbone with a random adapter of three styles."""
    return adapted(Plain(), **{"target_modules": ["up", "down"]} | options)


def llama(blocks: int = 1) -> nn.Module:
    """A small Llama."""
    return conftest.llama(num_hidden_layers=blocks)


@pytest.fixture(autouse=True)
def graphs() -> Iterator[CompileCounter]:
    """Counts the graphs that are compiled; their ops run as in eager mode."""
    torch._dynamo.reset()
    jaxtyping.config.update("jaxtyping_disable", True)  # its checks of shapes cannot be compiled
    yield CompileCounter()
    jaxtyping.config.update("jaxtyping_disable", False)
    torch._dynamo.reset()


def logits(model: Callable[..., Any], ids: Tensor, **options: Any) -> Tensor:
    """Logits without gradient."""
    with torch.no_grad():
        output = model(input_ids=ids, **options)
    return getattr(output, "logits", output)


def assert_equal_eager(model: PeftModel, compiled: Callable[..., Any], ids: Tensor, spec: Any, **options: Any) -> None:
    """The compiled model says what the eager one says in the style `spec`."""
    with model.styled(spec, **options):
        torch.testing.assert_close(logits(compiled, ids), logits(model, ids), **SAME)


# One graph


@pytest.mark.parametrize(
    ("backbone", "first"),
    [("plain", None), ("plain", "kjv"), pytest.param("llama", None, marks=pytest.mark.slow)],
    ids=["default first", "style first", "llama"],
)
def test_no_style_strength_or_mixture_compiles_anew(graphs, ids, backbone, first):
    model = plain(noise_dim=3) if backbone == "plain" else adapted(llama(), noise_dim=3)
    block, layer = ("blocks.0-0", "up") if backbone == "plain" else ("layers.0-0", "q_proj")
    compiled, bank = torch.compile(model, backend=graphs, fullgraph=True), model.styles
    if first is None:
        torch.testing.assert_close(logits(compiled, ids), logits(model, ids), **SAME)
    said = []
    for spec in ("kjv", 0.5 * bank["kjv"], bank["kjv"] + 0.3 * bank["modern"] - bank["pirate"], OFF, 2, {"pirate": 2}):
        assert_equal_eager(model, compiled, ids, spec)
        with model.styled(spec):
            said.append(logits(compiled, ids))
    assert graphs.frame_count == 1
    assert all(not torch.allclose(a, b) for i, a in enumerate(said) for b in said[:i])
    for spec in (STYLES, [OFF, 0.5 * bank["kjv"], "modern"], torch.tensor([2, 0, 1])):
        assert_equal_eager(model, compiled, ids, spec)
    assert graphs.frame_count == 2  # one more for one style a row
    for spec, strength in (("kjv", {block: 0.5}), ("pirate", {layer: 2.0}), ("pirate", 0.5)):
        assert_equal_eager(model, compiled, ids, spec, strength=strength)
    assert graphs.frame_count == 2  # strength by block is a tensor all the time
    for seed in range(2):
        z = torch.randn(1, 3, generator=torch.Generator().manual_seed(seed))
        assert_equal_eager(model, compiled, ids, "kjv", noise=z)
    assert graphs.frame_count == 3  # one more for noise
    for spec, options in (("modern", {}), (STYLES, {}), (OFF, {}), ("kjv", {"strength": {layer: 3}}), ("kjv", {})):
        assert_equal_eager(model, compiled, ids, spec, **options)
    torch.testing.assert_close(logits(compiled, ids), logits(model, ids), **SAME)
    assert graphs.frame_count == 3  # and none afterwards


def test_parameters_in_another_style_compile_nothing_anew(graphs, ids):
    model = plain(target_modules=[], target_parameters=["up.weight", "down.weight"])
    compiled = torch.compile(model, backend=graphs, fullgraph=True)
    for spec in (*STYLES, 0.5 * model.styles["kjv"], {"modern": 1.0, "pirate": -1.5}, OFF):
        assert_equal_eager(model, compiled, ids, spec)
        assert_equal_eager(model, compiled, ids, spec, strength={"up": 0.5})
    assert graphs.frame_count == 1


def test_a_mixture_of_more_styles_than_usual_is_one_more_graph(graphs, ids):
    names = [f"style {i}" for i in range(9)]
    model = plain(styles=names)
    compiled = torch.compile(model, backend=graphs, fullgraph=True)
    for used, expected in ((1, 1), (4, 1), (5, 2), (8, 2), (9, 2), (2, 2)):
        assert_equal_eager(model, compiled, ids, dict.fromkeys(names[:used], 0.5))
        assert graphs.frame_count == expected


def test_encoder_decoder_is_one_graph(graphs, ids):
    model = adapted(t5(num_layers=1))
    compiled = torch.compile(model, backend=graphs, fullgraph=True)
    for spec in ("kjv", OFF, "pirate"):
        with model.styled(spec):
            found, expected = (logits(m, ids, decoder_input_ids=ids) for m in (compiled, model))
        torch.testing.assert_close(found, expected, **SAME)
    assert graphs.frame_count == 1


def test_an_adapter_on_a_compiled_backbone_is_one_graph(graphs, ids):
    model = adapted(torch.compile(Plain(), backend=graphs, fullgraph=True), target_modules=["up", "down"])
    uncompiled = plain()
    for spec in ("kjv", OFF, "pirate"):
        with model.styled(spec), uncompiled.styled(spec):
            torch.testing.assert_close(logits(model, ids), logits(uncompiled, ids), **SAME)
    assert graphs.frame_count == 1


# Styles as a keyword: two pieces around the call that reads them


def test_styles_made_under_inference_mode_compile_nothing_anew(graphs, ids):
    model = plain().eval()
    compiled = torch.compile(model, backend=graphs, fullgraph=True)
    with torch.inference_mode():
        compiled(input_ids=ids)
        with model.styled("kjv"):
            compiled(input_ids=ids)
    with model.styled("pirate"), torch.inference_mode():
        found = compiled(input_ids=ids)
        torch.testing.assert_close(found, model(input_ids=ids), **SAME)
    assert graphs.frame_count == 1


def test_row_numbers_as_a_keyword_compile_nothing_anew(graphs, ids):
    model = plain()
    compiled = torch.compile(model, backend=graphs)
    for rows in ([0, 1, 2], [2, 1, 2], [1, 1, 0]):
        found = logits(compiled, ids, styles=torch.tensor(rows))
        torch.testing.assert_close(found, logits(model, ids, styles=torch.tensor(rows)), **SAME)
        assert graphs.frame_count == 2


def test_names_as_a_keyword_are_right(graphs, ids):
    model = plain()
    compiled = torch.compile(model, backend=graphs)
    for spec in ("kjv", STYLES, OFF, None, "modern", {"kjv": 0.5}, "kjv"):
        torch.testing.assert_close(logits(compiled, ids, styles=spec), logits(model, ids, styles=spec), **SAME)


# Several adapters


def two_adapters() -> PeftModel:
    """A model with a second adapter of other styles."""
    model = plain()
    model.add_adapter("second", StyleAdapterConfig(styles=["kjv", "robot"], r=2, target_modules=["up"]))
    return randomise(model).eval()


def test_each_choice_of_active_adapters_is_one_graph(graphs, ids):
    model = two_adapters()
    compiled = torch.compile(model, backend=graphs, fullgraph=True)
    for active, expected in ((["default"], 1), (["second"], 2), (["default", "second"], 3), (["default"], 3)):
        model.base_model.set_adapter(active)
        for spec in ("kjv", OFF, 0.5 * model.styles["kjv"]):
            assert_equal_eager(model, compiled, ids, spec)
        assert graphs.frame_count == expected
    assert_equal_eager(model, compiled, ids, {"second": "robot"})
    with model.disable_adapter():
        torch.testing.assert_close(logits(compiled, ids), logits(Plain().eval(), ids), **SAME)
    assert graphs.frame_count == 4
    model.delete_adapter("second")
    assert_equal_eager(model, compiled, ids, "pirate")
    model.add_adapter("third", StyleAdapterConfig(styles=["x"], r=3, target_modules=["down"]))
    randomise(model).eval().set_adapter("third")
    torch.testing.assert_close(logits(compiled, ids), logits(model, ids), **SAME)
    assert not torch.allclose(logits(model, ids), logits(Plain().eval(), ids))


def test_mixed_batches_are_right_and_compile_each_choice_of_adapters_once(graphs, ids):
    model = two_adapters()
    compiled = torch.compile(model, backend=graphs)
    choices = (["default", "__base__", "second"], ["second", "second", "__base__"], ["default"] * 3)
    counts = []
    for _ in range(2):
        for names in choices:
            for spec in ("kjv", {"second": "robot"}):
                with model.styled(spec):
                    expected = logits(model, ids, adapter_names=names)
                    torch.testing.assert_close(logits(compiled, ids, adapter_names=names), expected, **SAME)
            options = {"adapter_names": names, "styles": "kjv"}
            torch.testing.assert_close(logits(compiled, ids, **options), logits(model, ids, **options), **SAME)
        counts.append(graphs.frame_count)
    assert counts[0] == counts[1]


# Copies and threads


def test_a_copy_and_its_original_keep_their_own_styles(graphs, ids):
    model = plain()
    compiled = torch.compile(model, backend=graphs, fullgraph=True)
    assert_equal_eager(model, compiled, ids, "kjv")
    twin = copy.deepcopy(model)
    compiled_twin = torch.compile(twin, backend=graphs, fullgraph=True)
    expected = {spec: logits(model, ids, styles=spec) for spec in STYLES}
    with model.styled("pirate"), twin.styled("kjv"):
        torch.testing.assert_close(logits(compiled, ids), expected["pirate"], **SAME)
        torch.testing.assert_close(logits(compiled_twin, ids), expected["kjv"], **SAME)
    torch.testing.assert_close(logits(compiled_twin, ids), expected["modern"], **SAME)


def test_threads_run_one_compiled_model_in_different_styles(graphs, ids):
    model = plain()
    compiled = torch.compile(model, backend=graphs, fullgraph=True)
    expected = {spec: logits(model, ids, styles=spec) for spec in [*STYLES, None]}
    logits(compiled, ids)
    barrier, wrong = threading.Barrier(4), []

    def serve(spec: str | None) -> None:
        def run() -> None:
            barrier.wait()
            for _ in range(5):
                if not torch.allclose(logits(compiled, ids), expected[spec], **SAME):
                    wrong.append(spec)

        if spec is None:
            run()
        else:
            with model.styled(spec):
                run()

    threads = [threading.Thread(target=serve, args=(spec,)) for spec in expected]
    with model.styled(OFF):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        torch.testing.assert_close(logits(compiled, ids), logits(Plain().eval(), ids), **SAME)
    assert not wrong
    assert graphs.frame_count == 1


def test_an_adapter_added_in_another_thread_is_known_to_all(graphs, ids):
    model = plain()
    compiled = torch.compile(model, backend=graphs, fullgraph=True)
    logits(compiled, ids)
    config = StyleAdapterConfig(styles=["robot"], r=2, target_modules=["up"])
    thread = threading.Thread(target=model.add_adapter, args=("second", config))
    thread.start()
    thread.join()
    randomise(model).eval().set_adapter("second")
    torch.testing.assert_close(logits(compiled, ids), logits(model, ids), **SAME)


# Generation


@pytest.mark.parametrize("way", ["keyword", "styled"])
def test_generation_with_a_static_cache_compiles_no_style_anew(ids, way):
    counted = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        counted.append(graph)
        return graph.forward

    model = adapted(llama(), task_type="CAUSAL_LM").double()
    config = CompileConfig(backend=backend, fullgraph=True, dynamic=False, mode=None)
    config._compile_all_devices = True
    static = {"cache_implementation": "static", "compile_config": config}

    def generated(**options: Any) -> Tensor:
        return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False, **options)

    said = []
    for specs, expected in ((["kjv", OFF, {"kjv": 0.5}], 1), ([STYLES, STYLES[::-1]], 2)):
        for spec in specs:
            said.append(generated(styles=spec))
            if way == "keyword":
                found = generated(styles=spec, **static)
            else:
                with model.styled(spec):
                    found = generated(**static)
            assert torch.equal(found, said[-1])
        assert len(counted) == expected
    assert not torch.equal(said[0], said[1])


# Training


def trained(model: PeftModel, run: Callable[..., Any]) -> dict[str, Tensor]:
    """Gradients of one backward, inside another style's block, of three forwards: the default style and two others."""
    losses = [output_of(run).square().mean()]
    for spec in (STYLES, 0.5 * model.styles["kjv"]):
        with model.styled(spec):
            losses.append(output_of(run).square().mean())
    with model.styled("pirate"):
        sum(losses).backward()
    return gradients(model)


def output_of(run: Callable[..., Any]) -> Tensor:
    """Logits with gradient."""
    output = run(input_ids=token_ids(3))
    return getattr(output, "logits", output)


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Each gradient is there, equal, and not zero."""
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, **SAME)
        assert grad.abs().max() > 0


@pytest.mark.parametrize("compiling", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("breaking", [False, True], ids=["whole", "broken"])
@pytest.mark.parametrize(
    ("reentrant", "when"), [(None, ""), (True, "before"), (True, "after"), (False, "before"), (False, "after")]
)
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo, where a graph ends
def test_gradients_equal_those_of_the_eager_model(graphs, reentrant, when, breaking, compiling):
    targets = {"target_modules": ["embed", "up", "down"]}
    reference = adapted(Plain(blocks=2), **targets).train()
    expected = trained(reference, reference)
    backbone = Plain(blocks=2, breaking=breaking)
    if when == "before":
        backbone.checkpoint(reentrant=reentrant)
    model = adapted(backbone, **targets).train()
    if when == "after":
        backbone.checkpoint(reentrant=reentrant)
    run = torch.compile(model, backend=graphs, fullgraph=not breaking) if compiling else model
    assert_same_gradients(trained(model, run), expected)
    if compiling and not breaking:
        assert graphs.frame_count == 2  # one style, one a row


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("reentrant", [True, False], ids=["reentrant", "not reentrant"])
def test_gradients_of_a_compiled_checkpointed_llama_equal_those_of_the_eager_one(graphs, reentrant):
    reference = adapted(llama()).train()
    expected = trained(reference, reference)
    model = adapted(llama()).train()
    backbone, options = model.get_base_model(), {"use_reentrant": reentrant}
    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
    next(getattr(backbone, name) for name in names if hasattr(backbone, name))(options)
    model.enable_input_require_grads()
    backbone.config.use_cache = False
    assert_same_gradients(trained(model, torch.compile(model, backend=graphs)), expected)


# Export, and torch.func


def exported(model: nn.Module, ids: Tensor) -> nn.Module:
    """The program of the model's logits for `ids`."""
    with torch.no_grad():
        return torch.export.export(model.eval(), (ids,), strict=False).module()


def test_an_exported_merged_model_has_its_style_for_good(ids):
    model = plain()
    expected = logits(model, ids, styles="kjv")
    with model.styled("kjv"):
        merged = model.merge_and_unload()
    torch.testing.assert_close(exported(merged, ids)(ids), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", ["kjv", STYLES, OFF], ids=str)
def test_an_exported_adapted_model_has_the_style_of_its_export_baked_in(ids, spec):
    model = plain()
    with model.styled(spec):
        program, expected = exported(model.get_base_model(), ids), logits(model, ids)
    torch.testing.assert_close(program(ids), expected, **SAME)
    with model.styled("pirate"):
        torch.testing.assert_close(program(ids), expected, **SAME)
        assert not torch.allclose(logits(model, ids), expected, **SAME)


def func_loss(model: nn.Module, ids: Tensor, spec: Any) -> Callable[[dict[str, Tensor]], Tensor]:
    """The loss as a function of the adapter's tensors."""
    frozen = {name: p.detach() for name, p in model.named_parameters() if not p.requires_grad}

    def loss(tensors: dict[str, Tensor]) -> Tensor:
        with styled(model, spec):
            output = torch.func.functional_call(model, {**frozen, **tensors}, (), {"input_ids": ids})
        return output.square().mean()

    return loss


@pytest.mark.parametrize("spec", ["kjv", STYLES], ids=str)
def test_functional_gradients_equal_autograds(ids, spec):
    model = plain().train()
    with model.styled(spec):
        model(input_ids=ids).square().mean().backward()
    tensors = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    found, expected = torch.func.grad(func_loss(model, ids, spec))(tensors), gradients(model)
    assert found.keys() == expected.keys()
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, **SAME)


def test_vmap_over_row_numbers_equals_each_style_alone(ids):
    model = plain()
    expected = torch.stack([logits(model, ids, styles=style) for style in STYLES])

    def one(row: Tensor) -> Tensor:
        code = model.styles.code("modern")
        code = type(code)(ids=row.expand(1, 1), weights=torch.ones(1, 1))
        return logits(model, ids, styles=code)

    torch.testing.assert_close(torch.vmap(one)(torch.arange(3)), expected, **SAME)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # inductor's own
def test_code_made_by_inductor_equals_eager_and_its_gradients_too(ids):
    found = []
    for compile_it in (False, True):
        model = adapted(llama()).train()
        run = torch.compile(model, fullgraph=True) if compile_it else model
        outputs = []
        for spec in ("kjv", STYLES, 0.5 * model.styles["pirate"]):
            with model.styled(spec):
                outputs.append(run(input_ids=ids, use_cache=False).logits)
        sum(output.square().mean() for output in outputs).backward()
        found.append({**gradients(model), **{str(i): output.detach() for i, output in enumerate(outputs)}})
    for name, expected in found[0].items():
        torch.testing.assert_close(found[1][name], expected, rtol=1e-4, atol=1e-5)
