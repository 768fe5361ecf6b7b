"""metrics.jsonl, the truth of a run: one row a log point; TensorBoard beside it."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

from purelm.errors import UserError
from purelm.training.run_folder import write_atomically


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a metrics file; a last line that a kill cut short is left out.

    Raises:
      UserError: a line other than the last is not a row.
    """
    if not path.is_file():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number == len(lines):
                break
            raise UserError(f"{path}:{number}: not a row of metrics; remove that line") from None
    return rows


class MetricsWriter:
    """Appends rows `{"step", "split", ...}` to metrics.jsonl and their numbers to TensorBoard.

    Rows of steps after `resume_step` are dropped first: they belong to steps that will be trained again.
    """

    def __init__(self, path: pathlib.Path, *, resume_step: int):
        kept = [row for row in read_rows(path) if row["step"] <= resume_step]
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._path = path
        self._file = path.open("a", encoding="utf-8")
        self._resume_step = resume_step
        self._tensorboard = None

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Adds one row; numbers that are not finite are written as null, as JSON has no NaN."""
        row = {"step": step, "split": split}
        row.update({name: value if not isinstance(value, float) or math.isfinite(value) else None
                    for name, value in values.items()})
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        except OSError as error:
            raise UserError(f"{self._path}: cannot be written ({error.strerror}); free some space and give the same "
                            "command again to resume") from error
        for name, value in values.items():
            if isinstance(value, (int, float)):
                self._summary_writer().add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Flushes both."""
        self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def _summary_writer(self):
        if self._tensorboard is None:
            from tensorboardX import SummaryWriter

            self._tensorboard = SummaryWriter(str(self._path.parent / "tensorboard"),
                                              purge_step=self._resume_step + 1)
        return self._tensorboard
