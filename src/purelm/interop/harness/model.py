"""A run as the harness's model: what its tasks ask, answered in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from lm_eval.api.model import LM
from tqdm import tqdm

from purelm.data.chat_templates import render_chat
from purelm.errors import UserError
from purelm.evaluation.continuations import continue_prompts
from purelm.inference.automata import stop_strings
from purelm.interop.harness.scoring import Window, automatic_batch_size, score_windows
from purelm.interop.harness.texts import Texts
from purelm.interop.harness.writing import Wanted, check_room, cut_before, wanted
from purelm.training.load import LoadedRun

_BATCHES_BETWEEN_SAVES = 8


class RunModel(LM):
    """Args:
      run: of a decoder or a recurrent language model.
      batch_size: rows at once; None is as many as fit in memory.
      seed: of texts that are drawn.

    What is computed so far is given to the cache as it comes, so that nothing is lost when a call is interrupted.
    """

    def __init__(self, run: LoadedRun, *, batch_size: int | None = None, seed: int = 0):
        super().__init__()
        self._run = run
        self._batch_size = batch_size
        self._seed = seed
        self._texts = Texts(run.tokenizer)
        self._context_length = run.config.model.context_length
        self.computed = 0

    @property
    def tokenizer_name(self) -> str:
        return self._run.tokenizer.fingerprint

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The template's source; "" where none is asked for or there is none."""
        return (self._run.tokenizer.chat_template or "") if chat_template else ""

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The prompt of a chat; without add_generation_prompt it ends where the last message is to go on.

        A template that refuses messages of the system gets the chat without them, as in the `hf` backend.
        """
        tokenizer = self._run.tokenizer
        try:
            prompt = render_chat(tokenizer, chat_history, add_generation_prompt)
        except UserError:
            without = [message for message in chat_history if message["role"] != "system"]
            if len(without) in (0, len(chat_history)):
                raise
            prompt = render_chat(tokenizer, without, add_generation_prompt)
        if add_generation_prompt:
            return prompt
        last = chat_history[-1]["content"].strip()
        return prompt[:prompt.rindex(last) + len(last)]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(log-probability in nats, whether greedy) of each (context, continuation)."""
        pairs = [request.args for request in requests]
        windows = self._texts.windows(pairs, self._context_length)
        return self._scored("loglikelihood", pairs, windows)

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """The log-probability in nats of each whole text."""
        texts = [request.args for request in requests]
        windows = self._texts.rolling([text for text, *_ in texts], self._context_length)
        return self._scored("loglikelihood_rolling", texts, windows)

    def _scored(self, kind: str, arguments: Sequence[tuple], windows_of: Sequence[Sequence[Window]]) -> list[Any]:
        """One answer a request: sums over its windows."""
        windows = [window for windows in windows_of for window in windows]
        owners = [owner for owner, windows in enumerate(windows_of) for _ in windows]
        left = [len(windows) for windows in windows_of]
        totals, greedy = [0.0] * len(left), [True] * len(left)
        answers: list[Any] = [0.0 if kind == "loglikelihood_rolling" and not count else None for count in left]
        with tqdm(total=len(windows), desc=kind, disable=None) as bar:
            for score in score_windows(self._run.config, self._run.params, windows, batch_size=self._batch_size,
                                       advance=bar.update):
                owner = owners[score.number]
                totals[owner] += score.log_probability
                greedy[owner] &= score.greedy
                left[owner] -= 1
                if not left[owner]:
                    rolling = kind == "loglikelihood_rolling"
                    answers[owner] = totals[owner] if rolling else (totals[owner], greedy[owner])
                    self.cache_hook.add_partial(kind, arguments[owner], answers[owner])
        self.computed += len(answers)
        return answers

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """What follows each context, up to the strings that end it.

        Contexts lose their beginning where the model's context has no room for them and max_gen_toks more.
        """
        arguments = [request.args for request in requests]
        by_wish: dict[str, list[int]] = {}
        for number, (_, options) in enumerate(arguments):
            by_wish.setdefault(repr(sorted(options.items())), []).append(number)
        answers: list[Any] = [None] * len(arguments)
        with tqdm(total=len(arguments), desc="generate_until", disable=None) as bar:
            for numbers in by_wish.values():
                self._write(numbers, arguments, answers, bar)
        self.computed += len(answers)
        return answers

    def _write(self, numbers: Sequence[int], arguments: Sequence[tuple], answers: list[Any], bar: Any) -> None:
        """Fills `answers` of the requests `numbers`, which ask for texts of one kind."""
        wish = wanted(arguments[numbers[0]][1])
        room = check_room(wish.max_new_tokens, self._context_length)
        ids = self._texts.encode(arguments[number][0] for number in numbers)
        prompts = {number: self._prompt(ids[arguments[number][0]], room) for number in numbers}
        asked: dict[Any, list[int]] = {}
        for number in sorted(numbers, key=lambda number: -len(prompts[number])):
            # What is drawn may differ each time; the rest is written once.
            asked.setdefault(number if wish.drawn else arguments[number][0], []).append(number)
        groups = list(asked.values())
        batch_size = self._batch_size or automatic_batch_size(self._run.config.model, self._context_length)
        size = len(groups) if wish.drawn else batch_size * _BATCHES_BETWEEN_SAVES
        for start in range(0, len(groups), size):
            part = groups[start:start + size]
            for group, text in zip(part, self._texts_after([prompts[group[0]] for group in part], wish, batch_size)):
                for number in group:
                    answers[number] = text
                    if not wish.drawn:
                        self.cache_hook.add_partial("generate_until", arguments[number], text)
                bar.update(len(group))

    def _prompt(self, ids: tuple[int, ...], room: int) -> np.ndarray:
        if not ids:
            self._texts.need_prefix()
        return np.array(ids[-room:] or (self._texts.prefix,), np.int32)

    def _texts_after(self, prompts: Sequence[np.ndarray], wish: Wanted, batch_size: int) -> list[str]:
        run, tokenizer = self._run, self._run.tokenizer
        stop = None
        if wish.until:
            stop = stop_strings(tokenizer.token_bytes, wish.until, special_ids=tokenizer.special_ids,
                                separator=tokenizer.separator)
        written = continue_prompts(
            run.config.model, run.params, prompts, max_new_tokens=wish.max_new_tokens, sampler=wish.sampler,
            seed=self._seed, stop_id=tokenizer.special.stop, vocabulary_size=tokenizer.vocabulary_size,
            batch_size=min(batch_size, len(prompts)), stop=stop)
        ends = (*wish.until, *filter(None, [self._texts.end_text]))
        special = list(tokenizer.special_ids)
        return [cut_before(tokenizer.decode(one.ids_T[~np.isin(one.ids_T, special)]), ends) for one in written]
