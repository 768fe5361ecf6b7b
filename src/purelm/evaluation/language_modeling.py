"""Language modeling: how a text goes on. What a split is judged by is its loss, which needs no answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from purelm.config import Config
from purelm.evaluation.continuations import Progress, continue_prompts
from purelm.training.load import LoadedRun


def input_format(config: Config) -> str:
    """The format of new rows."""
    return "text"


def example_of_text(config: Config, text: str) -> dict[str, Any]:
    """What --text means: how a text begins."""
    return {"where": "--text", "text": text}


def predict(run: LoadedRun, examples: Sequence[Mapping[str, Any]], *, batch_size: int,
            progress: Progress | None = None) -> list[dict[str, Any]]:
    """How each text goes on, for decoding.max_new_tokens or to the end of the document, drawn as config.decoding says.

    Returns:
      `text`, what comes after the given one; `log_probability` (nats) and `probability` of it, and of the end where
      `ended`.

    Raises UserError for an empty text without end of text, or characters that the tokenizer does not know.
    """
    from purelm.inference import configured_sampler, encode_prompt
    from purelm.inference.prompts import plain_text

    config, tokenizer = run.config, run.tokenizer
    written = continue_prompts(
        config.model, run.params, [encode_prompt(tokenizer, example["text"]) for example in examples],
        max_new_tokens=config.decoding.max_new_tokens, sampler=configured_sampler(config.decoding), seed=config.seed,
        stop_id=tokenizer.special.stop, vocabulary_size=tokenizer.vocabulary_size, batch_size=batch_size,
        progress=progress)
    return [{"text": plain_text(tokenizer, one.ids_T), "log_probability": one.log_probability,
             "probability": math.exp(one.log_probability), "ended": one.stopped} for one in written]


def score(run: LoadedRun, examples: Sequence[Mapping[str, Any]],
          predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Nothing: continuations have no right answer."""
    return {}
