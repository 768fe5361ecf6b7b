"""What an engine can be, and what it can be asked: mistakes are told before anything runs."""

from __future__ import annotations

from typing import NamedTuple

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.inference.decode_loop import window_of, window_start
from purelm.inference.engine.request import Request
from purelm.inference.engine.rows import MAX_ALTERNATIVES, MAX_BIASES, MAX_STOPS
from purelm.inference.engine.windows import slides, tokens_held
from purelm.inference.row_sampling import stack_samplers
from purelm.inference.stops import stop_tuple


class Limits(NamedTuple):
    """vocabulary_size: the tokenizer's. window: the most tokens that one is drawn from. pages: that can be held;
    page_size: their tokens; 0 of a recurrent network. max_tokens: prompt, from its window on, and answer together."""

    vocabulary_size: int
    window: int
    pages: int
    page_size: int
    max_tokens: int

    def pages_of(self, request: Request) -> int:
        """The most pages that the request ever holds."""
        if not self.page_size:
            return 0
        return -(-tokens_held(len(request.prompt_ids), request.max_new_tokens, self.window) // self.page_size)

    def slides(self, request: Request) -> bool:
        """Whether the request outgrows its first window."""
        return slides(len(request.prompt_ids), request.max_new_tokens, self.window)


def make_limits(config: ModelConfig, *, vocabulary_size: int, slots: int, page_size: int, num_pages: int, chunk: int,
                max_waiting: int, max_tokens: int | None) -> Limits:
    """Raises UserError for a model that the engine does not serve, and for sizes that do not fit each other."""
    if config.architecture not in ("decoder", "recurrent"):
        raise UserError(f"config.model.architecture={config.architecture}: the engine serves decoder and recurrent "
                        "language models; generate() answers for the others")
    if config.prefix_attention:
        raise UserError("config.model.prefix_attention: the engine reads prompts in chunks, which cannot see each "
                        "other both ways; use generate()")
    for name, value in (("slots", slots), ("page_size", page_size), ("chunk", chunk), ("max_waiting", max_waiting)):
        if value < 1:
            raise UserError(f"{name} is {value}; it must be 1 or more")
    paged = config.architecture == "decoder"
    if paged and (chunk % page_size or num_pages < 2):
        raise UserError(f"chunk={chunk}, page_size={page_size}, num_pages={num_pages}: page_size must divide chunk, "
                        "and there must be a page beside page 0")
    if not 0 < vocabulary_size <= config.vocabulary_size:
        raise UserError(f"vocabulary_size is {vocabulary_size}; it must be from 1 to the model's "
                        f"{config.vocabulary_size}")
    return Limits(
        vocabulary_size=vocabulary_size, window=window_of(config), pages=num_pages - 1 if paged else 0,
        page_size=page_size if paged else 0,
        max_tokens=4 * config.context_length if max_tokens is None else max_tokens)


def check_request(request: Request, limits: Limits) -> None:
    """Raises UserError for a request that can never run."""
    prompt, size = request.prompt_ids, limits.vocabulary_size
    if not prompt:
        raise UserError("the prompt is empty; it must have one token or more")
    outside = [token for token in prompt if not 0 <= token < size]
    if outside:
        raise UserError(f"prompt id {outside[0]} is outside of the vocabulary (0 to {size - 1})")
    if request.max_new_tokens < 1:
        raise UserError(f"max_new_tokens is {request.max_new_tokens}; it must be 1 or more")
    stops = stop_tuple(request.stop_id)
    if len(stops) > MAX_STOPS:
        raise UserError(f"stop_id has {len(stops)} ids; at most {MAX_STOPS} are taken")
    for stop_id in stops:
        if not 0 <= stop_id < size:
            raise UserError(f"stop_id {stop_id} is outside of the vocabulary (0 to {size - 1})")
    if request.alternatives is not None and not 0 <= request.alternatives <= MAX_ALTERNATIVES:
        raise UserError(f"alternatives is {request.alternatives}; it must be from 0 to {MAX_ALTERNATIVES}")
    if not -2 ** 63 <= request.seed < 2 ** 63 or not 0 <= request.index < 2 ** 31:
        raise UserError(f"seed is {request.seed}, index {request.index}; a seed has 64 bits, an index 31")
    for name, automaton in (("stop", request.stop), ("constraint", request.constraint)):
        if automaton is not None and len(automaton.classes_V) > size:
            raise UserError(f"{name} is of a vocabulary of {len(automaton.classes_V)}; the model's has {size}")
    stack_samplers([request.sampler], max_biases=MAX_BIASES)
    read = len(prompt) - window_start(len(prompt), limits.window)
    if read + request.max_new_tokens > limits.max_tokens:
        raise UserError(f"{read} tokens of the prompt and max_new_tokens={request.max_new_tokens} are more than "
                        f"{limits.max_tokens}; ask for fewer")
    if limits.pages_of(request) > limits.pages:
        raise UserError(f"the request needs {limits.pages_of(request)} pages of {limits.page_size} tokens; there are "
                        f"{limits.pages}: ask for fewer tokens")
