"""Known differences, each with its reason: nothing else may fail, and what is listed here must fail.

Keys are (operation, architecture); "*" stands for every architecture.
"""

from typing import NamedTuple

import pytest


class Known(NamedTuple):
    """The error that is raised, and why."""

    error: type[BaseException]
    reason: str


_SCALE = Known(ValueError, "PEFT scales LoRA's layers only; a style has a strength: 0.5 * bank['formal'].")
_COMBINE = Known(ValueError, "A LoRA method of PEFT; styles of one adapter mix exactly: 0.7 * one + 0.3 * two.")
_SWAP = Known(ValueError, "PEFT swaps LoRA's tensors only; load_adapter and set_adapter, or one more style, do it.")
_MIXED = Known(ValueError, "PEFT's mixed models are closed to methods it does not know itself.")
_SHARED = Known(ValueError, "DeBERTa's projections also read the relative positions, which all rows share.")
_STRIDE = Known(AttributeError, "Whisper asks its convolution for its stride, which LoRA's layer does not show.")
_DEPTHWISE = Known(ValueError, "Mamba reads conv1d.weight and never calls the layer; PEFT refuses it too.")

_CONVOLVED = (
    "a_convolution_starts_at_the_base_and_trains",
    "an_adapted_convolution_travels",
    "an_adapted_convolution_merges",
)
_CONVOLVED_ROWS = "convolved_rows_in_their_styles_equal_the_rows_alone"

# What LoRA can do and a style adapter cannot, and what a style adapter should do alone and cannot.
DIFFERENCES: dict[tuple[str, str], Known] = {
    ("the_scale_is_changed_inside_a_block", "*"): _SCALE,
    ("two_adapters_combine_to_a_third", "*"): _COMBINE,
    ("an_adapter_is_swapped_in_place", "*"): _SWAP,
    ("adapters_of_several_methods_mix", "*"): _MIXED,
    ("rows_name_their_adapters", "deberta"): _SHARED,
    ("rows_in_their_styles_equal_the_rows_alone", "deberta"): _SHARED,
    ("rows_equal_the_rows_alone_with_every_linear_layer", "deberta"): _SHARED,
    ("strength_zero_in_each_row_is_the_base", "deberta"): _SHARED,
    ("checkpointing_sees_the_rows_styles", "deberta"): _SHARED,
    ("reentrant_checkpointing_sees_the_rows_styles", "deberta"): _SHARED,
    **{(operation, "mamba"): _DEPTHWISE for operation in (*_CONVOLVED, _CONVOLVED_ROWS)},
}

_MAMBA = Known(ValueError, "PEFT refuses the layers of Mamba whose weights are read without a call.")
_STACKED = Known(RuntimeWarning, "PEFT reads all-linear as the stacked experts too, and warns of its own patterns.")
_ENDS = Known(AssertionError, "PEFT reads a regular expression on this model as the ends of the names it matches.")
_DEFAULTS = Known(
    ValueError, "PEFT makes an empty list of no targets on this model, before its defaults are looked up."
)
_HEAD = Known(KeyError, "PEFT's swap does not know a head that is saved whole.")

# What LoRA itself cannot do; a style adapter may.
CONTROL: dict[tuple[str, str], Known] = {
    ("layers_that_are_never_called_are_refused", "mamba"): Known(
        pytest.fail.Exception, "PEFT lets LoRA adapt dt_proj, to no effect."
    ),
    ("targets_left_out_are_pefts_own", "mixtral"): _DEFAULTS,
    ("all_linear_is_every_linear_layer_but_the_head", "mixtral"): _STACKED,
    ("every_linear_layer_trains", "mixtral"): _STACKED,
    ("targets_by_a_regular_expression_are_the_full_matches", "mixtral"): _ENDS,
    **{(operation, "mamba"): _MAMBA for operation in _CONVOLVED},
    **{(operation, "whisper"): _STRIDE for operation in _CONVOLVED},
    **{("an_adapter_is_swapped_in_place", name): _HEAD for name in ("bert", "roberta", "deberta")},
    ("adapters_of_several_methods_mix", "gpt2"): Known(TypeError, "LoHa does not adapt transformers' Conv1D."),
    ("rows_name_their_adapters", "deberta"): _SHARED,
}
