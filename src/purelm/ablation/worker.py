"""What trains and evaluates cells, in whatever process: here, in a worker's, on a cluster.

    python -m purelm.ablation.worker --workdir=W --cells=ROW/SEED,ROW/SEED [--together]

does those cells of W/plan.json and ends; with --tasks in place of --cells it takes one task after another from its
standard input (see `serve`).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from purelm.ablation.cell_work import Signals, Stopped, Work, forget_programs
from purelm.ablation.fingerprints import code_fingerprint
from purelm.ablation.store import CellRecord, read_record, status
from purelm.errors import UserError

__all__ = ["Stopped", "run_cells", "serve"]


def run_cells(workdir: str, keys: Sequence[str], *, together: bool, quiet: bool = True,
              devices: Sequence[Any] | None = None, on_change: Callable[[], None] | None = None) -> list[CellRecord]:
    """Trains and evaluates cells of the plan; those that are done already are left alone.

    Args:
      workdir: of the ablation.
      keys: of cells in plan.json; with `together` and more than one, all of one program.
      together: train those that are to be trained as one program, and else one after the other.
      quiet: show nothing of the trainings.
      devices: to use; None is all of this process.
      on_change: called when a cell is done or failed.

    Returns:
      The cells' records, in order. What goes wrong with a cell is in its record, with the traceback in logs/.

    Raises:
      Stopped: SIGTERM or ctrl-C came during a training; its cells can be resumed.
      UserError: plan.json is missing or damaged, or the work folder cannot be written to.
    """
    from purelm.ablation.plan import read_plan

    plan = read_plan(workdir)
    missing = [key for key in keys if key not in plan]
    if missing:
        raise UserError(f"{workdir}/plan.json: has no cell {missing[0]}; plan again with the command that made it")
    cells = [plan[key] for key in keys]
    to_train = [cell for cell in cells if status(workdir, cell).todo == "train"]
    with Signals() as signals:
        work = Work(workdir, quiet, devices, on_change or (lambda: None), signals)
        if together and len(to_train) > 1:
            work.train_together(to_train)
        for cell in cells:
            if cell.key not in work.tried and status(workdir, cell).todo == "train":
                work.guarded(cell, work.train)
            if status(workdir, cell).todo == "evaluate":
                work.guarded(cell, work.evaluate)
            forget_programs()
    return [record for key in keys if (record := read_record(workdir, key)) is not None]


def serve(workdir: str) -> None:
    """Takes tasks from standard input, a line of JSON {"cells": [...], "together": bool} each, and answers "ready" and
    then "done" for each on what was standard output; all else that is printed goes to standard error.

    Where standard input ends, whoever gave the tasks is gone, and the process stops at once: what is not saved by then
    is what a kill would cost.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    tasks: list[str] = []
    given = threading.Semaphore(0)

    def listen() -> None:
        for line in sys.stdin:
            tasks.append(line)
            given.release()
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    print("ready", file=answers, flush=True)
    while True:
        given.acquire()
        task = json.loads(tasks.pop(0))
        run_cells(workdir, task["cells"], together=task["together"], quiet=False)
        print("done", file=answers, flush=True)


def parsed_keys(text: str) -> list[str]:
    """The cells of "ROW/SEED,ROW/SEED"; names of rows may have commas."""
    keys = re.findall(r"([^/]+/\d+)(?:,|$)", text)
    if ",".join(keys) != text:
        raise UserError(f"--cells={text}: wants ROW/SEED,ROW/SEED, such as base/0,base/1")
    return keys


def main() -> None:
    parser = argparse.ArgumentParser("python -m purelm.ablation.worker", description="Does cells of an ablation that "
                                     "experiments/ablate.py planned; it is started by a launcher.")
    parser.add_argument("--workdir", required=True, help="folder of the ablation")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--cells", help="ROW/SEED,ROW/SEED,...")
    what.add_argument("--tasks", action="store_true", help="take tasks from standard input")
    parser.add_argument("--together", action="store_true", help="train the cells as one program")
    parser.add_argument("--code", help="fingerprint of the code that planned the cells; other code is refused")
    parser.add_argument("--cores", help="processor cores to keep to, such as 0,1")
    arguments = parser.parse_args()
    if arguments.cores:
        os.sched_setaffinity(0, {int(core) for core in arguments.cores.split(",")})  # Before jax counts them.
    from purelm.runtime import keep_memory

    keep_memory()
    try:
        if arguments.code not in (None, code_fingerprint()):
            raise UserError(f"{arguments.workdir}: its cells were planned with other code than is here now; give the "
                            "command that planned them again")
        if arguments.tasks:
            serve(arguments.workdir)
        keys = parsed_keys(arguments.cells)
        records = run_cells(arguments.workdir, keys, together=arguments.together, quiet=False)
    except Stopped as stopped:
        sys.stderr.flush()
        os._exit(128 + stopped.signal)  # At once: the thread that listens cannot be ended.
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    failed = [record for record in records if record.state == "failed"]
    for record in failed:
        print(f"failed: {record.key}: {record.error}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
