"""Answers to new rows: a text from the command line, or a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from purelm.config import Config
from purelm.errors import UserError
from purelm.evaluation import evaluator_of
from purelm.evaluation.report import with_decoding
from purelm.training.load import LoadedRun, load_run


def answer_new(workdir: str | None, *, text: str | None, path: str | None, output: str | None = None,
               checkpoint: str = "latest", batch_size: int | None = None, decoding: dict[str, Any] | None = None,
               explain: bool = False, quantize: str | None = None,
               progress: Callable[[str], None] | None = None) -> list[dict[str, Any]]:
    """One answer for each new row, in order, as the task's `predict` gives them.

    Args:
      workdir, checkpoint: of the run.
      text: one text, or
      path: a file of rows in the format of the run's training data without answers, or of texts, one a line.
      output: where the answers will be written; looked at before any work is done.
      batch_size: rows at once; None is the run's.
      decoding: fields of config.decoding to change.
      quantize: bfloat16, int8 or int4, what weights are kept in; None as they are.
      explain: adds the weights of attention pooling, [token, weight] in the order of the text.
      progress: called with one line at the start of each long part.

    Raises:
      UserError: not exactly one of text and path, a file that cannot be read, a row without a field, a folder that
        the output cannot be written to.
    """
    if (text is None) == (path is None):
        raise UserError("give one of --text=\"...\" and --input=FILE" + ("" if text is None else ", not both"))
    if text is not None and not text.strip():
        raise UserError("--text is empty; give a text to answer")
    if output is not None and not os.path.isdir(os.path.dirname(output) or "."):
        raise UserError(f"--output={output}: there is no folder {os.path.dirname(output)}; make it first")
    if output is not None and os.path.isdir(output):
        raise UserError(f"--output={output}: is a folder; give a file, such as {os.path.join(output, 'answers.jsonl')}")
    if output is not None and path is not None and os.path.realpath(output) == os.path.realpath(path):
        raise UserError(f"--output={output}: is the --input, which would be lost; give another file")
    from purelm.runtime import start_jax

    start_jax()
    run = with_decoding(load_run(workdir, checkpoint, quantize=quantize), decoding)
    evaluator = evaluator_of(run.config)
    if not hasattr(evaluator, "predict"):
        raise UserError(f"config.task.name={run.config.task.name}: {evaluator.__name__} has no predict(run, examples, "
                        "...); write one to answer new texts")
    from purelm.data.new_rows import clean_examples, read_new_rows

    data, format_name = run.config.data, evaluator.input_format(run.config)
    if text is not None:
        examples = [evaluator.example_of_text(run.config, text)]
    else:
        examples = read_new_rows(path, data, format_name, lambda text: evaluator.example_of_text(run.config, text))
    examples = clean_examples(examples, data, format_name)
    training = run.config.training
    options: dict[str, Any] = {}
    if explain:
        if run.config.task.name != "classification" or run.config.model.pooling != "attention":
            raise UserError("--explain is for classification with config.model.pooling=attention, such as "
                            "configs/classification/bilstm_attention.py")
        options["explain"] = True
    return evaluator.predict(run, examples, batch_size=batch_size or training.batch_size // training.accumulation_steps,
                             progress=progress, **options)


def examples_of(config: Config, rows: Sequence[str | dict[str, Any]]) -> list[dict[str, Any]]:
    """The examples that texts or rows of the run's format mean, cleaned as its training data was.

    Raises UserError, beginning with "row N" from 0, for an empty text or a row without what its format needs.
    """
    from purelm.data.new_rows import clean_examples, new_example

    evaluator = evaluator_of(config)
    format_name, examples = evaluator.input_format(config), []
    for number, row in enumerate(rows):
        where = f"row {number}"
        if not isinstance(row, str):
            examples.append(new_example(row, config.data, format_name, where))
            continue
        if not row.strip():
            raise UserError(f"{where} is empty; give a text to answer")
        try:
            example = evaluator.example_of_text(config, row)
            named = {name: where for name in ("where", "id") if name in example}
            examples.append({**example, **named})
        except UserError as error:
            raise UserError(f"{where}: {str(error).removeprefix('--text: ')}") from error
    return clean_examples(examples, config.data, format_name)


def answer_rows(run: LoadedRun, examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers to examples of `examples_of`, by a run that is loaded already; as `answer_new` gives them.

    Batches are of the run's size, or of the power of two that holds the rows where they are fewer, so that few
    programs are compiled.
    """
    training = run.config.training
    batch_size = min(training.batch_size // training.accumulation_steps, 1 << (len(examples) - 1).bit_length())
    return evaluator_of(run.config).predict(run, examples, batch_size=batch_size)
