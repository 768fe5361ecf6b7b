"""Cells as a SLURM job array: a script to give to sbatch, an array task for each task."""

from __future__ import annotations

import os
import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence

import purelm
from purelm.ablation.fingerprints import code_fingerprint
from purelm.ablation.launchers import TaskFailure
from purelm.errors import UserError
from purelm.training.run_folder import write_atomically

_SOURCE = str(pathlib.Path(purelm.__file__).parents[1])  # Where this process has purelm from, however that came about.
_SECONDS_TO_SAVE = 120

_SCRIPT = """\
#!/bin/bash
{directives}
# Written by ablate.py --launcher=slurm: array task N does line N (from 0) of those below, the cells of one worker.
# What is unfinished afterwards (a time limit, a lost node) goes on from its checkpoints with a script written anew.
set -euo pipefail
cd {folder}
export PYTHONPATH={source}${{PYTHONPATH:+:$PYTHONPATH}}
cells=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" <<'CELLS'
{tasks}
CELLS
)
exec {python} -m purelm.ablation.worker --workdir={workdir} --code={code}{together} --cells="$cells"
"""


class SlurmLauncher:
    """Runs nothing: writes WORK/slurm.sh and says what to type.

    Attributes:
      workers: how many tasks of the array run at once (1 leaves that to the cluster, and each program's cells in one
        task).
    """

    def __init__(self, workers: int | None = None):
        if workers is not None and workers < 1:
            raise UserError(f"--workers={workers}: must be at least 1")
        self.workers = 1 if workers is None else workers
        self._at_once = workers

    def run(self, workdir: str, tasks: Sequence[Sequence[str]], *, together: bool,
            on_change: Callable[[], None]) -> list[TaskFailure]:
        """Writes the script; see launchers.Launcher."""
        if not tasks:
            return []
        path = write_script(workdir, tasks, together=together, at_once=self._at_once)
        print(f"wrote {path}: {len(tasks)} array tasks. Submit it with what your cluster asks for, such as\n"
              f"  sbatch --time=4:00:00 --gres=gpu:1 {shlex.quote(str(path))}\n"
              "and then write the tables with\n"
              f"  python experiments/ablate.py --workdir={shlex.quote(workdir)} --report", file=sys.stderr, flush=True)
        return []


def write_script(workdir: str, tasks: Sequence[Sequence[str]], *, together: bool, python: str = sys.executable,
                 at_once: int | None = None, time_limit: str | None = None, directives: Sequence[str] = (),
                 job_name: str = "ablation") -> pathlib.Path:
    """Writes WORK/slurm.sh, which `sbatch` takes: all that its tasks are to do is in it, as a copy of it waits in the
    queue. A task refuses other code than today's, whose results would be recorded as today's.

    Args:
      workdir: of the ablation, on a file system that all nodes share; plan.json is there.
      tasks: lists of cells, one for each task of the array.
      together: the cells of a task train as one program.
      python: that runs the workers, with this environment.
      at_once: how many tasks of the array run at the same time; None leaves it to the cluster.
      time_limit: of each task, as sbatch takes it, such as "4:00:00"; None is the cluster's default.
      directives: further options of sbatch, such as "--gres=gpu:1".
      job_name: shown in the queue.

    Returns:
      The script's path.

    Raises:
      UserError: a directive that is no option, or a folder that cannot be written to.
    """
    folder = pathlib.Path(workdir).resolve()
    for directive in directives:
        if not directive.startswith("-") or "\n" in directive:
            raise UserError(f"sbatch option '{directive}': wants one such as --gres=gpu:1")
    limit = "" if at_once is None else f"%{at_once}"
    options = [f"--job-name={job_name}", f"--array=0-{len(tasks) - 1}{limit}",
               f'--output="{_in_quotes(folder)}/logs/slurm-%A_%a.log"',
               "--open-mode=append", "--requeue",
               # To the script's own process, which becomes the worker's: it saves, and can be gone on with.
               f"--signal=B:TERM@{_SECONDS_TO_SAVE}",
               *([f"--time={time_limit}"] if time_limit else []), *directives]
    script_path = folder / "slurm.sh"
    script = _SCRIPT.format(
        directives="\n".join(f"#SBATCH {option}" for option in options), folder=shlex.quote(os.getcwd()),
        source=shlex.quote(_SOURCE), tasks="\n".join(",".join(keys) for keys in tasks), python=shlex.quote(python),
        workdir=shlex.quote(str(folder)), code=code_fingerprint(), together=" --together" if together else "")
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)  # sbatch does not make it, and its tasks fail without.
        write_atomically(script_path, script)
        script_path.chmod(0o755)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot be written to ({error.strerror})") from error
    return script_path


def _in_quotes(path: pathlib.Path) -> str:
    """A folder inside quotes of an #SBATCH line that takes a pattern."""
    return str(path).replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
