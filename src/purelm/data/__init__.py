"""Text becomes windows of tokens: sources, cleaning, splits, tokenizers, the cache, and the order of training."""

from __future__ import annotations

from purelm.data.packing import Batch, TokenSplit
from purelm.data.pipeline import evaluation_batches, training_batches, window_numbers
from purelm.data.preparation import PreparedData, describe, prepare
from purelm.data.tokenizers import Tokenizer, load_tokenizer

__all__ = ["Batch", "PreparedData", "TokenSplit", "Tokenizer", "describe", "evaluation_batches", "load_tokenizer",
           "prepare", "training_batches", "window_numbers"]
