"""Evaluates a run on a whole split."""

import json
import sys

from absl import flags

from purelm import cli

USAGE = """
Evaluate a run on a whole split: loss (nats a token), perplexity, accuracy, bits per byte.

  python experiments/evaluate.py --workdir=runs/a
  python experiments/evaluate.py --workdir=runs/a --split=test --compressors

Prints one JSON object, and writes it to evaluation.json in the run folder.
"""

WORKDIR = flags.DEFINE_string("workdir", None, "folder of a run that train.py wrote")
SPLIT = flags.DEFINE_enum("split", "validation", ["train", "validation", "test"], "what to evaluate on")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best (by validation loss) or a step")
DATA_PATH = flags.DEFINE_string("data_path", None, "other data: a file or glob, scored whole, or a folder")
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "windows at once; the run's own if not given", lower_bound=1)
COMPRESSORS = flags.DEFINE_bool("compressors", False, "give the bits per byte of gzip -9 and xz -9 on that text too")


def main() -> None:
    from purelm.training.report import evaluate_run, write_evaluation

    result = evaluate_run(WORKDIR.value, split=SPLIT.value, checkpoint=CHECKPOINT.value, data_path=DATA_PATH.value,
                          batch_size=BATCH_SIZE.value, compressors=COMPRESSORS.value)
    print(json.dumps(result), flush=True)
    print(f"wrote {write_evaluation(WORKDIR.value, result)}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main, USAGE)
