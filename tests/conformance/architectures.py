"""Tiny random models, one an architecture, and what the operations need to know about each."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers as hf
from torch import Tensor, nn

VOCAB, WIDTH, ROWS, LENGTH = 31, 16, 3, 5
FRAMES, MELS, PIXELS = 16, 4, 8

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """One architecture.

    Attributes:
        name: Its name in the case ids.
        build: Makes the model with random weights.
        inputs: Inputs of so many rows; row i is the same whatever the number of rows.
        targets: Names of Linear (or Conv1D) layers to adapt where a list is asked for.
        blocks: Name of the list of blocks, for `layers_to_transform`.
        read: The tensor [rows, ...] to compare, from the model's output.
        task: PEFT's task type, where the architecture has one.
        head: A module to train and save whole.
        embedding: Name of a word embedding, and of a convolution: further kinds of layers to adapt.
        conv: See `embedding`.
        parameters: Names of stacked experts, for `target_parameters`.
        uncalled: Layers whose weights are read without a call, so that no adapter of theirs would ever run.
        traits: What it can do: "transformers", "causal", "seq2seq", "tied", "checkpointing", "static", "assisted",
            "padding",
            "resize".
    """

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    targets: tuple[str, ...]
    blocks: str
    read: Callable[[Any], Tensor] = lambda output: output.logits
    task: str | None = None
    head: str | None = None
    embedding: str | None = None
    conv: str | None = None
    parameters: tuple[str, ...] = ()
    uncalled: tuple[str, ...] = ()
    traits: frozenset[str] = field(default_factory=frozenset)

    @property
    def generates(self) -> bool:
        """Whether it has a `generate`."""
        return bool({"causal", "seq2seq"} & self.traits)

    def base(self) -> nn.Module:
        """A copy of the model, the same weights each time, in eval mode."""
        return copy.deepcopy(_made(self))

    def run(self, model: nn.Module, inputs: Inputs | None = None, **options: Any) -> Tensor:
        """What the model says about the inputs (the architecture's own where none are given), detached."""
        with torch.no_grad(), _frozen(model):
            return self.read(model(**(inputs or self.inputs(ROWS)), **options))


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter asks for a gradient: where one does, torch adds up some products in another order."""
    asking = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)


_MADE: dict[str, nn.Module] = {}


def _made(architecture: Architecture) -> nn.Module:
    """The model, made once a session; weights larger than usual, so that no output is nearly constant."""
    if architecture.name not in _MADE:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = architecture.build().eval()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.25, generator=generator)
        _MADE[architecture.name] = model
    return _MADE[architecture.name]


def _draw(seed: int, *shape: int) -> Tensor:
    """Random numbers [rows, ...] of which row i does not depend on the number of rows."""
    rows = [torch.randn(shape[1:], generator=torch.Generator().manual_seed(100 * seed + i)) for i in range(shape[0])]
    return torch.stack(rows)


def _ids(seed: int, rows: int, length: int = LENGTH) -> Tensor:
    """Token ids [rows, length] without special ones."""
    return ((_draw(seed, rows, length).abs() * 1000).long() % (VOCAB - 4)) + 3


def _text(rows: int) -> Inputs:
    return {"input_ids": _ids(0, rows), "attention_mask": torch.ones(rows, LENGTH, dtype=torch.long)}


def _text_to_text(rows: int) -> Inputs:
    return {**_text(rows), "decoder_input_ids": _ids(1, rows, LENGTH - 1)}


def _speech(rows: int) -> Inputs:
    return {"input_features": _draw(2, rows, MELS, 2 * FRAMES), "decoder_input_ids": _ids(1, rows, LENGTH - 1)}


def _image(rows: int) -> Inputs:
    return {"pixel_values": _draw(3, rows, 3, PIXELS, PIXELS)}


def _text_and_image(rows: int) -> Inputs:
    return {**_text(rows), **_image(rows)}


def _answer_span(output: Any) -> Tensor:
    return torch.stack([output.start_logits, output.end_logits], dim=-1)


def _embeds(output: Any) -> Tensor:
    return torch.cat([output.text_embeds, output.image_embeds], dim=-1)


class ConvNet(nn.Module):
    """Two blocks of a convolution of 1, 2 or 3 dimensions and a linear layer over channels; three classes."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        block = {"conv": conv(4, 4, 3, padding=1), "mix": nn.Linear(4, 4)}
        self.stem = conv(2, 4, 3, stride=2)
        self.body = nn.ModuleDict({"blocks": nn.ModuleList(nn.ModuleDict(copy.deepcopy(block)) for _ in range(2))})
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, 2, ...] -> [rows, 3]."""
        x = self.stem(x)
        for block in self.body["blocks"]:
            x = x + torch.tanh(block["conv"](x))
            x = x + block["mix"](x.movedim(1, -1)).movedim(-1, 1).relu()
        return self.head(x.flatten(2).mean(dim=-1))


class TorchAttention(nn.Module):
    """Two blocks of torch's own MultiheadAttention and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        block = {"attention": nn.MultiheadAttention(WIDTH, 2, batch_first=True), "mix": nn.Linear(WIDTH, WIDTH)}
        self.body = nn.ModuleDict({"blocks": nn.ModuleList(nn.ModuleDict(copy.deepcopy(block)) for _ in range(2))})
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[rows, LENGTH, WIDTH] -> [rows, 3]."""
        for block in self.body["blocks"]:
            x = x + block["attention"](x, x, x, need_weights=False)[0]
            x = x + block["mix"](x).tanh()
        return self.head(x.mean(dim=1))


_TOKENS = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
_ROPE = _TOKENS | _SIZES | {"num_key_value_heads": 1, "max_position_embeddings": 64, "head_dim": 8}
_BERT = _TOKENS | _SIZES | {"max_position_embeddings": 64, "num_labels": 3}
_BERT |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_SIDES = {
    f"{side}_{name}": n
    for side in ("encoder", "decoder")
    for name, n in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 24))
}
_STILL = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
_PIXELS = {"image_size": PIXELS, "patch_size": 4}


def _model(cls: str, config: str, *options: Mapping[str, Any], **more: Any) -> Callable[[], nn.Module]:
    """Makes transformers' `cls` from `config` with the merged options."""
    merged = {key: value for part in (*options, more) for key, value in part.items()}
    return lambda: getattr(hf, cls)(getattr(hf, config)(**merged))


