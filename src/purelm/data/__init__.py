"""Text becomes windows of tokens: sources, cleaning, splits, tokenizers, the cache, and the order of training."""

from __future__ import annotations

from purelm.data.packing import Batch, TokenSplit
from purelm.data.pipeline import batch_starts, evaluation_batches, training_batches
from purelm.data.preparation import PreparedData, describe, prepare
from purelm.data.tokenizers import Tokenizer, load_tokenizer

__all__ = ["Batch", "PreparedData", "TokenSplit", "Tokenizer", "batch_starts", "describe", "evaluation_batches",
           "load_tokenizer", "prepare", "training_batches"]
