"""Workers that die, stop and come back; the runner killed at any moment."""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
from small_table import small_table

import purelm
from purelm.ablation import runner, worker
from purelm.ablation.launchers import TaskFailure, devices
from purelm.ablation.launchers.here import HereLauncher
from purelm.ablation.launchers.processes import ProcessLauncher
from purelm.ablation.plan import plan_cells, write_plan
from purelm.ablation.store import read_record
from purelm.ablation.tasks import tasks_of
from purelm.errors import UserError
from purelm.training import launch
from purelm.training.loop import Outcome

HERE = pathlib.Path(__file__).parent
# A worker without jax: its tasks are done at once, and cells are named by what happens to their worker.
STUB = """
import json, os, signal, sys, time
from purelm.ablation.store import CellRecord, write_record
workdir = sys.argv[1]
print("ready", flush=True)
for line in sys.stdin:
    cells = json.loads(line)["cells"]
    with open(os.path.join(workdir, "tasks.jsonl"), "a") as file:
        file.write(json.dumps(cells) + "\\n")
    for key in cells:
        row, seed = key.split("/")
        if row == "killed" or row == "killed_with_others" and len(cells) > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if row == "slow":
            time.sleep(60)
        write_record(workdir, CellRecord(key, row, int(seed), "done", "f"))
    print("done", flush=True)
"""


class Stubbed(ProcessLauncher):
    """Its workers are stubs."""

    stub = STUB

    def _command(self, workdir, number):
        return [sys.executable, "-c", self.stub, workdir]


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """Does tasks with two stubs; (failures, the tasks that workers were given)."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")

    def run(tasks, kind=Stubbed):
        failures = kind(2).run(str(tmp_path), tasks, together=False, on_change=lambda: None)
        path = tmp_path / "tasks.jsonl"
        return failures, [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    return run


def test_tasks_are_done_by_whoever_is_free(pool, tmp_path):
    tasks = [(f"a/{number}",) for number in range(6)]
    failures, given = pool(tasks)
    assert failures == [] and sorted(map(tuple, given)) == tasks
    assert read_record(str(tmp_path), "a/5").state == "done"


def test_a_task_whose_worker_dies_again_and_again_fails_alone(pool):
    failures, given = pool([("killed/0",), ("a/0",), ("a/1",), ("a/2",)])
    assert failures == [TaskFailure(("killed/0",), "worker died 3 times (signal 9)")]
    assert given.count(["killed/0"]) == 3 and sorted(given)[:3] == [["a/0"], ["a/1"], ["a/2"]]


def test_what_a_dead_worker_had_done_is_not_done_again_and_a_large_task_is_halved(pool, tmp_path):
    keys = ("a/0", *(f"killed_with_others/{seed}" for seed in range(3)))
    failures, given = pool([keys])
    assert failures == []  # Halves, then single ones, which fit.
    assert sum("a/0" in cells for cells in given) == 1
    assert all(read_record(str(tmp_path), key).state == "done" for key in keys)


def test_a_pool_works_outside_of_the_main_thread(pool, tmp_path):
    """As a notebook's may; reddens where handlers of signals are set there."""
    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        assert executor.submit(pool, [("a/0",)]).result()[0] == []
    assert read_record(str(tmp_path), "a/0").state == "done"


def test_workers_that_cannot_start_are_one_line(pool):
    class Broken(Stubbed):
        stub = "raise ImportError('no such library')"

    with pytest.raises(UserError, match="workers cannot start .*no such library.*worker"):
        pool([("a/0",)], Broken)


def test_ctrl_c_ends_the_workers_too(tmp_path):
    code = ("import sys; sys.path.insert(0, sys.argv[2]); import test_worker\n"
            "test_worker.Stubbed(2).run(sys.argv[1], [('slow/0',), ('slow/1',)], together=False, "
            "on_change=lambda: None)")
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(pathlib.Path(purelm.__file__).parents[1])}
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(HERE)], env=environment,
                               stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not ((tmp_path / "tasks.jsonl").exists() and (tmp_path / "tasks.jsonl").read_text().count("slow") == 2):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert "Stopped: stopped by signal 2" in process.communicate(timeout=30)[1]
    assert not [pid for pid in running() if str(tmp_path) in pid[1]]