def _clip() -> nn.Module:
    text = {**_TOKENS, **_SIZES, "max_position_embeddings": 16, "attention_dropout": 0.0}
    vision = {**_SIZES, **_PIXELS, "attention_dropout": 0.0}
    return hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))


_DECODER = frozenset({"transformers", "causal", "checkpointing", "static", "assisted", "padding", "resize"})
_SEQ2SEQ = frozenset({"transformers", "seq2seq", "checkpointing", "padding", "resize"})
_ENCODER = frozenset({"transformers", "checkpointing", "resize"})


def _causal(name: str, build: Callable[[], nn.Module], targets: str, **more: Any) -> Architecture:
    """A decoder with a head over the vocabulary."""
    given = {"blocks": "layers", "embedding": "embed_tokens", "head": "lm_head", "traits": _DECODER} | more
    return Architecture(name, build, _text, tuple(targets.split()), task="CAUSAL_LM", **given)


_QV = "q_proj v_proj"
ARCHITECTURES: tuple[Architecture, ...] = (
    _causal("llama", _model("LlamaForCausalLM", "LlamaConfig", _ROPE), _QV),
    _causal("mistral", _model("MistralForCausalLM", "MistralConfig", _ROPE, sliding_window=None), _QV + " down_proj"),
    _causal("qwen3", _model("Qwen3ForCausalLM", "Qwen3Config", _ROPE), "q_proj o_proj"),
    _causal(
        "mixtral",
        _model("MixtralForCausalLM", "MixtralConfig", _ROPE, num_local_experts=4, num_experts_per_tok=2),
        _QV,
        parameters=("mlp.experts.gate_up_proj", "mlp.experts.down_proj"),
    ),
    _causal(
        "gemma3",
        _model("Gemma3ForCausalLM", "Gemma3TextConfig", _ROPE, layer_types=["full_attention"] * 2),
        "k_proj up_proj",
        traits=_DECODER | {"tied"},
    ),
    _causal("phi", _model("PhiForCausalLM", "PhiConfig", _ROPE, resid_pdrop=0.0), "q_proj dense fc1"),
    _causal(
        "gpt2",
        _model(
            "GPT2LMHeadModel",
            "GPT2Config",
            _TOKENS,
            n_embd=WIDTH,
            n_layer=2,
            n_head=2,
            n_positions=64,
            attn_pdrop=0.0,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
        ),
        "c_attn c_fc",
        blocks="h",
        embedding="wte",
        traits=_DECODER | {"tied"},
    ),
    _causal(
        "opt",
        _model(
            "OPTForCausalLM",
            "OPTConfig",
            _TOKENS,
            _SIZES,
            _STILL,
            ffn_dim=24,
            word_embed_proj_dim=WIDTH,
            max_position_embeddings=64,
        ),
        "q_proj out_proj",
        traits=_DECODER | {"tied"},
    ),
    _causal(
        "bloom",
        _model(
            "BloomForCausalLM",
            "BloomConfig",
            _TOKENS,
            hidden_size=WIDTH,
            n_layer=2,
            n_head=2,
            hidden_dropout=0.0,
            attention_dropout=0.0,
        ),
        "query_key_value dense_h_to_4h",
        blocks="h",
        embedding="word_embeddings",
        traits=_DECODER | {"tied"},
    ),
    _causal(
        "gpt_neox",
        _model(
            "GPTNeoXForCausalLM",
            "GPTNeoXConfig",
            _TOKENS,
            _SIZES,
            max_position_embeddings=64,
            hidden_dropout=0.0,
            attention_dropout=0.0,
        ),
        "query_key_value dense_4h_to_h",
        embedding="embed_in",
    ),
    _causal(
        "mamba",
        _model(
            "MambaForCausalLM",
            "MambaConfig",
            _TOKENS,
            hidden_size=WIDTH,
            num_hidden_layers=2,
            state_size=4,
            use_mambapy=False,
        ),
        "in_proj x_proj",
        embedding="embeddings",
        conv="conv1d",
        uncalled=("conv1d", "dt_proj", "out_proj"),
        traits=_DECODER - {"static", "assisted", "padding"} | {"tied"},
    ),
    Architecture(
        "t5",
        _model(
            "T5ForConditionalGeneration",
            "T5Config",
            _TOKENS,
            d_model=WIDTH,
            d_kv=8,
            d_ff=24,
            num_layers=2,
            num_heads=2,
            dropout_rate=0.0,
            decoder_start_token_id=0,
        ),
        _text_to_text,
        ("q", "wo"),
        "block",
        task="SEQ_2_SEQ_LM",
        embedding="embed_tokens",
        head="lm_head",
        traits=_SEQ2SEQ | {"tied"},
    ),
    Architecture(
        "bart",
        _model(
            "BartForConditionalGeneration",
            "BartConfig",
            _TOKENS,
            _SIDES,
            _STILL,
            d_model=WIDTH,
            max_position_embeddings=64,
            decoder_start_token_id=2,
        ),
        _text_to_text,
        ("q_proj", "fc2"),
        "layers",
        task="SEQ_2_SEQ_LM",
        embedding="embed_tokens",
        head="lm_head",
        traits=_SEQ2SEQ | {"tied"},
    ),
    Architecture(
        "bert",
        _model("BertForSequenceClassification", "BertConfig", _BERT),
        _text,
        ("query", "value"),
        "layer",
        task="SEQ_CLS",
        head="classifier",
        embedding="word_embeddings",
        traits=_ENCODER,
    ),
    Architecture(
        "roberta",
        _model("RobertaForTokenClassification", "RobertaConfig", _BERT),
        _text,
        ("query", "dense"),
        "layer",
        task="TOKEN_CLS",
        head="classifier",
        embedding="word_embeddings",
        traits=_ENCODER,
    ),
    Architecture(
        "deberta",
        _model(
            "DebertaV2ForQuestionAnswering",
            "DebertaV2Config",
            _BERT,
            relative_attention=True,
            position_buckets=4,
            share_att_key=True,
            pos_att_type=["p2c", "c2p"],
            num_labels=2,
        ),
        _text,
        ("query_proj", "value_proj"),
        "layer",
        _answer_span,
        task="QUESTION_ANS",
        head="qa_outputs",
        embedding="word_embeddings",
        traits=_ENCODER,
    ),
    Architecture(
        "vit",
        _model(
            "ViTForImageClassification",
            "ViTConfig",
            _SIZES,
            _PIXELS,
            num_labels=3,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        _image,
        ("q_proj", "v_proj"),
        "layers",
        head="classifier",
        conv="projection",
        traits=frozenset({"transformers", "checkpointing"}),
    ),
    Architecture(
        "clip",
        _clip,
        _text_and_image,
        ("q_proj", "fc1"),
        "layers",
        _embeds,
        head="text_projection",
        embedding="token_embedding",
        conv="patch_embedding",
        traits=frozenset({"transformers", "checkpointing"}),
    ),
    Architecture(
        "whisper",
        _model(
            "WhisperForConditionalGeneration",
            "WhisperConfig",
            _TOKENS,
            _SIDES,
            _STILL,
            d_model=WIDTH,
            num_mel_bins=MELS,
            max_source_positions=FRAMES,
            max_target_positions=24,
            decoder_start_token_id=1,
            suppress_tokens=None,
            begin_suppress_tokens=None,
        ),
        _speech,
        ("q_proj", "v_proj"),
        "layers",
        head="proj_out",
        embedding="embed_tokens",
        conv="conv1",
        traits=frozenset({"transformers", "seq2seq", "checkpointing", "resize", "tied"}),
    ),
    *(
        Architecture(
            f"conv{dims}d",
            lambda dims=dims: ConvNet(dims),
            lambda rows, dims=dims: {"x": _draw(4, rows, 2, *[5] * dims)},
            ("mix",),
            "blocks",
            lambda output: output,
            head="head",
            conv="conv",
        )
        for dims in (1, 2, 3)
    ),
    Architecture(
        "torch_attention",
        TorchAttention,
        lambda rows: {"x": _draw(5, rows, LENGTH, WIDTH)},
        ("mix",),
        "blocks",
        lambda output: output,
        head="head",
    ),
)
