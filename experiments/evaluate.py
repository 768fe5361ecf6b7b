"""Evaluates a run on a whole split."""

import json
import sys

from absl import flags

from purelm import cli

USAGE = """
Evaluate a run on a whole split: its loss (nats), and what its answers score by the field's metrics.

  python experiments/evaluate.py --workdir=runs/a
  python experiments/evaluate.py --workdir=runs/a --split=test --compressors     a language model, beside gzip and xz
  python experiments/evaluate.py --workdir=runs/a --split=test --beam_size=4     a translation
  python experiments/evaluate.py --workdir=runs/a --quantize=int8                what fewer bits a weight lose
  python experiments/evaluate.py --workdir=runs/a --data_path=questions-words.txt     word vectors, by analogies

Prints one JSON object (numbers alone); all of it goes to evaluation.json in the run folder, and the answers to
predictions_SPLIT.jsonl.
"""

WORKDIR = flags.DEFINE_string("workdir", None, "folder of a run that train.py wrote")
SPLIT = flags.DEFINE_enum("split", "validation", ["train", "validation", "test"], "what to evaluate on")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best (by validation loss) or a step")
DATA_PATH = flags.DEFINE_string("data_path", None, "other data: a file or glob, scored whole, or a folder")
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "rows at once; the run's own if not given", lower_bound=1)
COMPRESSORS = flags.DEFINE_bool("compressors", False, "give the bits per byte of gzip -9 and xz -9 on that text too")
NUM_EXAMPLES = flags.DEFINE_integer("num_examples", None, "score answers to the first so many alone", lower_bound=1)
cli.define_decoding_flags()
cli.define_quantize_flag()


def main() -> None:
    from purelm.evaluation.report import evaluate_run, summary_of, write_evaluation

    evaluation = evaluate_run(
        WORKDIR.value, split=SPLIT.value, checkpoint=CHECKPOINT.value, data_path=DATA_PATH.value,
        batch_size=BATCH_SIZE.value, compressors=COMPRESSORS.value, decoding=cli.decoding_changes(),
        num_examples=NUM_EXAMPLES.value, quantize=cli.FLAGS.quantize,
        progress=lambda line: print(line, file=sys.stderr, flush=True))
    print(json.dumps(summary_of(evaluation.metrics)), flush=True)
    written = [write_evaluation(WORKDIR.value, evaluation.metrics), *evaluation.files]
    print(f"wrote {', '.join(map(str, written))}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main, USAGE)
