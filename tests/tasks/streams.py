"""A small token stream, as data.prepare gives it, without files."""

import numpy as np

from purelm.data import PreparedData, TokenSplit
from purelm.data.tokenizers import ByteTokenizer


def byte_stream(train=4000, validation=1001):
    """Prepared data of random bytes, a document every 50 tokens."""
    tokenizer, random, splits = ByteTokenizer(True), np.random.default_rng(0), {}
    for name, size in (("train", train), ("validation", validation)):
        tokens = random.integers(0, 256, size).astype(np.uint16)
        starts = np.arange(0, size - 1, 50)
        tokens[starts] = tokens[-1] = tokenizer.end_of_text_id
        splits[name] = TokenSplit(name, tokens, starts, size, len(starts))
    return PreparedData(tokenizer, splits, {}, 32)
