"""Dialogue: one side's turns, each from all the turns before it.

The template, in token ids: every turn is the mark of who speaks, then its text; the assistant's turns end with
the tokenizer's first stop id, which is how a reply ends when it is written:

    <|user|> When does it open? <|assistant|> At ten. <|endoftext|> <|user|> Thanks!

The marks are the two ids after the tokenizer's own, so that no text can be taken for one. What is learned, and what the
loss counts, is the assistant's text and its end, nothing else: the marks are given to the model, not asked of
it.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from purelm.config import Config
from purelm.data.example_recipe import Recipe
from purelm.errors import UserError
from purelm.tasks import language_modeling
from purelm.tasks.learned_parts import collate, length

UNIT = "tokens"
ROLES = ("user", "assistant")

batch_shapes = language_modeling.batch_shapes
initialize = language_modeling.initialize
loss_sums = language_modeling.loss_sums


def turn_ids(tokenizer: Any, turns: Sequence[Mapping[str, str]]) -> list[np.ndarray]:
    """The ids of each turn as the template has them, int32.

    Raises UserError where the tokenizer has no end of text.
    """
    stop = tokenizer.special.stop[:1]
    if not stop:
        raise UserError("dialogue ends replies with the end-of-text token; set --config.data.end_of_text=true")
    found = []
    for turn, text_T in zip(turns, tokenizer.encode_batch([turn["text"] for turn in turns])):
        mark = tokenizer.vocabulary_size + ROLES.index(turn["speaker"])
        end = stop if turn["speaker"] == "assistant" else ()
        found.append(np.concatenate([[mark], text_T, end]).astype(np.int32))
    return found


def latest_that_fit(turns: Sequence[np.ndarray], room: int) -> list[np.ndarray]:
    """The last turns that fit `room` ids together; of a last turn that alone does not fit, its mark and its end."""
    kept: list[np.ndarray] = []
    for turn_T in reversed(turns):
        if len(turn_T) > room:
            break
        room -= len(turn_T)
        kept.insert(0, turn_T)
    if kept or not turns:
        return kept
    return [np.concatenate([turns[-1][:1], turns[-1][len(turns[-1]) - (room - 1):]])]


def prompt_ids(tokenizer: Any, turns: Sequence[Mapping[str, str]], room: int) -> np.ndarray:
    """int32 [T], T <= room: the turns so far, the latest that fit, and the mark after which the assistant speaks."""
    mark = tokenizer.vocabulary_size + ROLES.index("assistant")
    kept = latest_that_fit(turn_ids(tokenizer, turns), room - 1)
    return np.concatenate([*kept, [mark]]).astype(np.int32)


def encode(config: Config, tokenizer: Any, labels: None, examples: Sequence[Mapping[str, Any]],
           counts: collections.Counter) -> list[list[dict[str, np.ndarray]]]:
    """One record a dialogue up to its last reply: `ids`, and `learned`, 1 on those that the assistant says.

    A dialogue longer than the context keeps the latest turns that fit, one without a reply is left out; both are
    counted. Raises UserError as `turn_ids`.
    """
    rows = []
    for example in examples:
        turns = example["turns"]
        replies = [number for number, turn in enumerate(turns) if turn["speaker"] == "assistant"]
        if not replies:
            counts["dialogues without a reply, left out"] += 1
            rows.append([])
            continue
        whole = turn_ids(tokenizer, turns[:replies[-1] + 1])
        kept = latest_that_fit(whole, config.model.context_length + 1)
        counts["dialogues cut to the latest turns that fit"] += sum(map(len, kept)) < sum(map(len, whole))
        assistant = tokenizer.vocabulary_size + ROLES.index("assistant")
        learned = [(np.arange(len(turn_T)) > 0) & (turn_T[0] == assistant) for turn_T in kept]
        rows.append([{"ids": np.concatenate(kept), "learned": np.concatenate(learned).astype(np.int32)}])
    return rows


RECIPE = Recipe(
    format="turns", texts=lambda example: [turn["text"] for turn in example["turns"]], encode=encode, length=length,
    collate=collate, num_specials=len(ROLES), version=1, config_fields=("model.context_length",))


def prepare(config: Config, *, tokenizer: Any = None, labels: None = None, progress: Any = None) -> Any:
    """The data of `config` as records; see `data.examples.prepare_examples`."""
    from purelm.data.examples import prepare_examples

    return prepare_examples(config, RECIPE, tokenizer=tokenizer, labels=labels, progress=progress)
