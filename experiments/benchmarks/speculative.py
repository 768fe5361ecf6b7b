r"""Tokens a second of speculative decoding over `generate`, batch 1, on the same prompts in the same run.

Needs two runs, trained on the same text with the same tokenizer:

  python experiments/train.py --config=configs/lm/speculative.py:target --workdir=runs/target \
      --config.data.path=input.txt
  python experiments/train.py --config=configs/lm/speculative.py:draft --workdir=runs/draft \
      --config.data.path=input.txt
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

ROUNDS = 3
PROMPTS = ("ROMEO:\n", "First Citizen:\nWhat ", "KING RICHARD III:\nNow ", "The ")
NEW_TOKENS = 192


def measure(target_workdir: str, draft_workdir: str) -> list[dict[str, object]]:
    """One row a way of decoding: tokens a second, the ratio to `generate` with the same sampler, tokens a step of the
    model, the share of guesses that were right, and whether the text is that of `generate`.

    Raises UserError where the two runs' tokenizers differ.
    """
    from purelm.errors import UserError
    from purelm.inference import Sampler, encode_prompt
    from purelm.inference.speculative import LookUp, ModelDraft
    from purelm.models import unstack_layers
    from purelm.training.load import load_run

    target, small = load_run(target_workdir, "latest"), load_run(draft_workdir, "latest")
    prompts, other = ([encode_prompt(run.tokenizer, text)[None] for text in PROMPTS] for run in (target, small))
    if any(ours.tolist() != theirs.tolist() for ours, theirs in zip(prompts, other)):
        raise UserError(f"{draft_workdir} has another tokenizer than {target_workdir}; train the draft with the same")
    model = ModelDraft(small.config.model, unstack_layers(small.params))
    ways: list[tuple[str, dict[str, Any]]] = []
    for name, sampler in (("greedy", Sampler(0.0)), ("temperature 1", Sampler(1.0))):
        ways.append((f"generate, {name}", {"sampler": sampler}))
        for num_drafted in (3, 5, 7):
            drafted = {"sampler": sampler, "draft": model, "num_drafted": num_drafted, "acceptance": "shared_noise"}
            ways.append((f"draft model, {num_drafted} guesses, {name}", drafted))
        if not sampler.greedy:
            ways.append(("the same 5, by rejection", {**drafted, "num_drafted": 5, "acceptance": "rejection"}))
        ways.append((f"look-up, 7 guesses, {name}", {**drafted, "draft": LookUp(longest=3, shortest=2)}))
    parameters = unstack_layers(target.params)
    calls = {name: _call(target.config.model, parameters, target.tokenizer.vocabulary_size, prompts, options)
             for name, options in ways}
    texts = {name: call() for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - started)
    return [_row(name, options["sampler"], seconds, texts) for name, options in ways]


def _call(config: Any, params: Any, vocabulary_size: int, prompts: list[Any], options: dict[str, Any]
          ) -> Callable[[], tuple[list[int], list[Any]]]:
    """A function that continues every prompt: (the new ids of all, what speculative decoding says of each)."""
    import jax

    from purelm.inference import generate
    from purelm.inference.speculative import generate_speculative

    def call() -> tuple[list[int], list[Any]]:
        ids, answers = [], []
        for number, prompt_BT in enumerate(prompts):
            common = {"max_new_tokens": NEW_TOKENS, "key": jax.random.key(number), "vocabulary_size": vocabulary_size}
            if "draft" in options:
                answers.append(generate_speculative(config, params, prompt_BT, **common, **options))
                ids += answers[-1].generated.ids_BT[0].tolist()
            else:
                ids += generate(config, params, prompt_BT, **common, **options).ids_BT[0].tolist()
        return ids, answers

    return call


def _row(name: str, sampler: Any, seconds: dict[str, list[float]], texts: dict[str, tuple[list[int], list[Any]]]
         ) -> dict[str, object]:
    plain = "generate, greedy" if sampler.greedy else "generate, temperature 1"
    ids, answers = texts[name]
    speed, plain_speed = (len(ids) / statistics.median(seconds[key]) for key in (name, plain))
    row = {"decoding": name, "tokens/s": f"{speed:,.0f}", "over generate": f"{speed / plain_speed:.2f}",
           "tokens a step": "1", "guesses right": "-", "text of generate": "-"}
    if answers:
        steps, drafted, accepted = (sum(int(getattr(answer, field)[0]) for answer in answers)
                                    for field in ("steps_B", "drafted_B", "accepted_B"))
        row |= {"tokens a step": f"{len(ids) / steps:.2f}", "guesses right": f"{accepted / max(drafted, 1):.0%}",
                "text of generate": "yes" if ids == texts[plain][0] else "no"}
    return row
