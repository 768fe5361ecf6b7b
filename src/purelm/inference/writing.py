"""Texts as a command line asks for them: drawn, searched for or speculated, and which of these go together."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from purelm.config import DecodingConfig, ModelConfig
from purelm.errors import UserError
from purelm.inference.automata import TokenAutomaton, cut_at_stop, json_schema, regex, stop_strings
from purelm.inference.beam_search import search_prompts
from purelm.inference.contrastive_search import contrastive_search
from purelm.inference.decode import Generated, Reason, generate
from purelm.inference.prompts import text_begins
from purelm.inference.sampling import Sampler
from purelm.inference.speculative import LookUp, ModelDraft, generate_speculative
from purelm.inference.steps import CacheKind
from purelm.inference.stops import StopIds, stop_tuple

if TYPE_CHECKING:
    from purelm.data import Tokenizer

# What look-up compares: with fewer tokens chance matches are many, with more there are hardly any.
_LOOK_UP = {"longest": 3, "shortest": 2}


@dataclasses.dataclass(frozen=True)
class Wish:
    """What is asked of a text, by the names of generate.py's flags; what is None or () was not asked for.

    num_samples: texts; of a beam, the best so many. num_drafted, and one of lookup (from the text itself) and draft (a
    model's config and parameters): speculative decoding. json_schema: its text. What belongs to a beam, to contrastive
    search or to a draft has a value where it was not given.
    """

    max_new_tokens: int
    num_samples: int = 1
    seed: int = 0
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    banned_ids: tuple[int, ...] = ()
    min_new_tokens: int | None = None
    stop: tuple[str, ...] = ()
    regex: str | None = None
    json_schema: str | None = None
    beam_size: int | None = None
    beam_groups: int | None = None
    diversity_penalty: float | None = None
    length_penalty: float | None = None
    contrastive_alpha: float | None = None
    log_probabilities: int | None = None
    cache: CacheKind | None = None
    lookup: int | None = None
    draft: ModelDraft | None = None
    num_drafted: int | None = None

    def sampler(self) -> Sampler:
        """The rule for drawing; 1 is the temperature where none was asked for, 0 of a beam, which draws nothing."""
        temperature = self.temperature
        if temperature is None:
            temperature = 1.0 if self.beam_size is None else 0.0
        given = {name: getattr(self, name) for name in _SAMPLER[1:] if getattr(self, name) is not None}
        given["banned"] = given.pop("banned_ids")
        return Sampler(temperature=temperature, **given)


_DRAWS = ("temperature", "top_k", "top_p", "min_p")
_SAMPLER = (*_DRAWS, "repetition_penalty", "frequency_penalty", "presence_penalty", "logit_bias", "banned_ids",
            "min_new_tokens")
_BEAM = ("beam_groups", "diversity_penalty", "length_penalty")
_CONSTRAINTS = ("regex", "json_schema")
# Of each way of writing that is asked for by the flag, the flags that it does not have.
_WITHOUT = {
    "beam_size": (*_DRAWS, "stop", "contrastive_alpha", "log_probabilities", "cache", "lookup", "draft"),
    "contrastive_alpha": ("temperature", *(name for name in _SAMPLER if name not in ("temperature", "top_k")),
                          *_CONSTRAINTS, "log_probabilities", "cache", "lookup", "draft"),
    "lookup": ("stop", *_CONSTRAINTS, "log_probabilities", "cache", "draft"),
    "draft": ("stop", *_CONSTRAINTS, "log_probabilities", "cache"),
}
_ONLY_WITH = {"beam_groups": "beam_size", "diversity_penalty": "beam_groups", "length_penalty": "beam_size",
              "num_drafted": "draft"}
# Beside each way of writing a flag that has a value where it was not given: config.decoding's of a beam, the usual
# number of candidates since Su et al. (2022), and of tokens that a small draft guesses ahead.
_VALUES = {"beam_size": ("length_penalty", DecodingConfig().length_penalty), "contrastive_alpha": ("top_k", 4),
           "draft": ("num_drafted", 5)}


class Token(NamedTuple):
    """An id, its log-probability (nats), and the likeliest (id, log-probability) at its place."""

    id: int
    log_probability: float
    alternatives: tuple[tuple[int, float], ...]


class Written(NamedTuple):
    """ids_T: the new ids, the end among them. text: the prompt and what was written, up to a stop string. tokens: where
    log-probabilities were asked for. log_probability: nats, of the new ids together. reason: why it ended."""

    ids_T: np.ndarray
    text: str
    tokens: tuple[Token, ...] | None
    log_probability: float
    reason: Reason


def check_wish(wish: Wish) -> None:
    """Raises UserError for what does not go together, by the names of flags."""
    def asked(name: str) -> bool:
        return getattr(wish, name) not in (None, ())

    for way, without in _WITHOUT.items():
        for name in without:
            if asked(way) and asked(name):
                raise UserError(f"--{name} does not go with --{way}; leave one of them out")
    for name, needed in _ONLY_WITH.items():
        if asked(name) and not asked(needed):
            raise UserError(f"--{name} has no effect without --{needed}; give that too")
    if asked("beam_groups") and not asked("diversity_penalty"):
        raise UserError("--beam_groups needs --diversity_penalty; give it, such as --diversity_penalty=0.5")
    if asked("beam_size") and wish.num_samples > wish.beam_size:
        raise UserError(f"--num_samples={wish.num_samples}: a beam has --beam_size={wish.beam_size} texts at most")
    if asked("beam_groups") and wish.beam_size % wish.beam_groups:
        raise UserError(f"--beam_groups={wish.beam_groups}: must divide --beam_size={wish.beam_size}")
    if asked("contrastive_alpha") and not 0 <= wish.contrastive_alpha <= 1:
        raise UserError(f"--contrastive_alpha={wish.contrastive_alpha}: must be from 0 (greedy) to 1")
    if asked("regex") and asked("json_schema"):
        raise UserError("--regex and --json_schema are both given; give one")
    if wish.temperature == 0:
        for name in _DRAWS[1:]:
            if asked(name):
                raise UserError(f"--{name} has no effect with --temperature=0, which is greedy; leave one of them out")
    if wish.num_samples > 1 and (asked("contrastive_alpha") or wish.temperature == 0):
        raise UserError(f"--num_samples={wish.num_samples}: all would be the same text, as nothing is drawn; give a "
                        "--temperature above 0")


def write(config: ModelConfig, params: Any, tokenizer: Tokenizer, prompt_ids_T: np.ndarray,
          wish: Wish) -> list[Written]:
    """num_samples texts that begin with the prompt. Raises UserError as `check_wish` and the ways of writing."""
    check_wish(wish)
    wish = _completed(wish)
    stop, constraint = automata_of(tokenizer, wish)
    shared = {"max_new_tokens": wish.max_new_tokens, "stop_id": tokenizer.special.stop,
              "vocabulary_size": tokenizer.vocabulary_size}
    prompt_BT = np.asarray(prompt_ids_T, np.int32)[None]
    if wish.beam_size is not None:
        generated = _beams(config, params, prompt_BT, wish, constraint=constraint, **shared)
    elif wish.contrastive_alpha is not None:
        generated = contrastive_search(config, params, prompt_BT, top_k=wish.top_k, alpha=wish.contrastive_alpha,
                                       stop=stop, **shared)
    elif wish.lookup is not None or wish.draft is not None:
        looked_up = wish.lookup is not None
        generated = generate_speculative(
            config, params, np.repeat(prompt_BT, _number(wish), axis=0), sampler=wish.sampler(),
            key=jax.random.key(wish.seed), draft=LookUp(**_LOOK_UP) if looked_up else wish.draft,
            num_drafted=wish.lookup if looked_up else wish.num_drafted, acceptance="shared_noise", **shared).generated
    else:
        generated = generate(
            config, params, prompt_BT, num_samples=_number(wish), sampler=wish.sampler(), stop=stop,
            key=jax.random.key(wish.seed), constraint=constraint, cache=wish.cache or "full",
            log_probabilities=False if wish.log_probabilities is None else wish.log_probabilities, **shared)
    return [_written(tokenizer, prompt_ids_T, generated, row, wish) for row in range(len(generated.ids_BT))]


def automata_of(tokenizer: Tokenizer, wish: Wish) -> tuple[TokenAutomaton | None, TokenAutomaton | None]:
    """(of the stop strings, of the constraint), None where there is none."""
    token_bytes = tokenizer.token_bytes
    options = {"special_ids": tokenizer.special_ids, "separator": tokenizer.separator}
    stop = stop_strings(token_bytes, wish.stop, **options) if wish.stop else None
    if wish.regex is not None:
        return stop, regex(token_bytes, wish.regex, **options)
    if wish.json_schema is not None:
        return stop, json_schema(token_bytes, wish.json_schema, **options)
    return stop, None


def _completed(wish: Wish) -> Wish:
    """With the values of what was not given beside what it belongs to."""
    return dataclasses.replace(wish, **{
        name: value for way, (name, value) in _VALUES.items()
        if getattr(wish, way) is not None and getattr(wish, name) is None})


def _number(wish: Wish) -> int:
    if wish.num_samples < 1:
        raise UserError(f"num_samples is {wish.num_samples}; it must be 1 or more")
    return wish.num_samples


def _beams(config: ModelConfig, params: Any, prompt_BT: np.ndarray, wish: Wish, *, stop_id: StopIds,
           **options: Any) -> Generated:
    """The best num_samples, as `generate` would answer rows."""
    found = search_prompts(
        config, params, prompt_BT, None, beam_size=wish.beam_size, length_penalty=wish.length_penalty,
        num_best=_number(wish), num_groups=wish.beam_groups or 1, diversity_penalty=wish.diversity_penalty or 0.0,
        sampler=wish.sampler(), stop_id=stop_id, **options)
    stopped_B = found.finished_BN[0] & bool(stop_tuple(stop_id))
    return Generated(found.ids_BNT[0], found.lengths_BN[0], stopped_B, found.log_probability_BN[0],
                     np.where(stopped_B, Reason.STOP_ID, Reason.LENGTH))


def _written(tokenizer: Tokenizer, prompt_ids_T: np.ndarray, generated: Generated, row: int,
             wish: Wish) -> Written:
    length = int(generated.lengths_B[row])
    ids_T = generated.ids_BT[row, :length]
    prompt_ids_T = prompt_ids_T[text_begins(tokenizer, prompt_ids_T):]
    text = tokenizer.decode(np.concatenate([prompt_ids_T, ids_T[:length - int(generated.stopped_B[row])]]))
    prompt = tokenizer.decode(prompt_ids_T)
    start = len(prompt) if text.startswith(prompt) else 0
    text = text[:start] + cut_at_stop(text[start:], wish.stop)[0]
    tokens = None
    if wish.log_probabilities is not None:
        beside = [()] * length
        if generated.alternative_ids_BTJ is not None:
            beside = [tuple(zip(ids_J.tolist(), values_J.tolist())) for ids_J, values_J in
                      zip(generated.alternative_ids_BTJ[row], generated.alternatives_BTJ[row])]
        tokens = tuple(Token(int(token), float(value), alternatives) for token, value, alternatives in
                       zip(ids_T, generated.log_probabilities_BT[row], beside))
    return Written(ids_T, text, tokens, float(generated.log_probabilities_B[row]), Reason(generated.reasons_B[row]))


def token_lines(tokenizer: Tokenizer, tokens: tuple[Token, ...]) -> list[str]:
    """A line a token: its probability, its text, and the likeliest tokens with theirs."""
    def shown(token_id: int) -> str:
        return repr(tokenizer.token_bytes[token_id].decode("utf-8", errors="backslashreplace"))

    lines = []
    for token in tokens:
        beside = "  ".join(f"{shown(token_id)} {np.exp(value):.3f}" for token_id, value in token.alternatives)
        lines.append(f"{np.exp(token.log_probability):.3f}  {shown(token.id):16s}  {beside}".rstrip())
    return lines


def parse_ids(text: str, flag: str) -> tuple[int, ...]:
    """Ids with commas between; () of nothing. Raises UserError for what is no whole number."""
    return tuple(int(_number_of(part, flag, "3,17", whole=True)) for part in text.split(",")) if text else ()


def parse_biases(text: str, flag: str) -> tuple[tuple[int, float], ...]:
    """ID:VALUE pairs with commas between; () of nothing. Raises UserError for what is no such pair."""
    example, pairs = "3:-1.5,17:2", []
    for part in text.split(",") if text else ():
        token_id, colon, value = part.partition(":")
        if not colon:
            raise UserError(f"{flag}: '{part}' is no ID:VALUE; give pairs such as {example}")
        pairs.append((int(_number_of(token_id, flag, example, whole=True)), _number_of(value, flag, example)))
    return tuple(pairs)


def _number_of(text: str, flag: str, example: str, *, whole: bool = False) -> float:
    try:
        return int(text) if whole else float(text)
    except ValueError:
        raise UserError(f"{flag}: '{text}' is not a {'whole ' if whole else ''}number; give it as {example}") from None


def read_schema(path: str, flag: str) -> str:
    """The text of a file. Raises UserError for one that cannot be read."""
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{flag}={path}: cannot be read ({error})") from error
