"""What is computed: one Transformer stack with switches, as a pure function of (parameters, tokens)."""

from purelm.models.cache import Cache, init_cache, take_cache_rows
from purelm.models.counting import (
    cache_bytes,
    count_parameters,
    flops_per_token,
    forward_flops_per_token,
    parameter_shapes,
)
from purelm.models.make import make_model
from purelm.models.paged_cache import PagedCache, init_pages
from purelm.models.stack import unstack_layers
from purelm.models.transformer import Encoded, Output, Transformer

__all__ = [
    "Cache", "Encoded", "Output", "PagedCache", "Transformer", "cache_bytes", "count_parameters", "flops_per_token",
    "forward_flops_per_token", "init_cache", "init_pages", "make_model", "parameter_shapes", "take_cache_rows",
    "unstack_layers",
]
