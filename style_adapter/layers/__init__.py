"""The adapted layers: one class a kind of base layer, dispatched from a table, thin over `functional.py`."""

from .attention import StyleMultiheadAttention
from .conv import StyleConv
from .dispatch import layer_class
from .embedding import StyleEmbedding
from .fused import fuse_again, keep_unfused
from .layer import StyleLayer
from .linear import StyleLinear
from .packed import keep_unpacked
from .parameter import ParamWrapper

__all__ = [
    "ParamWrapper",
    "StyleConv",
    "StyleEmbedding",
    "StyleLayer",
    "StyleLinear",
    "StyleMultiheadAttention",
    "fuse_again",
    "keep_unfused",
    "keep_unpacked",
    "layer_class",
]
