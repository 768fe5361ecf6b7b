"""Speed tables, each a ratio to a peer or a limit measured in the same run."""

import datetime
import importlib
import os
import platform
import re
import sys
from typing import Any

from absl import flags

from purelm import cli

USAGE = """
Measure speed, as ratios to peers and limits in the same run, and print the tables (and write them to --output).

  python experiments/benchmark.py                                     what needs nothing else: sampling, second start
  python experiments/benchmark.py --nanogpt=FOLDER --shakespeare=FILE  with nanoGPT's own code beside (its public
                                                                       repository, checked out by you) on input.txt
  python experiments/benchmark.py --only=word_vectors --corpus=FILE    gensim beside ours
  python experiments/benchmark.py --suite=decode --workdir=runs/a      answering (--target, --draft: speculative too)
  python experiments/benchmark.py --suite=interop                      published weights: import, memory, fine-tuning
  python experiments/benchmark.py --only=tokenizers --tokenizers=FOLDER --texts='*.jsonl'
                                                                       a checkpoint's tokenizer beside the original's
  python experiments/benchmark.py --only=exports                       no speed: what each config can be written as
"""

SUITES = {
    "training": ("training_step", "time_to_loss", "sampling", "second_start", "accelerator", "word_vectors",
                 "together"),
    "decode": ("sampling", "beams", "quantization", "engine", "speculative", "first_token", "load"),
    "interop": ("fine_tuning", "importing", "import_memory", "exports", "tokenizers"),
}
TABLES = tuple(dict.fromkeys(name for tables in SUITES.values() for name in tables))
SUITE = flags.DEFINE_enum("suite", "training", list(SUITES), "tables that belong together")
ONLY = flags.DEFINE_multi_enum("only", None, list(TABLES), "which tables, in place of a suite's")
NANOGPT = flags.DEFINE_string("nanogpt", None, "a checkout of github.com/karpathy/nanoGPT, to run beside ours")
SHAKESPEARE = flags.DEFINE_string("shakespeare", None, "tinyshakespeare's input.txt")
SEEDS = flags.DEFINE_integer("seeds", 3, "seeds of time_to_loss and of word_vectors", lower_bound=1)
CORPUS = flags.DEFINE_string("corpus", None, "text of word_vectors, one document a line, or .jsonl")
EPOCHS = flags.DEFINE_integer("epochs", 5, "of word_vectors", lower_bound=1)
STEPS = flags.DEFINE_list("steps", ["100", "300"], "of each run of together, a row each")
WORKDIR = flags.DEFINE_string("workdir", None, "run of a language model, whose losses quantization tells of")
TARGET = flags.DEFINE_string("target", None, "run of a language model, for speculative")
DRAFT = flags.DEFINE_string("draft", None, "run of a smaller one with the same tokenizer, for speculative")
SECONDS = flags.DEFINE_float("seconds", 60, "of load", lower_bound=1)
TOKENIZERS = flags.DEFINE_multi_string("tokenizers", None, "folders of checkpoints, for tokenizers")
TEXTS = flags.DEFINE_multi_string("texts", None, "text files of tokenizers: lines of text, or .jsonl; * for many")
CORES = flags.DEFINE_integer("cores", 2, "CPU cores that every program may use", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "Markdown file to write the tables to")

