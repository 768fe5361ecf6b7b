"""A finished or running run, opened to be used: its config, tokenizer, labels and parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

from purelm.config import Config
from purelm.errors import UserError
from purelm.training.run_folder import RunFolder, open_run, read_labels, read_record


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """`params` are the averaged ones where the run keeps an average, with its adapters merged; `labels` the classes
    or tags in the order of their numbers, or None; `step` is the checkpoint's."""

    folder: RunFolder
    config: Config
    tokenizer: Any
    labels: tuple[str, ...] | None
    params: Any
    step: int


def load_run(workdir: str | None, checkpoint: str = "latest", *, field: str = "--workdir",
             quantize: str | None = None) -> LoadedRun:
    """Opens a run.

    Args:
      workdir: its folder.
      checkpoint: "latest", "best" (by validation loss), or a step.
      field: what named the folder, for messages.
      quantize: bfloat16, int8 or int4, what weights are kept in; None as they are.

    Raises:
      UserError: no run, no such checkpoint, one that is damaged or does not fit the config, or a network that is not
        quantized.
    """
    if not workdir:
        raise UserError("--workdir is missing; give the folder of a run, such as --workdir=runs/a")
    folder, config = open_run(workdir, field)
    if checkpoint not in ("latest", "best") and not checkpoint.isdecimal():
        raise UserError(f"--checkpoint={checkpoint}: wants latest, best or the number of a step")
    from purelm.data import load_tokenizer
    from purelm.models.adapters import merge_adapters
    from purelm.training.checkpoints import restore_params
    from purelm.training.state import params_shapes

    tokenizer = load_tokenizer(folder.tokenizer)
    if tokenizer.fingerprint != read_record(folder)["data"]["tokenizer"]:
        raise UserError(f"{folder.tokenizer}: is not the tokenizer that this run was trained with (run.json knows its "
                        "hash); put the right one back")
    params, step = restore_params(folder.checkpoints, int(checkpoint) if checkpoint.isdecimal() else checkpoint,
                                  shapes=params_shapes(config))
    params = merge_adapters(config.adapter, params)
    if quantize is not None:
        from purelm.models.quantization import quantize_params

        params = quantize_params(config.model, params, quantize)
    return LoadedRun(folder, config, tokenizer, read_labels(folder), params, step)
