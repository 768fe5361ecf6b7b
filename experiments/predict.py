"""Answers new texts with a run's model."""

import json
import sys

from absl import flags

from purelm import cli

USAGE = """
Answer new texts with a run's model, each with its probability: a class, tags, a translation, an answer, a reply, ...

  python experiments/predict.py --workdir=runs/a --text="A film to remember."
  python experiments/predict.py --workdir=runs/a --input=new.jsonl --output=answers.jsonl
  python experiments/predict.py --workdir=runs/a --input=new.txt       one text a line

--input is JSON lines with the fields of the run's training data, answers left out (plain, .gz or .xz), or text.
For extractive question answering --text is "question ||| paragraph".
"""

WORKDIR = flags.DEFINE_string("workdir", None, "folder of a run that train.py wrote")
TEXT = flags.DEFINE_string("text", None, "one text")
INPUT = flags.DEFINE_string("input", None, "file of rows, .jsonl or .txt")
OUTPUT = flags.DEFINE_string("output", None, "file for the answers, .jsonl; printed if not given")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best (by validation loss) or a step")
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "rows at once; the run's own if not given", lower_bound=1)
EXPLAIN = flags.DEFINE_bool("explain", False, "classification with attention pooling: what was read, token by token")
cli.define_decoding_flags()
cli.define_quantize_flag()


def main() -> None:
    from purelm.evaluation.answers import answer_new
    from purelm.evaluation.report import write_predictions

    rows = answer_new(WORKDIR.value, text=TEXT.value, path=INPUT.value, output=OUTPUT.value,
                      checkpoint=CHECKPOINT.value, batch_size=BATCH_SIZE.value, explain=EXPLAIN.value,
                      decoding=cli.decoding_changes(), quantize=cli.FLAGS.quantize,
                      progress=lambda line: print(line, file=sys.stderr, flush=True))
    if OUTPUT.value is None:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    import pathlib

    write_predictions(pathlib.Path(OUTPUT.value), rows)
    print(f"wrote {OUTPUT.value}: {len(rows):,} rows", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main, USAGE)