TITLES = {
    "training_step": "Step time, nanoGPT's CPU model and batch (4 layers x 128, 12 x 64 tokens), in one process",
    "time_to_loss": "Wall-clock to validation loss 1.88 on tinyshakespeare",
    "sampling": "Sampling, float32",
    "second_start": "Time to the first step, from process start",
    "accelerator": "GPT-2 124M, context 1024, bfloat16, one accelerator",
    "word_vectors": "Word vectors beside gensim: one text, size, window, negatives and epochs",
    "together": "8 seeds of a 1M-parameter decoder, together over 8 commands one after another (wall-clock)",
    "beams": "Beam search, 4 hypotheses, batch 1, float32",
    "quantization": "Weights in fewer bits",
    "engine": "Continuous batching: 64 requests of mixed length, over the same one after another",
    "speculative": "Speculative decoding over plain decoding, batch 1",
    "first_token": "Time to the first token through HTTP",
    "fine_tuning": "A step of fine-tuning BERT base, batch 8 x 128 tokens, float32, dropout 0.1",
    "importing": "Taking over a checkpoint of 500 MB (GPT-2 124M, float32)",
    "exports": "The family of published models that each config and preset is written as (convert.py --to_hf)",
    "import_memory": "Host memory of taking over and giving back a checkpoint of 3 GB",
    "tokenizers": "Published tokenizers beside the libraries that they come from",
    "load": "The server under load: 200 clients, 20 % hang up, 10 % send wrong requests",
}


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: CORES.value])
    from purelm.runtime import start_jax

    start_jax()
    sections = [heading()]
    for name in ONLY.value or SUITES[SUITE.value]:
        rows = measure(name)
        if rows:
            sections.append(f"## {TITLES[name]}\n\n{table(rows)}")
            print("\n" + sections[-1], flush=True)
    if OUTPUT.value:
        with open(OUTPUT.value, "w", encoding="utf-8") as file:
            file.write("\n\n".join(sections) + "\n")
        print(f"\nwrote {OUTPUT.value}")


def measure(name: str) -> list[dict[str, object]]:
    """The rows of one table; a note on stderr and no rows where something it needs was not given."""
    needs = {"training_step": [NANOGPT], "time_to_loss": [NANOGPT, SHAKESPEARE], "word_vectors": [CORPUS],
             "speculative": [TARGET, DRAFT], "tokenizers": [TOKENIZERS, TEXTS]}.get(name, [])
    missing = [f"--{flag.name}" for flag in needs if flag.value is None]
    if missing:
        print(f"{name}: skipped, needs {' and '.join(missing)}", file=sys.stderr)
        return []
    print(f"{name}: measuring", file=sys.stderr)
    module = importlib.import_module(f"benchmarks.{name}")
    rows = module.measure(*_arguments(name))
    if not rows:
        print(f"{name}: skipped, there is none here", file=sys.stderr)
    return rows


def _arguments(name: str) -> tuple[Any, ...]:
    """What the `measure` of a table's module is called with."""
    return {
        "training_step": (NANOGPT.value,),
        "time_to_loss": (NANOGPT.value, SHAKESPEARE.value, SEEDS.value),
        "second_start": (SHAKESPEARE.value,),
        "word_vectors": (CORPUS.value, max(SEEDS.value, 2), CORES.value, EPOCHS.value),
        "together": (SHAKESPEARE.value, tuple(map(int, STEPS.value))),
        "accelerator": (NANOGPT.value,),
        "quantization": (WORKDIR.value,),
        "speculative": (TARGET.value, DRAFT.value),
        "load": (SECONDS.value,),
        "tokenizers": (TOKENIZERS.value, TEXTS.value),
    }.get(name, ())


def heading() -> str:
    import jax

    given = [argument for argument in sys.argv[1:] if not argument.startswith("--output")]
    without_paths = [re.sub(r"=.*[/\\].*", "=...", argument) for argument in given]
    command = " ".join(["python experiments/benchmark.py", *without_paths])
    if ONLY.value == ["exports"]:
        return (f"# What can be written for others\n\n{datetime.date.today()}. Exactly the same function, or nothing: "
                f"what is written otherwise is a change of parameters (interop/folds.py).\n\n`{command}`")
    title = {"decode": "Speed of answering", "interop": "Speed with others' checkpoints"}.get(SUITE.value, "Speed")
    machine = f"{platform.machine()}, {CORES.value} cores, {jax.default_backend()}, jax {jax.__version__}"
    return (f"# {title}\n\n{datetime.date.today()}, {machine}. Every ratio is from one run on one machine.\n\n"
            f"`{command}`")


def table(rows: list[dict[str, object]]) -> str:
    """A Markdown table; the first row's keys are the columns."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([str(row[column]) for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    cli.run(main, USAGE)
