"""Programs cut, run and counted; pass@k against the plain definition."""

import gzip
import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest

from purelm.config import Config, DecodingConfig
from purelm.data.tokenizers import ByteTokenizer
from purelm.evaluation import code_generation
from purelm.evaluation.continuations import Continuation

# Three problems in the manner of HumanEval.
PROBLEMS = [
    {"where": "here", "task_id": f"T/{name}", "entry_point": name, "prompt": f'def {name}(a, b):\n    """{name}"""\n',
     "canonical_solution": f"    return {solution}\n", "test": f"def check(f):\n    assert f(2, 3) == {answer}\n"}
    for name, solution, answer in [("add", "a + b", 5), ("power", "a ** b", 8), ("least", "min(a, b)", 2)]]


@pytest.mark.parametrize("num_samples", [1, 2, 5, 7])
def test_pass_at_k_is_the_mean_over_all_subsets(num_samples):
    # Reddens with c and n exchanged, or 1 - (1 - c / n)^k, which is biased.
    for num_right, k in itertools.product(range(num_samples + 1), range(1, num_samples + 1)):
        subsets = list(itertools.combinations([True] * num_right + [False] * (num_samples - num_right), k))
        expected = np.mean([any(subset) for subset in subsets])
        assert code_generation.pass_at_k(num_samples, num_right, k) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("text, kept", [
    ("\n    return 1\n\ndef g():\n    pass\n", "\n    return 1\n"),
    ("\n    return 1\nprint(f())", "\n    return 1"),
    ("\n    x = [\n    1,\n]\n    return x\n# end", "\n    x = [\n    1,\n]\n    return x"),
    ("\n\n    return 1\n    \n", "\n\n    return 1\n    \n"),
    (" -> int:\n    return 1\nclass A: 0", " -> int:\n    return 1"),
    ("\nreturn 1", ""),
])
def test_where_a_completion_ends(text, kept):
    assert code_generation.cut_completion(text) == kept


def make_run(num_samples=2):
    tokenizer = ByteTokenizer(True)
    return SimpleNamespace(config=Config(decoding=DecodingConfig(num_samples=num_samples, temperature=0.8)),
                           tokenizer=tokenizer, params=None)


def test_canonical_solutions_pass_and_others_do_not():
    verdicts = code_generation.canonical_verdicts(PROBLEMS)
    assert [verdict.outcome for verdict in verdicts] == ["passed"] * 3
    wrong = [{**problem, "canonical_solution": "    return 7\n"} for problem in PROBLEMS]
    assert [verdict.outcome for verdict in code_generation.canonical_verdicts(wrong)] == ["failed"] * 3


def test_predictions_and_their_score(monkeypatch):
    # Reddens where a problem is run against another's tests, or a sample is counted for another problem.
    written = ["\n    return a + b\n\ndef g(): 1", "\n    return a - b", "\n    return a **", "\n    while True: pass",
               "\n    return min(a, b)\n", "\n    return sorted([b, a])[0]"]

    def fake(config, params, prompts, **options):
        assert [bytes(prompt[1:].tolist()) for prompt in prompts[::2]] == [
            problem["prompt"].rstrip().encode() for problem in PROBLEMS]
        return [Continuation(np.frombuffer(text.encode(), np.uint8).astype(np.int32), -2.0, False) for text in written]

    monkeypatch.setattr(code_generation, "continue_prompts", fake)
    monkeypatch.setattr(code_generation, "SECONDS", 2.0)
    run = make_run()
    predictions = code_generation.predict(run, PROBLEMS, batch_size=2)
    outcomes = [[sample["outcome"] for sample in prediction["samples"]] for prediction in predictions]
    assert outcomes == [["passed", "failed"], ["error", "timed_out"], ["passed", "passed"]]
    assert predictions[0]["text"] == "\n    return a + b\n" and predictions[0]["task_id"] == "T/add"
    result = code_generation.score(run, PROBLEMS, predictions)
    assert result["pass_at_1"] == pytest.approx(50) and "pass_at_10" not in result
    assert result["canonical_passed"] == result["problems"] == 3 and result["passed_problems"] == 2
    assert result["unparsed"] == result["timed_out"] == pytest.approx(100 / 6)
    json.dumps([predictions, result])


def test_a_prompt_without_tests_is_written_and_not_run(monkeypatch):
    ids = np.frombuffer(b"\n    return 1\n", np.uint8).astype(np.int32)
    monkeypatch.setattr(code_generation, "continue_prompts",
                        lambda config, params, prompts, **options: [Continuation(ids, -1.0, True)] * len(prompts))
    prediction, = code_generation.predict(make_run(1), [code_generation.example_of_text(Config(), "def f():")],
                                          batch_size=1)
    assert prediction["text"] == "\n    return 1\n" and "outcome" not in prediction["samples"][0]


def humaneval(test_data):
    with gzip.open(test_data / "humaneval" / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def test_first_canonical_solutions_of_humaneval(test_data):
    verdicts = code_generation.canonical_verdicts(humaneval(test_data)[:3])
    assert [verdict.outcome for verdict in verdicts] == ["passed"] * 3


@pytest.mark.slow
def test_all_canonical_solutions_of_humaneval(test_data):
    verdicts = code_generation.canonical_verdicts(humaneval(test_data))
    assert [verdict.outcome for verdict in verdicts] == ["passed"] * 164