def running() -> list[tuple[str, str]]:
    """(process, its command line)."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append((path.parent.name, path.read_bytes().replace(b"\0", b" ").decode(errors="replace")))
        except OSError:
            continue
    return found


def test_a_signal_that_a_training_took_no_heed_of_stops_after_it(tmp_path, monkeypatch):
    cells = plan_cells(small_table(tmp_path), rows=["base"])
    write_plan(str(tmp_path), cells)
    trained = []

    def launch_and_swallow(config, workdir, **_):
        # As at the end of a training, whose own handler is still there.
        before = signal.signal(signal.SIGTERM, lambda *_: None)
        os.kill(os.getpid(), signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)
        trained.append(workdir)
        return Outcome(6, None)

    monkeypatch.setattr(launch, "launch", launch_and_swallow)
    with pytest.raises(worker.Stopped) as stopped:
        worker.run_cells(str(tmp_path), [cell.key for cell in cells], together=False)
    assert stopped.value.signal == signal.SIGTERM and len(trained) == 1


def test_a_stopped_cell_is_recorded_as_begun_with_its_time(tmp_path, monkeypatch):
    cell = plan_cells(small_table(tmp_path), rows=["base"])[0]
    write_plan(str(tmp_path), [cell])
    monkeypatch.setattr(launch, "launch", lambda *_, **__: Outcome(3, signal.SIGINT))
    with pytest.raises(worker.Stopped):
        worker.run_cells(str(tmp_path), [cell.key], together=False)
    record = read_record(str(tmp_path), cell.key)
    assert record.state == "running" and record.error is None and record.costs["train_seconds"] is not None


def test_cells_that_are_not_planned_are_refused(tmp_path):
    write_plan(str(tmp_path), plan_cells(small_table(tmp_path), rows=["base"]))
    with pytest.raises(UserError, match="has no cell A9/0"):
        worker.run_cells(str(tmp_path), ["A9/0"], together=False)


@pytest.mark.parametrize(("arguments", "said"), [
    (["--cells=base/0", "--code=0123"], "planned with other code than is here now"),
    (["--cells=base"], "--cells=base: wants ROW/SEED"),
])
def test_a_worker_refuses_other_code_and_what_is_no_cell(arguments, said, tmp_path, monkeypatch, capsys):
    write_plan(str(tmp_path), plan_cells(small_table(tmp_path), rows=["base"]))
    monkeypatch.setattr(sys, "argv", ["worker", f"--workdir={tmp_path}", *arguments])
    with pytest.raises(SystemExit) as ended:
        worker.main()
    assert ended.value.code == 2 and said in capsys.readouterr().err


def test_names_of_rows_may_have_commas():
    keys = ["a,learning_rate=0.1/0", "b/12", "c@width=8,depth=2/1"]
    assert worker.parsed_keys(",".join(keys)) == keys


@dataclasses.dataclass(frozen=True)
class Named:
    key: str
    program: str


def test_tasks_hold_cells_of_one_program_and_there_is_one_for_each_worker():
    cells = [Named(f"{program}/{seed}", program) for program in "ab" for seed in range(4)]
    extra = Named("c/0", "c")
    assert tasks_of(cells, [extra], workers=1, together=True) == [
        tuple(cell.key for cell in cells[:4]), tuple(cell.key for cell in cells[4:]), ("c/0",)]
    assert [len(keys) for keys in tasks_of(cells, [], workers=3, together=True)] == [2, 2, 4]
    assert [len(keys) for keys in tasks_of(cells, [], workers=20, together=True)] == [1] * 8
    assert [len(keys) for keys in tasks_of(cells, [], workers=1, together=False)] == [1] * 8


def test_each_worker_has_its_device():
    assert devices.shares([0, 1, 2, 3, 4], 2) == [[0, 1], [2, 3, 4]]
    assert devices.shares([4, 6], 3) == [[4], [6], [4]]
    assert devices.worker_environment("cpu", 1, 1, 2) == {}
    assert devices.worker_environment("tpu", 4, 3, 4)["TPU_VISIBLE_CHIPS"] == "3"
    with pytest.raises(UserError, match="4 TPU chips"):
        devices.worker_environment("tpu", 4, 0, 5)


def test_gpus_are_named_as_they_are_visible_and_shared_where_there_are_few(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert devices.worker_environment("gpu", 2, 1, 2) == {"CUDA_VISIBLE_DEVICES": "7"}
    shared = devices.worker_environment("gpu", 2, 2, 4)
    assert shared == {"CUDA_VISIBLE_DEVICES": "5", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.450"}


def metrics_of(folder: pathlib.Path) -> dict[str, dict[str, float]]:
    return {"/".join(path.parts[-3:-1]): json.loads(path.read_text())["metrics"]
            for path in (folder / "work" / "runs").glob("*/*/cell.json")}


def start(folder: pathlib.Path, workers: int, rows: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, str(HERE / "small_table.py"), str(folder), str(workers), rows], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env={**os.environ, "JAX_PLATFORMS": "cpu",
                                 "PYTHONPATH": str(pathlib.Path(purelm.__file__).parents[1])})


def kill_and_go_on(folder: pathlib.Path, workers: int, rows: str, cells: int, kills: int, longest: float) -> None:
    """Kills the runner at random moments; then what a last call makes is what a call without kills makes."""
    moments = random.Random(kills)
    finished: dict[str, int] = {}
    for _ in range(kills):
        process = start(folder, workers, rows)
        time.sleep(moments.uniform(0.5, longest))
        process.kill()
        process.communicate()
        for path in (folder / "work" / "runs").glob("*/*/cell.json"):
            if json.loads(path.read_text())["state"] == "done":
                finished.setdefault(str(path), path.stat().st_mtime_ns)
    said, errors = start(folder, workers, rows).communicate(timeout=300)
    summary = json.loads(said)
    assert (summary["done"], summary["failed"], summary["replaced"]) == (cells, [], []), errors
    # Nothing that was finished is done again: its record stays the very file.
    assert len(summary["run"]) <= cells - len(finished)
    assert all(pathlib.Path(path).stat().st_mtime_ns == moment for path, moment in finished.items())
    (folder / "whole").mkdir()
    runner.run(small_table(folder / "whole"), str(folder / "whole" / "work"), rows=rows.split(","), quiet=True,
               launcher=HereLauncher(), together=False)
    known = metrics_of(folder / "whole")
    assert len(known) == cells and known == {
        key: pytest.approx(metrics, rel=1e-5) for key, metrics in metrics_of(folder).items()}


def test_a_runner_that_is_killed_loses_nothing(tmp_path):
    kill_and_go_on(tmp_path, 1, "base", cells=2, kills=1, longest=4.0)


@pytest.mark.slow
def test_a_runner_that_is_killed_ten_times_loses_nothing(tmp_path):
    kill_and_go_on(tmp_path, 2, "base,wide,quick", cells=6, kills=10, longest=8.0)
