"""Text becomes windows of tokens, and examples records: sources, cleaning, splits, tokenizers, cache, and order."""

from __future__ import annotations

from purelm.data.examples import ExampleSplit, PreparedExamples, Recipe, prepare_examples
from purelm.data.packing import Batch, TokenSplit
from purelm.data.pipeline import batch_starts, evaluation_batches, training_batches
from purelm.data.preparation import PreparedData, describe, prepare
from purelm.data.tokenizers import Tokenizer, load_tokenizer

__all__ = ["Batch", "ExampleSplit", "PreparedData", "PreparedExamples", "Recipe", "TokenSplit", "Tokenizer",
           "batch_starts", "describe", "evaluation_batches", "load_tokenizer", "prepare", "prepare_examples",
           "training_batches"]
