"""Code generation: programs written, run against their tests in a sandbox, and pass@k (Chen et al. 2021)."""

from __future__ import annotations

import collections
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from purelm.config import Config
from purelm.evaluation.continuations import Progress, continue_prompts
from purelm.evaluation.sandbox import Verdict, run_programs
from purelm.tasks import code_generation as task
from purelm.training.load import LoadedRun

# Of one program; the authors' code gives 3 seconds. A canonical solution needs a tenth of it.
SECONDS = 5.0
MEMORY_BYTES = 1 << 30
_KS = (1, 10, 100)
# A line that begins a statement outside of the function: it begins with neither white space nor a closing bracket.
# The stop sequences of Chen et al. ("\nclass", "\ndef", "\n#", "\nif", "\nprint") are cases of it.
_TOP_LEVEL = re.compile(r"\n(?=[^\s)\]}])")


def input_format(config: Config) -> str:
    """The format of new rows."""
    return task.RECIPE.format


def example_of_text(config: Config, text: str) -> dict[str, Any]:
    """What --text means: how a program begins."""
    return {"where": "--text", "prompt": text, "task_id": None, "canonical_solution": None, "test": None,
            "entry_point": None}


def cut_completion(text: str) -> str:
    """What was written up to the first statement after the function."""
    found = _TOP_LEVEL.search(text)
    return text if found is None else text[:found.start()]


def program_of(example: Mapping[str, Any], body: str) -> str:
    """The program that ends without an error if `body`, after the prompt, passes the example's tests."""
    return f"{example['prompt']}{body}\n\n{example['test']}\n\ncheck({example['entry_point']})\n"


def predict(run: LoadedRun, examples: Sequence[Mapping[str, Any]], *, batch_size: int,
            progress: Progress | None = None) -> list[dict[str, Any]]:
    """decoding.num_samples programs for each problem, drawn as config.decoding says, and how they ran.

    Args:
      examples: of the format code; without a test, programs are written and not run.
      batch_size: programs written at once.
      progress: called with a line now and then.

    Returns:
      `task_id`; `samples`, a list of {"completion" (up to the first statement after the function), "log_probability"
      (nats, of all that was written)}, where there is a test with "outcome", "message" and "parsed" (see
      sandbox.Verdict); and `text`, `log_probability` and `probability` of the first.
    """
    from purelm.inference import configured_sampler

    config, tokenizer, count = run.config, run.tokenizer, run.config.decoding.num_samples
    prompts = [task.prompt_ids(tokenizer, example["prompt"]) for example in examples for _ in range(count)]
    written = continue_prompts(
        config.model, run.params, prompts, max_new_tokens=config.decoding.max_new_tokens,
        sampler=configured_sampler(config.decoding), seed=config.seed, stop_id=tokenizer.special.stop,
        vocabulary_size=tokenizer.vocabulary_size, batch_size=batch_size, progress=progress, what="programs")
    samples = [{"completion": cut_completion(tokenizer.decode(one.ids_T)), "log_probability": one.log_probability}
               for one in written]
    tested = [number for number in range(len(samples)) if examples[number // count]["test"] is not None]
    verdicts = run_programs([_program(examples[number // count], samples[number]["completion"]) for number in tested],
                            seconds=SECONDS, memory_bytes=MEMORY_BYTES, progress=progress)
    for number, verdict in zip(tested, verdicts):
        samples[number] |= {"outcome": verdict.outcome, "message": verdict.message, "parsed": verdict.parsed}
    return [_prediction(example, samples[number * count:(number + 1) * count])
            for number, example in enumerate(examples)]


def _program(example: Mapping[str, Any], completion: str) -> str:
    """The model was given the prompt without its last white space: the completion has its own."""
    return program_of({**example, "prompt": task.split_prompt(example["prompt"])[0]}, completion)


def _prediction(example: Mapping[str, Any], samples: list[dict[str, Any]]) -> dict[str, Any]:
    first = samples[0]
    return {"task_id": example["task_id"], "text": first["completion"], "log_probability": first["log_probability"],
            "probability": math.exp(first["log_probability"]), "samples": samples}


def score(run: LoadedRun, examples: Sequence[Mapping[str, Any]],
          predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """pass@k of all problems, for k of 1, 10 and 100 up to the samples there are, in percent.

    Returns:
      `pass_at_1`, ...; `passed_problems`, how many have a sample that passed; the parts of all programs that
      `timed_out` and that are no Python (`unparsed`), in percent; `outcomes`, counted; and `canonical_passed` of
      `problems`, the problems whose own solution passes in this sandbox (all of them, or the sandbox is at fault), and
      whether programs were `isolated` (see sandbox). How probable the model finds the canonical solutions is the
      split's bits_per_byte.
    """
    counts = [sum(sample["outcome"] == "passed" for sample in prediction["samples"]) for prediction in predictions]
    samples = [sample for prediction in predictions for sample in prediction["samples"]]
    num_samples = len(predictions[0]["samples"])
    canonical = canonical_verdicts(examples)
    return {
        **{f"pass_at_{k}": 100 * float(np.mean([pass_at_k(num_samples, count, k) for count in counts]))
           for k in _KS if k <= num_samples},
        "passed_problems": sum(count > 0 for count in counts), "problems": len(examples), "samples": num_samples,
        "timed_out": 100 * sum(sample["outcome"] == "timed_out" for sample in samples) / len(samples),
        "unparsed": 100 * sum(not sample["parsed"] for sample in samples) / len(samples),
        "canonical_passed": sum(verdict.outcome == "passed" for verdict in canonical),
        "isolated": all(verdict.isolated for verdict in canonical),
        "outcomes": dict(collections.Counter(sample["outcome"] for sample in samples))}


def canonical_verdicts(examples: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """How each problem's own solution runs."""
    return run_programs([program_of(example, example["canonical_solution"]) for example in examples], seconds=SECONDS,
                        memory_bytes=MEMORY_BYTES)


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """The probability that one of k samples is right, estimated without bias from num_right of num_samples.

    1 - C(n - c, k) / C(n, k), as a product of numbers near 1 (Chen et al. 2021, arXiv 2107.03374, equation 1 and
    figure 3). k is at most num_samples.
    """
    if num_samples - num_right < k:
        return 1.0
    return 1.0 - float(np.prod(1.0 - k / np.arange(num_samples - num_right + 1, num_samples + 1)))
