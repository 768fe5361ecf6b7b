"""Checkpoints: written by Orbax in the background, sealed with checksums, restored only when every byte is right.

Layout of a checkpoint folder: `STEP/{params,ema,optimizer}/` (one Orbax PyTree each, nested dictionaries of arrays, so
that parameters can be read without knowing the optimizer) and `STEP/manifest.json` (manifests.py). Orbax writes into a
temporary folder, the manifest joins it there, and one rename makes the step appear: a step folder without a good
manifest is damage, never a save that was cut short.
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np

import purelm
from purelm.errors import UserError
from purelm.training import manifests
from purelm.training.checkpoint_items import (
    dtypes_and_shapes,
    load_orbax,
    piece_arguments,
    state_items,
    to_save,
)
from purelm.training.checkpoint_restore import Restored, Warn, restore_latest, restore_params, warn_on_stderr
from purelm.training.manifests import Manifest, all_steps, best_step, latest_step

# Of a file, and of what is compressed at once: both are held in memory whole while they are written and read.
_PIECE_BYTES = 16 << 20

__all__ = ["Checkpoints", "Restored", "all_steps", "best_step", "latest_step", "restore_latest",
           "restore_params"]


def _disk_error(error: OSError | ValueError) -> str | None:
    """What the operating system said, where `error` came from the disk (TensorStore wraps it in a ValueError)."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    code = re.search(r"os[_ ]error(?:_code)?[^0-9a-z]+(\d+)", str(error), re.IGNORECASE)
    return os.strerror(int(code[1])) if code else None


