"""Random changes of training texts, on their token ids, anew in each epoch."""

from __future__ import annotations

from purelm.config import Config
from purelm.data.example_recipe import Recipe, Record
from purelm.data.tokenizers import Tokenizer


class Augmenter:
    lengthens = False

    def __init__(self, config: Config, tokenizer: Tokenizer, recipe: Recipe):
        pass

    def __call__(self, record: Record, epoch: int, number: int) -> Record:
        return record
