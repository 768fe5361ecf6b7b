"""The harness's tasks, answered by us and by its own `hf` backend from the same weights."""

import json
import math
import socket
import types

import numpy as np
import pytest
import torch
import transformers
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from published import byte_tokenizer, gpt2

from purelm.errors import UserError
from purelm.interop.harness import running, tasks
from purelm.interop.harness.answers import answers_path
from purelm.interop.harness.model import RunModel
from purelm.interop.harness.running import Asked, evaluate_tasks
from purelm.interop.harness.tasks import open_tasks
from purelm.interop.importing import import_checkpoint
from purelm.training.load import load_run

TEMPLATE = ("{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('none') }}{% endif %}"
            "<s>{{ m['role'] }}: {{ m['content'] | trim }}</s>{% endfor %}"
            "{% if add_generation_prompt %}<s>assistant:{% endif %}")
SENTENCES = ["The cat sat on the mat", "To be, or not to be", "时间就是金钱", "def f(x):", "a 🙂 b", "It rained"]
# The last is longer than either model's context.
QUESTIONS = [{"question": f"{SENTENCES[number % 6]} {number}", "label": number % 3,
              "choices": [" yes", " no", f" the answer is {number}"] if number % 2 else [" A", " B", " C"]}
             for number in range(11)] + [{"question": "a long story " * 9, "choices": [" A", " BC", "D"], "label": 1}]
