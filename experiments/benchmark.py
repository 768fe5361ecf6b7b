"""Speed tables, each a ratio to a peer or a limit measured in the same run."""

import datetime
import os
import platform
import re
import sys

from absl import flags

from purelm import cli

USAGE = """
Measure speed, as ratios to peers and limits in the same run, and print the tables (and write them to --output).

  python experiments/benchmark.py                                     what needs nothing else: sampling, second start
  python experiments/benchmark.py --nanogpt=FOLDER --shakespeare=FILE  with nanoGPT's own code beside (its public
                                                                       repository, checked out by you) on input.txt
  python experiments/benchmark.py --only=word_vectors --corpus=FILE    gensim beside ours
"""

TABLES = ("training_step", "time_to_loss", "sampling", "second_start", "accelerator", "word_vectors", "together")
ONLY = flags.DEFINE_multi_enum("only", list(TABLES), TABLES, "which tables")
NANOGPT = flags.DEFINE_string("nanogpt", None, "a checkout of github.com/karpathy/nanoGPT, to run beside ours")
SHAKESPEARE = flags.DEFINE_string("shakespeare", None, "tinyshakespeare's input.txt")
SEEDS = flags.DEFINE_integer("seeds", 3, "seeds of time_to_loss and of word_vectors", lower_bound=1)
CORPUS = flags.DEFINE_string("corpus", None, "text of word_vectors, one document a line, or .jsonl")
EPOCHS = flags.DEFINE_integer("epochs", 5, "of word_vectors", lower_bound=1)
STEPS = flags.DEFINE_list("steps", ["100", "300"], "of each run of together, a row each")
CORES = flags.DEFINE_integer("cores", 2, "CPU cores that every program may use", lower_bound=1)
OUTPUT = flags.DEFINE_string("output", None, "Markdown file to write the tables to")

TITLES = {
    "training_step": "Step time, nanoGPT's CPU model and batch (4 layers x 128, 12 x 64 tokens), in one process",
    "time_to_loss": "Wall-clock to validation loss 1.88 on tinyshakespeare",
    "sampling": "Sampling, batch 1, float32",
    "second_start": "Time to the first step, from process start",
    "accelerator": "GPT-2 124M, context 1024, bfloat16, one accelerator",
    "word_vectors": "Word vectors beside gensim: one text, size, window, negatives and epochs",
    "together": "8 seeds of a 1M-parameter decoder, together over 8 commands one after another (wall-clock)",
}


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: CORES.value])
    from purelm.runtime import start_jax

    start_jax()
    sections = [heading()]
    for name in ONLY.value:
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
    needs = {"training_step": [NANOGPT], "time_to_loss": [NANOGPT, SHAKESPEARE], "word_vectors": [CORPUS]}.get(name, [])
    missing = [f"--{flag.name}" for flag in needs if flag.value is None]
    if missing:
        print(f"{name}: skipped, needs {' and '.join(missing)}", file=sys.stderr)
        return []
    print(f"{name}: measuring", file=sys.stderr)
    if name == "training_step":
        from benchmarks import training_step

        return training_step.measure(NANOGPT.value)
    if name == "time_to_loss":
        from benchmarks import time_to_loss

        return time_to_loss.measure(NANOGPT.value, SHAKESPEARE.value, SEEDS.value)
    if name == "sampling":
        from benchmarks import sampling

        return sampling.measure()
    if name == "second_start":
        from benchmarks import second_start

        return second_start.measure(SHAKESPEARE.value)
    if name == "word_vectors":
        from benchmarks import word_vectors

        return word_vectors.measure(CORPUS.value, max(SEEDS.value, 2), CORES.value, EPOCHS.value)
    if name == "together":
        from benchmarks import together

        return together.measure(SHAKESPEARE.value, tuple(map(int, STEPS.value)))
    from benchmarks import accelerator

    rows = accelerator.measure(NANOGPT.value)
    if not rows:
        print("accelerator: skipped, there is none here", file=sys.stderr)
    return rows


def heading() -> str:
    import jax

    given = [argument for argument in sys.argv[1:] if not argument.startswith("--output")]
    without_paths = [re.sub(r"=.*[/\\].*", "=...", argument) for argument in given]
    command = " ".join(["python experiments/benchmark.py", *without_paths])
    return (f"# Speed\n\n{datetime.date.today()}, {platform.machine()}, {CORES.value} cores, {jax.default_backend()}, "
            f"jax {jax.__version__}. Every ratio is from one run on one machine.\n\n`{command}`")


def table(rows: list[dict[str, object]]) -> str:
    """A Markdown table; the first row's keys are the columns."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns), *([str(row[column]) for column in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    cli.run(main, USAGE)