class Checkpoints:
    """The checkpoints of one training run; the only one that writes to their folder. Use it in a `with` statement.

    In a program of several processes every process makes one and calls the same methods in the same order, on a folder
    that all of them see.

    Args:
        folder: made where missing; what earlier, killed processes left unfinished there is deleted.
        keep_last: newest good checkpoints kept.
        keep_best: keep the one of the lowest `metrics["loss"]` besides.
        warn: told of damaged checkpoints and failed deletions, a line each.

    Raises:
        UserError: the folder cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep_last: int, keep_best: bool,
                 warn: Warn = warn_on_stderr) -> None:
        self.folder = Path(folder).absolute()
        self._keep_last, self._keep_best, self._warn = keep_last, keep_best, warn
        self._checkpointer: Any = None
        self._saving: Manifest | None = None
        self._trusted: set[int] = set()  # written or restored by this object
        self._damaged: set[int] = set()  # found so by restore_latest, though names and sizes are right
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if jax.process_index() == 0:
                manifests.delete_unfinished(self.folder)
                manifests.check_writable(self.folder)
        except OSError as error:
            raise UserError(f"cannot write checkpoints to {self.folder}: {error.strerror}; "
                            "give another --workdir, or free it") from error

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except UserError as second_error:  # the first one is what the user must see
            self._warn(str(second_error))

    def close(self) -> None:
        """Wait for the last save; raises as `wait` does."""
        try:
            self.wait()
        finally:
            if self._checkpointer is not None:
                self._checkpointer.close()
                self._checkpointer = None

    def save(self, step: int, state: Any, metadata: Mapping[str, Any] | None = None, *,
             metrics: Mapping[str, float] | None = None) -> bool:
        """Copy the state off the devices and write it in the background; waits for the save before it, if still going.

        Args:
            step: updates done.
            state: dataclass with fields step, params, opt_state, ema (or None), without replica axes; leaves are numpy
                arrays or jax.Arrays, which may be sharded and may be donated as soon as this returns.
            metadata: JSON values; given back on restoring, with "step" and "versions" added.
            metrics: scores at this step; "loss", if there, is the validation loss.

        Returns:
            False where this object has saved or restored this very step already, which is then left as it is.

        Raises:
            UserError: this save, or the one before it, cannot be written.
        """
        self.wait()
        if step in self._trusted:
            return False
        ocp = load_orbax()
        if self._checkpointer is None:
            self._checkpointer = ocp.AsyncCheckpointer(
                ocp.CompositeCheckpointHandler(),
                async_options=ocp.options.AsyncOptions(
                    post_finalization_callback=self._seal, create_directories_asynchronously=False))
        items = state_items(state)
        versions = {"python": platform.python_version(), "purelm": purelm.__version__, "jax": jax.__version__,
                    "numpy": np.__version__, "orbax": ocp.__version__}
        self._saving = Manifest(
            step=step,
            metadata=json.loads(json.dumps({**(metadata or {}), "step": step, "versions": versions})),
            metrics={name: float(value) for name, value in (metrics or {}).items()},
            arrays={item: dtypes_and_shapes(tree) for item, tree in items.items()})
        arguments = piece_arguments(ocp, to_save(items), _PIECE_BYTES)
        try:
            # force: a damaged or stale folder of this step is replaced.
            self._checkpointer.save(self.folder / str(step), args=ocp.args.Composite(**arguments), force=True)
        except (OSError, ValueError) as error:
            self._fail(error)
        except BaseException:  # such as KeyboardInterrupt: there is then no save to wait for
            self._saving = None
            raise
        return True

    def _seal(self) -> None:
        """Called by Orbax in its background thread, on the primary process, when all files of all processes are written
        and the temporary folder is about to be renamed."""
        temporary = next(self.folder.glob(f"{self._saving.step}.orbax-checkpoint-tmp*"))
        manifests.write_manifest(temporary, self._saving)

    def wait(self) -> None:
        """Wait until nothing is being written, then delete the checkpoints that are not to be kept.

        Raises:
            UserError: the last save could not be written; the checkpoints before it are as they were.
        """
        if self._saving is None:
            return
        try:
            self._checkpointer.wait_until_finished()
        except (OSError, ValueError) as error:
            self._fail(error)
        step, self._saving = self._saving.step, None
        self._trusted.add(step)
        self._damaged.discard(step)
        if jax.process_index() == 0:
            if not (self.folder / str(step) / manifests.MANIFEST).exists():
                raise RuntimeError(f"Orbax finished checkpoint {step} without calling back for its manifest")
            try:
                manifests.prune(self.folder, keep_last=self._keep_last, keep_best=self._keep_best,
                                damaged=self._damaged)
            except OSError as error:
                self._warn(f"cannot delete an old checkpoint in {self.folder}: {error.strerror}")

    def _fail(self, error: OSError | ValueError) -> None:
        """Raise what a failed save means to the user, after removing what it left, so that the disk has room again."""
        step, self._saving = self._saving.step, None
        reason = _disk_error(error)
        if reason is None:
            raise error
        if jax.process_index() == 0:
            try:
                manifests.delete_unfinished(self.folder)
            except OSError as second_error:
                self._warn(f"cannot delete the unfinished checkpoint in {self.folder}: {second_error.strerror}")
        good = self.latest_step()
        still = "there is no good checkpoint" if good is None else f"checkpoint {good} is still good"
        raise UserError(f"cannot write checkpoint {step} to {self.folder}: {reason}; {still}") from error

    def restore_latest(self, abstract_state: Any, *, at: int | None = None) -> Restored | None:
        """As the function of this name; damaged steps found on the way are deleted once a newer one is saved."""
        self.wait()
        restored = restore_latest(self.folder, abstract_state, at=at, warn=self._warn)
        if restored is not None:
            self._trusted.add(restored.step)
            self._damaged |= restored.damaged
        return restored

    def reached_preemption(self, step: int) -> bool:
        """Whether JAX's coordination service, which takes SIGTERM from several processes, says to stop at `step`.

        Every process must ask at every step; all get the same answer. False where there is one process.
        """
        if jax.process_count() == 1:
            return False
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(step)

    def all_steps(self) -> list[int]:
        """Good checkpoints, oldest first."""
        return [step for step in all_steps(self.folder) if step not in self._damaged]

    def latest_step(self) -> int | None:
        """The newest good checkpoint."""
        return max(self.all_steps(), default=None)

    def best_step(self) -> int | None:
        """The good checkpoint of the lowest validation loss."""
        good = manifests.good_manifests(self.folder)
        return next((step for step in manifests.best_first(good) if step not in self._damaged), None)
