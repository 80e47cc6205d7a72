"""A module with other values in place of its parameters, for one call: the module itself stays as it is."""

from collections.abc import Mapping

from torch import Tensor, nn


def with_parameters(module: nn.Module, values: Mapping[str, Tensor]) -> nn.Module:
    """A twin of `module` that shares all but the parameters named in `values`: other threads go on with the module."""
    twin = object.__new__(type(module))
    twin.__dict__.update(module.__dict__, _parameters={**module._parameters, **values})
    return twin
