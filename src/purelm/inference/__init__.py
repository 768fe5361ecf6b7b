"""How a model answers: sampling and generation."""

from purelm.inference.decode import Generated, generate, window_start
from purelm.inference.prompts import decode_samples, encode_prompt, parse_prompt_ids, sample_ids, sample_text
from purelm.inference.sampling import Sampler

__all__ = ["Generated", "Sampler", "decode_samples", "encode_prompt", "generate", "parse_prompt_ids", "sample_ids",
           "sample_text", "window_start"]
