"""Evaluation of a run as a record: which model, which split, what it scored."""

from __future__ import annotations

import dataclasses
import gzip
import json
import lzma
import math
import pathlib
from typing import Any

from purelm.errors import UserError
from purelm.training.run_folder import check_same_data, write_atomically


def evaluate_run(workdir: str | None, *, split: str = "validation", checkpoint: str = "latest",
                 data_path: str | None = None, batch_size: int | None = None,
                 compressors: bool = False) -> dict[str, Any]:
    """The metrics of a run's model on a whole split.

    Args:
      workdir: the run folder.
      split: "train", "validation" or "test".
      checkpoint: "latest", "best" or a step.
      data_path: other data than the run was trained on: a file or files, scored whole (and called "train"), or a
        folder with a file for the split.
      batch_size: windows at once; None is the run's.
      compressors: adds `gzip_bits_per_byte` and `xz_bits_per_byte`, both at level 9 on the split as one text.

    Raises:
      UserError: no run, no checkpoint, no such split, or data that changed since the run was trained on it.
    """
    from purelm.runtime import start_jax

    start_jax()
    import jax

    from purelm.data import evaluation_batches, prepare
    from purelm.tasks.language_modeling import loss_sums
    from purelm.training.evaluation import metrics_of, sum_batches
    from purelm.training.load import load_run

    run = load_run(workdir, checkpoint)
    config, training = run.config, run.config.training
    if data_path is not None:  # A file by itself is scored whole: nothing of it is cut off for other splits.
        config = dataclasses.replace(config, data=dataclasses.replace(
            config.data, path=data_path, source="auto", validation_fraction=0.0, test_fraction=0.0))
    data = prepare(config, tokenizer=run.tokenizer)
    if data_path is None:
        check_same_data(run.folder, data.fingerprint)
    elif set(data.splits) == {"train"}:
        split = "train"
    if split not in data.splits:
        raise UserError(f"--split={split}: the data has no such split; it has {', '.join(data.splits)}")
    tokens, params = data.splits[split], jax.device_put(run.params)
    evaluate_step = jax.jit(lambda params, batch: loss_sums(config, params, batch, None))
    batches = evaluation_batches(tokens, context_length=config.model.context_length, packing=config.data.packing,
                                 batch_size=batch_size or training.batch_size // training.accumulation_steps)
    totals = sum_batches(lambda batch: evaluate_step(params, batch), batches)
    if not math.isfinite(totals["cross_entropy"]):
        raise UserError(f"{run.folder.checkpoints}: the loss of step {run.step} is not finite; give another "
                        "--checkpoint")
    result = {"split": split, "step": run.step, **metrics_of(totals, num_bytes=tokens.num_bytes),
              "tokens": int(totals["weight"]), "bytes": tokens.num_bytes, "documents": tokens.num_documents}
    if compressors:
        result.update(compressed_bits_per_byte(text_of(tokens, run.tokenizer).encode()))
    return result


def write_evaluation(workdir: str, result: dict[str, Any]) -> pathlib.Path:
    """Writes evaluation.json in the run folder and returns its path."""
    path = pathlib.Path(workdir) / "evaluation.json"
    write_atomically(path, json.dumps(result, indent=2) + "\n")
    return path


def text_of(split: Any, tokenizer: Any) -> str:
    """The split's whole text, decoded from its tokens."""
    ids = split.tokens[:]
    if tokenizer.end_of_text_id is not None:
        ids = ids[ids != tokenizer.end_of_text_id]
    return tokenizer.decode(ids)


def compressed_bits_per_byte(text: bytes) -> dict[str, float]:
    """What gzip -9 and xz -9 make of `text`, in bits for each of its bytes."""
    return {"gzip_bits_per_byte": 8 * len(gzip.compress(text, 9)) / len(text),
            "xz_bits_per_byte": 8 * len(lzma.compress(text, preset=9)) / len(text)}
