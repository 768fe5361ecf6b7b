"""Random changes of training texts, on their token ids, drawn anew for each record and epoch.

    word_dropout      each word becomes one blank (Bowman et al. 2016, arXiv 1511.06349, section 3.2)
    word_deletion     each word is left out (EDA: Wei & Zou 2019, arXiv 1901.11196)
    word_swap         strength x words times, two words change places (EDA)
    word_duplication  each word is said twice, in place of EDA's insertion, which needs a list of synonyms
    token_masking     each token becomes a blank

`config.data.augmentation` lists steps as "name" or "name:strength"; the strength is a probability, 0.1 by default
(EDA's alpha). The blank is "<unk>" of the tokenizer "words", else the end-of-text token. A word is a token that begins
with white space or with a character of a script that is written without spaces, and the tokens up to the next such; of
the tokenizers "words" and "characters", each token. Tokens that stand for no text (end of text, a task's own) stay
where they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from purelm.config import Config
from purelm.data.example_recipe import Recipe, Record
from purelm.data.tokenizers import Tokenizer
from purelm.errors import UserError, did_you_mean

DEFAULT_STRENGTH = 0.1
_PURPOSE = 2  # example_batches has 1.
# First bytes, in UTF-8, of U+3000 to U+9FFF: kana, Han and their punctuation.
_UNSPACED = range(0xE3, 0xEA)


@dataclasses.dataclass(frozen=True)
class Words:
    """A text as words: word w has ids[starts[w]:stops[w]]; `fixed` marks those that stand for no text."""

    ids: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    fixed: np.ndarray

    @property
    def word_of(self) -> np.ndarray:
        """The word of each token."""
        return np.repeat(np.arange(len(self.starts)), self.stops - self.starts)

    def take(self, order: np.ndarray) -> np.ndarray:
        """The ids of the words with these numbers, in this order."""
        sizes = (self.stops - self.starts)[order]
        ends = np.cumsum(sizes)
        return self.ids[np.repeat(self.starts[order] - ends + sizes, sizes) + np.arange(ends[-1] if len(ends) else 0)]


def word_dropout(words: Words, strength: float, blank: int, generator: np.random.Generator) -> np.ndarray:
    chosen = (generator.random(len(words.starts)) < strength) & ~words.fixed
    chosen_tokens = chosen[words.word_of]
    first = np.zeros(len(words.ids), bool)
    first[words.starts] = True
    return np.where(chosen_tokens, blank, words.ids)[~chosen_tokens | first]


def word_deletion(words: Words, strength: float, blank: int, generator: np.random.Generator) -> np.ndarray:
    """At least one word stays."""
    kept = (generator.random(len(words.starts)) >= strength) | words.fixed
    free = np.flatnonzero(~words.fixed)
    if len(free) and not kept[free].any():
        kept[generator.choice(free)] = True
    return words.ids[kept[words.word_of]]


def word_swap(words: Words, strength: float, blank: int, generator: np.random.Generator) -> np.ndarray:
    free = np.flatnonzero(~words.fixed)
    order = np.arange(len(words.starts))
    if len(free) > 1:
        for _ in range(max(1, round(strength * len(free)))):
            first, second = generator.choice(free, 2, replace=False)
            order[[first, second]] = order[[second, first]]
    return words.take(order)


def word_duplication(words: Words, strength: float, blank: int, generator: np.random.Generator) -> np.ndarray:
    twice = (generator.random(len(words.starts)) < strength) & ~words.fixed
    return words.take(np.repeat(np.arange(len(words.starts)), 1 + twice))


def token_masking(words: Words, strength: float, blank: int, generator: np.random.Generator) -> np.ndarray:
    chosen = (generator.random(len(words.ids)) < strength) & ~words.fixed[words.word_of]
    return np.where(chosen, blank, words.ids)


STEPS: dict[str, Callable[[Words, float, int, np.random.Generator], np.ndarray]] = {
    "word_dropout": word_dropout, "word_deletion": word_deletion, "word_swap": word_swap,
    "word_duplication": word_duplication, "token_masking": token_masking}
_LENGTHENING = ("word_duplication",)
_BLANKING = ("word_dropout", "token_masking")


def parse_steps(steps: tuple[str, ...]) -> list[tuple[str, float]]:
    """[(name, strength)]; UserError for a name that is no step or a strength that is not above 0 and at most 1."""
    found = []
    for step in steps:
        name, _, strength = step.partition(":")
        if name not in STEPS:
            raise UserError(f"config.data.augmentation: no step '{name}'{did_you_mean(name, STEPS)}")
        try:
            value = float(strength) if ":" in step else DEFAULT_STRENGTH
        except ValueError:
            value = 0.0
        if not 0 < value <= 1:
            raise UserError(f"config.data.augmentation: '{step}': the strength must be a number above 0 and at most 1, "
                            f"as in '{name}:{DEFAULT_STRENGTH}'")
        found.append((name, value))
    return found


class Augmenter:
    """Changes the fields of records that the recipe names, by the steps of config.data.augmentation in order.

    A function of (config.seed, epoch, record number) alone. A sequence never becomes empty, and a step that would make
    a record longer than the context is left out for that record.

    Attributes:
        lengthens: whether a record may become longer.

    Raises UserError for steps that do not exist, a task with nothing to change, or a tokenizer without a blank.
    """

    def __init__(self, config: Config, tokenizer: Tokenizer, recipe: Recipe):
        self._steps = parse_steps(config.data.augmentation)
        self.lengthens = any(name in _LENGTHENING for name, _ in self._steps)
        self._seed, self._longest, self._recipe = config.seed, config.model.context_length, recipe
        if not self._steps:
            return
        if not recipe.augmented:
            raise UserError(f"config.data.augmentation: the task {config.task.name} has no text that could be changed; "
                            "leave it empty")
        self._base_size = tokenizer.base_size
        self._begins = _word_beginnings(tokenizer)
        mask = tokenizer.special.mask
        blank = 0 if tokenizer.kind == "words" else tokenizer.end_of_text_id if mask is None else mask
        if blank is None and any(name in _BLANKING for name, _ in self._steps):
            raise UserError("config.data.augmentation: word_dropout and token_masking need a blank, which is the "
                            "end-of-text token; set --config.data.end_of_text=true")
        self._blank = -1 if blank is None else blank

    def __call__(self, record: Record, epoch: int, number: int) -> Record:
        """Record `number` as `epoch` sees it."""
        if not self._steps:
            return record
        generator = np.random.default_rng([self._seed, _PURPOSE, epoch, number])
        for name, strength in self._steps:
            changed = {field: STEPS[name](self._words(record[field]), strength, self._blank, generator)
                       for field in self._recipe.augmented if field in record and len(record[field])}
            candidate = {**record, **{field: ids.astype(np.int32) for field, ids in changed.items()}}
            if name not in _LENGTHENING or self._recipe.length(candidate) <= self._longest:
                record = candidate
        return record

    def _words(self, ids: np.ndarray) -> Words:
        textual = ids < self._base_size
        begins = ~textual
        begins[textual] = self._begins[ids[textual]]
        begins[0] = True
        begins[1:] |= ~textual[:-1]
        starts = np.flatnonzero(begins)
        return Words(ids, starts, np.append(starts[1:], len(ids)), ~textual[starts])


def _word_beginnings(tokenizer: Tokenizer) -> np.ndarray:
    """[base_size] bool: whether a token begins a word."""
    if tokenizer.kind in ("words", "characters"):
        return np.ones(tokenizer.base_size, bool)
    return np.array([token[:1].isspace() or (len(token) > 2 and token[0] in _UNSPACED)
                     for token in tokenizer.token_bytes[:tokenizer.base_size]], bool)
