"""Evaluates a run on a whole split."""

import json
import sys

from absl import flags

from purelm import cli

USAGE = """
Evaluate a run on a whole split: its loss (nats), and what its answers score by the field's metrics.

  python experiments/evaluate.py --workdir=runs/a --split=test --compressors     a language model, beside gzip and xz
  python experiments/evaluate.py --workdir=runs/a --split=test --beam_size=4     a translation
  python experiments/evaluate.py --workdir=runs/a --quantize=int8                what fewer bits a weight lose
  python experiments/evaluate.py --workdir=runs/a --data_path=questions-words.txt     word vectors, by analogies
  python experiments/evaluate.py --workdir=runs/a --suite=lm_eval --tasks=piqa,arc_easy     by lm-evaluation-harness

Prints one JSON object (numbers alone); all goes to evaluation.json in the run folder (--suite: lm_eval.json), the
answers to predictions_SPLIT.jsonl (lm_eval_cache/, where those of --suite are kept: nothing is computed twice).
"""

WORKDIR = flags.DEFINE_string("workdir", None, "folder of a run that train.py wrote")
SPLIT = flags.DEFINE_enum("split", "validation", ["train", "validation", "test"], "what to evaluate on")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best (by validation loss) or a step")
DATA_PATH = flags.DEFINE_string("data_path", None, "other data: a file or glob, scored whole, or a folder")
BATCH_SIZE = flags.DEFINE_integer("batch_size", None, "rows at once; the run's own if not given (--suite: as many as "
                                  "fit in memory)", lower_bound=1)
COMPRESSORS = flags.DEFINE_bool("compressors", False, "give the bits per byte of gzip -9 and xz -9 on that text too")
NUM_EXAMPLES = flags.DEFINE_integer("num_examples", None, "score answers to the first so many alone", lower_bound=1)
SUITE = flags.DEFINE_enum("suite", None, ["lm_eval"], "lm_eval: the tasks of lm-evaluation-harness")
TASKS = flags.DEFINE_list("tasks", [], "--suite: names with commas between, such as piqa,arc_easy")
TASK_PATH = flags.DEFINE_string("task_path", None, "--suite: a folder with YAML files of tasks, such as "
                                "configs/lm_eval, which needs no network; --data_path is then the folder of their data")
NUM_FEWSHOT = flags.DEFINE_integer("num_fewshot", None, "--suite: examples before each question; the task's own number "
                                   "if not given", lower_bound=0)
LIMIT = flags.DEFINE_float("limit", None, "--suite: the first so many questions of each task, or below 1 that part",
                           lower_bound=0)
APPLY_CHAT_TEMPLATE = flags.DEFINE_bool("apply_chat_template", False, "--suite: ask in the format of the tokenizer's "
                                        "chat template")
GEN_KWARGS = flags.DEFINE_list("gen_kwargs", [], "--suite: change how texts are written: max_gen_toks=64,"
                               "temperature=0.7,do_sample=true")
LOG_SAMPLES = flags.DEFINE_bool("log_samples", False, "--suite: write questions and answers to lm_eval_samples.jsonl")
cli.define_decoding_flags()
cli.define_quantize_flag()


_OF_SUITE = ("tasks", "task_path", "num_fewshot", "limit", "apply_chat_template", "gen_kwargs", "log_samples")
_WITHOUT_SUITE = ("split", "compressors", "num_examples")


def main() -> None:
    _check_flags()
    if SUITE.value is not None:
        _evaluate_on_tasks()
        return
    from purelm.evaluation.report import evaluate_run, summary_of, write_evaluation

    evaluation = evaluate_run(
        WORKDIR.value, split=SPLIT.value, checkpoint=CHECKPOINT.value, data_path=DATA_PATH.value,
        batch_size=BATCH_SIZE.value, compressors=COMPRESSORS.value, decoding=cli.decoding_changes(),
        num_examples=NUM_EXAMPLES.value, quantize=cli.FLAGS.quantize,
        progress=lambda line: print(line, file=sys.stderr, flush=True))
    print(json.dumps(summary_of(evaluation.metrics)), flush=True)
    written = [write_evaluation(WORKDIR.value, evaluation.metrics), *evaluation.files]
    print(f"wrote {', '.join(map(str, written))}", file=sys.stderr)


def _check_flags() -> None:
    from purelm.errors import UserError

    decoding = [] if SUITE.value is None else [*cli.decoding_changes()]
    for name in [*(_OF_SUITE if SUITE.value is None else _WITHOUT_SUITE), *decoding]:
        if cli.FLAGS[name].present:
            raise UserError(f"--{name} has no effect {'without' if SUITE.value is None else 'with'} --suite=lm_eval"
                            f"{'; give texts that are written by --gen_kwargs' if name in decoding else ''}")
    if SUITE.value is not None and not TASKS.value:
        raise UserError("--suite=lm_eval needs --tasks; give names with commas between, such as --tasks=piqa,arc_easy")


def _evaluate_on_tasks() -> None:
    from purelm.interop.harness.running import Asked, evaluate_tasks
    from purelm.interop.harness.writing import parse_arguments

    asked = Asked(tuple(TASKS.value), TASK_PATH.value, DATA_PATH.value, NUM_FEWSHOT.value, LIMIT.value,
                  APPLY_CHAT_TEMPLATE.value, parse_arguments(GEN_KWARGS.value), LOG_SAMPLES.value)
    done = evaluate_tasks(WORKDIR.value, asked, checkpoint=CHECKPOINT.value, batch_size=BATCH_SIZE.value,
                          quantize=cli.FLAGS.quantize)
    print(done.table, file=sys.stderr, flush=True)
    print(json.dumps(done.summary), flush=True)
    print(f"wrote {', '.join(map(str, done.files))}; {done.computed:,} requests were computed, answers are kept in "
          f"{done.answers}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main, USAGE)