TASKS = {
    "choose": ("output_type: multiple_choice\ndoc_to_text: '{{question}} '\ndoc_to_target: label\n"
               "doc_to_choice: '{{choices}}'\nmetric_list:\n  - metric: acc\n  - metric: acc_norm\n", QUESTIONS),
    "guess": ("output_type: multiple_choice\ndoc_to_text: ''\ndoc_to_target: label\ndoc_to_choice: '{{choices}}'\n"
              "target_delimiter: ''\nmetric_list:\n  - metric: acc\n", QUESTIONS[:4]),
    "read": ("output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\nmetric_list:\n"
             "  - metric: word_perplexity\n  - metric: byte_perplexity\n  - metric: bits_per_byte\n",
             [{"text": " ".join(SENTENCES[:1 + number % 6] * (1 + number // 6))} for number in range(12)]),
    "write": ("output_type: generate_until\ndoc_to_text: '{{question}}'\ndoc_to_target: '{{answer}}'\n"
              "generation_kwargs:\n  until: [\"\\n\", e]\n  max_gen_toks: 12\nmetric_list:\n  - metric: exact_match\n",
              [{"question": document["question"], "answer": ""} for document in QUESTIONS]),
}


def llama(folder):
    """A Llama that begins texts with <s>, whose template refuses messages of the system."""
    transformers.set_seed(1)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=0, eos_token_id=1,
        initializer_range=0.3)).eval()
    tokenizer = byte_tokenizer(("<s>", "</s>"), ("<s> $A", "<s> $A <s> $B"), bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = TEMPLATE
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """name -> (published, run folder); and the folder of tasks."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("harness")
    gpt2(root / "gpt2", initializer_range=0.3)
    llama(root / "llama")
    (root / "tasks").mkdir()
    for name, (lines, documents) in TASKS.items():
        (root / "tasks" / f"{name}.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
        (root / "tasks" / f"{name}.yaml").write_text(
            f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {name}.jsonl\n"
            f"test_split: test\n{lines}metadata:\n  version: 1\n")
    found = {}
    for name in ("gpt2", "llama"):
        import_checkpoint(str(root / name), str(root / f"{name}-run"))
        found[name] = (str(root / name), str(root / f"{name}-run"))
    return types.SimpleNamespace(of=found, tasks=str(root / "tasks"))


@pytest.fixture(autouse=True)
def own_cache_and_no_network(tmp_path, monkeypatch):
    def refuse(*arguments, **_):
        raise AssertionError(f"{arguments[0]} is looked up")

    monkeypatch.setenv("PURELM_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def asked(folders, *names, **changes):
    return Asked(names or tuple(TASKS), task_path=folders.tasks, data_path=folders.tasks, log_samples=True, **changes)


def samples(results, task):
    return [[response for responses in row["resps"] for response in responses]
            for row in sorted(results["samples"][task], key=lambda row: row["doc_id"])]


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_every_answer_is_the_hf_backends(folders, name):
    """Reddens where tokens are split or framed otherwise, a window is placed or cut otherwise, or a place is off."""
    published, run = folders.of[name]
    opened = open_tasks(tuple(TASKS), folders.tasks, folders.tasks)
    theirs = evaluate(lm=HFLM(published, device="cpu", batch_size=4), task_dict=opened, bootstrap_iters=0)
    ours = evaluate_tasks(run, asked(folders), batch_size=4)
    for metric, value in ours.summary.items():
        task, metric = metric.split("/")
        if not metric.endswith("stderr"):
            assert value == pytest.approx(theirs["results"][task][f"{metric},none"], rel=1e-4)
    rows = [json.loads(line) for line in ours.files[1].read_text().splitlines()]
    written = {task: [row for row in rows if row["task"] == task] for task in TASKS}
    ours = {"samples": written}
    for task in TASKS:
        if task == "write":
            assert samples(ours, task) == samples(theirs, task) and any(map(any, samples(ours, task)))
            continue
        for mine, other in zip(samples(ours, task), samples(theirs, task), strict=True):
            np.testing.assert_allclose(np.array(mine, float), np.array(other, float), atol=1e-4, rtol=1e-5)


def test_continuations_longer_than_the_context_are_read_in_windows(folders):
    """The hf backend stops at them. Reddens where the context is lost, or a token is counted twice."""
    model = RunModel(load_run(folders.of["gpt2"][1]), batch_size=4)
    text = "x" * 70
    (value, _), = model.loglikelihood([types.SimpleNamespace(args=("a", text))])
    whole, = model.loglikelihood_rolling([types.SimpleNamespace(args=(text,))])
    assert math.isfinite(value) and value != whole and value == pytest.approx(whole, rel=0.2)


def test_a_second_call_computes_nothing(folders):
    """Reddens without a cache, and with one that mixes weights up."""
    run = folders.of["gpt2"][1]
    first, second = (evaluate_tasks(run, asked(folders, "guess", "read", num_fewshot=0)) for _ in range(2))
    assert second.computed == 0 and first.summary == second.summary
    assert first.answers.parent.name == "lm_eval_cache" and first.answers.is_file()
    assert answers_path(load_run(run), "int8") != first.answers
    assert json.loads(first.files[0].read_text())["results"]["guess"]["sample_len"] == 4


def test_texts_are_drawn_where_they_are_asked_to_be(folders):
    """Reddens where the temperature is not passed on, or repeats share a text."""
    model = RunModel(load_run(folders.of["gpt2"][1]), batch_size=4)
    ask = lambda **options: [types.SimpleNamespace(args=("To be", options))] * 3  # noqa: E731
    assert len(set(model.generate_until(ask(max_gen_toks=8)))) == 1
    assert len(set(model.generate_until(ask(max_gen_toks=8, do_sample=True, temperature=2.0)))) == 3
    with pytest.raises(UserError, match="max_gen_tok: no such argument here; did you mean 'max_gen_toks'"):
        model.generate_until(ask(max_gen_tok=8))
    with pytest.raises(UserError, match="max_gen_toks=256 leaves no room .* 48 tokens"):
        model.generate_until(ask())


def test_chats_are_those_of_the_hf_backend(folders):
    published, run = folders.of["llama"]
    model, other = RunModel(load_run(run)), HFLM(published, device="cpu")
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who? "}]
    assert model.apply_chat_template(chat) == other.apply_chat_template(chat)
    chat.append({"role": "assistant", "content": "It is"})
    assert model.apply_chat_template(chat, add_generation_prompt=False) == (
        other.apply_chat_template(chat, add_generation_prompt=False))
    assert model.chat_template(True) == TEMPLATE
    with pytest.raises(UserError, match="has no chat template"):
        evaluate_tasks(folders.of["gpt2"][1], asked(folders, apply_chat_template=True))


@pytest.mark.parametrize(("names", "changes", "message"), [
    (("chooze",), {}, "--tasks=chooze: the harness has no such task, nor has .*; did you mean 'choose'"),
    (("choose",), {"data_path": "elsewhere"}, "task choose reads choose.jsonl, which is not in elsewhere"),
    (("choose",), {"task_path": None}, "--data_path=.*: is where tasks of --task_path find their data"),
    (("choose",), {"task_path": "nowhere"}, "--task_path=nowhere: no such folder"),
])
def test_mistakes_are_told_in_one_line(folders, names, changes, message, monkeypatch):
    # The harness's own thousands of files take ten seconds to read.
    monkeypatch.setattr(tasks, "TaskManager",
                        lambda include_path, **_: TaskManager(include_path=include_path, include_defaults=False))
    with pytest.raises(UserError, match=message) as caught:
        open_tasks(names, **{"task_path": folders.tasks, "data_path": folders.tasks, **changes})
    assert "\n" not in str(caught.value)


def test_a_classifier_is_refused():
    run = types.SimpleNamespace(config=types.SimpleNamespace(
        task=types.SimpleNamespace(name="classification"), model=types.SimpleNamespace(architecture="encoder")))
    with pytest.raises(UserError, match="which a encoder of task classification does not say"):
        running._check_run(run, Asked(("piqa",)))
