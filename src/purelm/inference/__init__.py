"""How a model answers: sampling and generation."""

from purelm.inference.contrastive_search import contrastive_search
from purelm.inference.decode import Generated, Reason, generate, window_start
from purelm.inference.prompts import (
    configured_sampler,
    decode_samples,
    encode_prompt,
    parse_prompt_ids,
    sample_ids,
    sample_text,
)
from purelm.inference.sampling import Sampler

__all__ = ["Generated", "Reason", "Sampler", "configured_sampler", "contrastive_search", "decode_samples",
           "encode_prompt", "generate", "parse_prompt_ids", "sample_ids", "sample_text", "window_start"]
