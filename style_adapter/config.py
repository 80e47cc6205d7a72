"""What is configured: every option once, with the help line that the CLI and the docs repeat."""

import os
import re
from dataclasses import dataclass, field

from peft import PeftConfig

from ._peft import STYLE_ADAPTER

NOISE_TYPES = ("gaussian", "uniform", "none")
FORMAT_VERSION = 1  # of the adapter's files; raised by a change that an older release would read wrongly
STARTS = (True, False, "orthogonal", "pissa")

# PEFT's name of the head of each task that writes no text; those that do keep the language model's own. For masked
# language models PEFT has none.
HEADS = {"classification": "SEQ_CLS", "token_classification": "TOKEN_CLS", "masked_lm": "MASKED_LM"}
TASK_OF_HEAD = {head: task for task, head in HEADS.items()}


@dataclass
class StyleAdapterConfig(PeftConfig):
    """Configuration of a style adapter: h = W x + (alpha / r) * B diag(g) A x, with the gate g made by the style.

    `StyleAdapterConfig()` alone has one style, `"default"`, and is a LoRA. It travels whole: together with the
    adapter's weights it rebuilds the model, its styles and the prompt, with no other argument.

    Raises:
        ValueError: An option is out of its bounds; the message names the option, the bound and the remedy.

    Example:
        >>> config = StyleAdapterConfig(styles=["modern", "kjv"], r=16, target_modules="all-linear")
        >>> config.default_style
        'modern'
    """

    r: int = field(default=16, metadata={"help": "Rank of the update that all styles share, at least 1."})
    alpha: float = field(default=16.0, metadata={"help": "Numerator of the scaling alpha / r."})
    dropout: float = field(default=0.0, metadata={"help": "Dropout on the input of A, in [0, 1), as in LoRA."})
    styles: list[str] = field(
        default_factory=lambda: ["default"], metadata={"help": "Names of the styles, in the order of their rows."}
    )
    default_style: str | None = field(
        default=None, metadata={"help": "Style in force where none is given; the first of `styles` if left out."}
    )
    style_dim: int = field(
        default=0, metadata={"help": "Width of the style features f; 0 for styles that have names only."}
    )
    noise_dim: int = field(default=0, metadata={"help": "Width of the noise z; 0 for none."})
    noise_type: str = field(
        default="gaussian", metadata={"help": "Distribution of the noise z: gaussian, uniform (in [-1, 1]) or none."}
    )
    target_modules: list[str] | set[str] | str | None = field(
        default=None,
        metadata={
            "help": "Modules to adapt: names, a regular expression or 'all-linear'; if left out, 'all-linear' in a "
            "recipe and PEFT's choice elsewhere."
        },
    )
    target_parameters: list[str] | None = field(
        default=None,
        metadata={
            "help": "Parameters to adapt by the end of their name, such as experts that are stacked in one tensor "
            "('mlp.experts.down_proj'); a batch has one style then."
        },
    )
    exclude_modules: list[str] | set[str] | str | None = field(
        default=None, metadata={"help": "Modules to leave out: names or a regular expression."}
    )
    layers_to_transform: list[int] | int | None = field(
        default=None, metadata={"help": "Indices of the blocks to adapt; all if left out."}
    )
    layers_pattern: list[str] | str | None = field(
        default=None, metadata={"help": "Name of the list of blocks, where `layers_to_transform` cannot find it."}
    )
    rank_pattern: dict[str, int] = field(
        default_factory=dict, metadata={"help": "Other ranks by module name or regular expression."}
    )
    alpha_pattern: dict[str, float] = field(
        default_factory=dict, metadata={"help": "Other alphas by module name or regular expression."}
    )
    bias: str = field(
        default="none", metadata={"help": "Biases to train: none, all or style_adapter_only (those of adapted layers)."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules trained and saved whole beside the adapter, such as a new head."}
    )
    init_weights: bool | str = field(
        default=True,
        metadata={
            "help": "True starts at the frozen backbone (B = 0), so do 'orthogonal' (B A = 0) and 'pissa' (the base "
            "weight's principal directions, gates 0); False draws all at random."
        },
    )
    trainable: str = field(
        default="adapter",
        metadata={
            "help": "What trains: 'adapter'; 'top:N', adapters in the last N blocks only; or 'all', the backbone too, "
            "which is then saved with the adapter."
        },
    )
    use_rslora: bool = field(default=False, metadata={"help": "Scale by alpha / sqrt(r) instead of alpha / r."})
    prompt: str = field(
        default="{source}\n", metadata={"help": "Prompt around the source text, kept so that inference repeats it."}
    )
    format_version: int = field(
        default=FORMAT_VERSION, metadata={"help": "Version of the adapter's files, filled in by the library."}
    )

    def __post_init__(self) -> None:
        """Checks every option, fills in the default style and the PEFT type."""
        super().__post_init__()
        self.peft_type = STYLE_ADAPTER
        check_format_version(self.format_version, "the adapter's config")
        self.format_version = FORMAT_VERSION  # what is saved again is saved in the present form
        self._check_numbers()
        self._check_styles()
        self._check_modules()
        self.default_style = self.default_style or self.styles[0]
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # as PEFT keeps it
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)

    def _check_numbers(self) -> None:
        """Bounds of the numeric options."""
        for name, low in (("r", 1), ("style_dim", 0), ("noise_dim", 0)):
            if (value := getattr(self, name)) < low:
                raise ValueError(f"{name}={value} must be >= {low}; set {name} in StyleAdapterConfig")
        for pattern, rank in self.rank_pattern.items():
            if rank < 1:
                raise ValueError(f"rank_pattern[{pattern!r}]={rank} must be >= 1; correct it in StyleAdapterConfig")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout={self.dropout} must be in [0, 1); set dropout in StyleAdapterConfig")
        if self.noise_type not in NOISE_TYPES:
            known = ", ".join(NOISE_TYPES)
            raise ValueError(
                f"noise_type={self.noise_type!r} must be one of {known}; set noise_type in StyleAdapterConfig"
            )

        if self.init_weights not in STARTS:
            raise ValueError(
                f"init_weights={self.init_weights!r} must be one of {STARTS}; set init_weights in StyleAdapterConfig"
            )

    def _check_styles(self) -> None:
        """Names of styles: at least one, unique, usable as file names."""
        if isinstance(self.styles, str) or not self.styles:
            raise ValueError(
                f"styles={self.styles!r} must be a list of at least one name, such as ['formal', 'casual']"
            )
        for name in self.styles:
            _check_style_name(name)
        if len(set(self.styles)) < len(self.styles):
            raise ValueError(f"styles={self.styles} must be unique; remove the repeated names")
        if self.default_style is not None and self.default_style not in self.styles:
            raise ValueError(
                f"default_style={self.default_style!r} must be one of styles={self.styles}; choose one or leave it out"
            )

    def _check_modules(self) -> None:
        """Options that name modules of the backbone."""
        if self.bias not in ("none", "all", "style_adapter_only"):
            raise ValueError(
                f"bias={self.bias!r} must be one of none, all, style_adapter_only; set bias in StyleAdapterConfig"
            )
        if not re.fullmatch(r"adapter|all|top:[1-9]\d*", self.trainable):
            raise ValueError(
                f"trainable={self.trainable!r} must be 'adapter', 'all' or 'top:N' with N >= 1; set trainable in "
                "StyleAdapterConfig"
            )
        if isinstance(self.target_modules, str) and self.layers_to_transform is not None:
            raise ValueError(
                f"layers_to_transform={self.layers_to_transform} must not be set where target_modules is the one "
                f"string {self.target_modules!r}; give target_modules as a list"
            )
        if self.layers_pattern is not None and self.layers_to_transform is None:
            raise ValueError(
                f"layers_pattern={self.layers_pattern!r} must come with layers_to_transform; set the block indices too"
            )
        if "{source}" not in self.prompt:
            raise ValueError(f"prompt={self.prompt!r} must contain {{source}}; add it where the text belongs")


def check_format_version(version: int, where: str) -> None:
    """Refuses files of a later form, which this release would read wrongly.

    Raises:
        ValueError: `version` is above `FORMAT_VERSION`.
    """
    if version > FORMAT_VERSION:
        raise ValueError(
            f"{where} has format_version={version}, which must be <= {FORMAT_VERSION} here; a newer style_adapter "
            "wrote it: pip install --upgrade style_adapter"
        )


def _check_style_name(name: str) -> None:
    """Refuses names that cannot be a row's label, a folder's name and a word of the mixing language at once."""
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"styles: {name!r} must be a non-empty string; name each style")
    if os.sep in name or "/" in name or "\\" in name or name in (".", ".."):
        raise ValueError(f"styles: {name!r} must not contain a path separator; exports are folders named by style")
