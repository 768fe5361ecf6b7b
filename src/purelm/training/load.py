"""A finished or running run, opened to be used: its config, tokenizer and parameters."""

from __future__ import annotations

import dataclasses
from typing import Any

from purelm.config import Config
from purelm.errors import UserError
from purelm.training.run_folder import RunFolder, open_run


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """`params` are the averaged ones where the run keeps an average; `step` is the checkpoint's."""

    folder: RunFolder
    config: Config
    tokenizer: Any
    params: Any
    step: int


def load_run(workdir: str | None, checkpoint: str = "latest") -> LoadedRun:
    """Opens a run.

    Args:
      workdir: its folder.
      checkpoint: "latest", "best" (by validation loss), or a step.

    Raises:
      UserError: no run, no such checkpoint, or one that is damaged or does not fit the config.
    """
    if not workdir:
        raise UserError("--workdir is missing; give the folder of a run, such as --workdir=runs/a")
    folder, config = open_run(workdir)
    if checkpoint not in ("latest", "best") and not checkpoint.isdecimal():
        raise UserError(f"--checkpoint={checkpoint}: wants latest, best or the number of a step")
    from purelm.data import load_tokenizer
    from purelm.models.counting import parameter_shapes
    from purelm.training.checkpoints import restore_params

    tokenizer = load_tokenizer(folder.tokenizer)
    if tokenizer.vocabulary_size > config.model.vocabulary_size:
        raise UserError(f"{folder.tokenizer}: has {tokenizer.vocabulary_size} tokens, and the model of {folder.config} "
                        f"only {config.model.vocabulary_size}; it is not this run's tokenizer")
    params, metadata = restore_params(
        folder.checkpoints, step=int(checkpoint) if checkpoint.isdecimal() else None, best=checkpoint == "best",
        abstract_params=parameter_shapes(config.model))
    return LoadedRun(folder, config, tokenizer, params, metadata["step"])
