"""Launchers of other machines: a real Ray cluster of two nodes on this machine, and a SLURM script run by bash."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from purelm.ablation.fingerprints import code_fingerprint
from purelm.ablation.launchers.here import HereLauncher
from purelm.ablation.launchers.ray_resources import Resources, share_out
from purelm.ablation.launchers.slurm import SlurmLauncher, write_script
from purelm.ablation.plan import plan_cells, write_plan
from purelm.ablation.spec import Ablation, Metric, Row
from purelm.ablation.store import read_record
from purelm.ablation.worker import Stopped
from purelm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig
from purelm.errors import UserError

STEPS, SAVED_EVERY = 400, 15
CELLS = ["base/0", "base/1", "faster/0", "faster/1"]


def planned(folder: pathlib.Path, name: str) -> str:
    """A work folder in which a table of four tiny cells is planned."""
    text = folder / "text.txt"
    if not text.exists():
        text.write_text("\n".join(f"line {number} of {number * 7 % 13} words" for number in range(300)))
    base = Config(model=ModelConfig(context_length=16, num_layers=1, width=16, num_heads=2),
                  data=DataConfig(path=str(text), tokenizer="bytes"),
                  optimizer=OptimizerConfig(learning_rate=0.01),
                  training=TrainingConfig(num_steps=STEPS, batch_size=4, log_every="5", evaluate_every=str(STEPS),
                                          checkpoint_every=str(SAVED_EVERY)))
    table = Ablation("a table", "nowhere", base, (Row("faster", {"optimizer.learning_rate": 0.02}),),
                     (Metric("validation/loss", "loss", "lower"),), seeds=2)
    (folder / name).mkdir()
    write_plan(str(folder / name), plan_cells(table))
    return str(folder / name)


def nothing() -> None:
    pass


def losses(workdir: str) -> list[float]:
    records = [read_record(workdir, key) for key in CELLS]
    assert [record.state for record in records] == ["done"] * 4, [record.error for record in records]
    return [record.metrics["validation/loss"] for record in records]


def saved_steps(workdir: str, key: str) -> list[int]:
    folder = pathlib.Path(workdir, "runs", key, "checkpoints")
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())


class Meanwhile(threading.Thread):
    """Does something once to a cell that has saved a checkpoint and is not at its end."""

    def __init__(self, workdir: str, act: Callable[[str], None], but: str | None = None):
        super().__init__(daemon=True)
        self.workdir, self.act, self.but, self.at = workdir, act, but, None
        self.start()

    def run(self) -> None:
        until = time.monotonic() + 120
        while self.at is None and time.monotonic() < until:
            for key in CELLS:
                steps = saved_steps(self.workdir, key)
                if key != self.but and self.at is None and steps and steps[-1] < STEPS:
                    with contextlib.suppress(LookupError):  # No process is at it now.
                        self.act(key)
                        self.at = key
            time.sleep(0.005)


# A real cluster of Ray: two nodes, each with a raylet of its own, on this machine.


@pytest.fixture(scope="module")
def launcher():
    pytest.importorskip("ray", reason="Ray is not installed: pip install -e '.[ray]'")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    from purelm.ablation.launchers.ray_cluster import RayLauncher

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    launcher = RayLauncher(cluster.address)
    yield launcher
    launcher.close()
    cluster.shutdown()
    assert not [process for process in children() if "raylet" in process or "gcs_server" in process]


def children() -> list[str]:
    """Command lines of the processes below this one."""
    parents, commands = {}, {}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ")
    found, new = set(), {os.getpid()}
    while new:
        new = {pid for pid, parent in parents.items() if parent in new}
        found |= new
    return [commands[pid] for pid in found]


def worker_of(workdir: str, key: str) -> int:
    """The process that has a file of the cell's run open."""
    for log in pathlib.Path(workdir, "logs").glob("ray-*.log"):
        pid = int(log.stem.rsplit("-", 1)[1])
        with contextlib.suppress(OSError):
            if any(f"runs/{key}" in os.readlink(link) for link in pathlib.Path(f"/proc/{pid}/fd").iterdir()):
                return pid
    raise LookupError(key)


def test_a_folder_that_a_node_does_not_see_is_refused(launcher, tmp_path, monkeypatch):
    from purelm.ablation.launchers import ray_nodes

    workdir = planned(tmp_path, "hidden")
    # The node is asked for a file that is not there, as one without the file system would find it.
    monkeypatch.setattr(ray_nodes, "sent", lambda look: lambda environment, marker, *rest: (False, True, ""))
    with pytest.raises(UserError, match=r"node .* does not see .*; give a --workdir on a file system that all"):
        launcher.run(workdir, [["base/0"]], together=False, on_change=nothing)
    assert not list(pathlib.Path(workdir).glob(".ray*")) and read_record(workdir, "base/0") is None


@pytest.mark.slow
def test_ctrl_c_and_a_killed_worker_cost_nothing(launcher, tmp_path):
    """Reddens without put_back (a cell stays unfinished), and where a cell begins anew (its record has one start)."""
    here, there = planned(tmp_path, "here"), planned(tmp_path, "there")
    assert launcher.workers == 2  # One a node, which has one CPU.
    before = signal.getsignal(signal.SIGINT)
    stopper = Meanwhile(there, lambda key: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Stopped) as stopped:
        launcher.run(there, [["base/0"], ["base/1"]], together=False, on_change=nothing)
    assert stopped.value.signal == signal.SIGINT and signal.getsignal(signal.SIGINT) is before
    stopped_at = saved_steps(there, stopper.at)[-1]
    assert SAVED_EVERY <= stopped_at < STEPS and stopped_at % SAVED_EVERY, "it was not saved where it was stopped"

    killer = Meanwhile(there, lambda key: os.kill(worker_of(there, key), signal.SIGKILL), but=stopper.at)
    assert launcher.run(there, [[key] for key in CELLS], together=False, on_change=nothing) == []
    starts = {key: json.loads(pathlib.Path(there, "runs", key, "run.json").read_text())["starts"] for key in CELLS}
    assert len(starts[stopper.at]) == 2 and len(starts[killer.at]) >= 2, starts
    HereLauncher().run(here, [CELLS], together=False, on_change=nothing)
    assert losses(there) == pytest.approx(losses(here), rel=1e-5)


@pytest.mark.parametrize(("address", "message"), [
    ("127.0.0.1:1", r"--address=127\.0\.0\.1:1: nothing answers there"),
    ("here", "--address=here: wants host:port")])
def test_an_address_without_a_cluster_is_refused_at_once(address, message, monkeypatch):
    ray = pytest.importorskip("ray")
    from purelm.ablation.launchers.ray_nodes import connect

    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # The tests above may have left it connected.
    with pytest.raises(UserError, match=message):
        connect(address)


def test_what_a_node_lacks_is_said():
    from purelm.ablation.launchers.ray_nodes import look, problem_of

    seen, folder_there, code = look(__file__, os.getcwd())
    assert problem_of(seen, folder_there, code, "w") is None
    assert "bring the same commit" in problem_of(True, True, "another", "w")
    assert f"has no folder {os.getcwd()}" in problem_of(True, False, code, "w")


# What a worker holds.

CPU_NODES = [{"CPU": 4.0}, {"CPU": 10.0}]
GPU_NODES = [{"CPU": 16.0}, {"CPU": 16.0, "GPU": 2.0}, {"CPU": 2.0, "GPU": 1.0}]


@pytest.mark.parametrize(("nodes", "asked", "workers", "resources"), [
    (CPU_NODES, {}, 3, Resources(4.0)),
    (CPU_NODES, {"workers": 2}, 2, Resources(5.0)),
    (CPU_NODES, {"workers": 7}, 7, Resources(2.0)),
    (CPU_NODES, {"cpus": 10}, 1, Resources(10.0)),
    (GPU_NODES, {}, 3, Resources(1.0, 1.0)),
    (GPU_NODES, {"workers": 5}, 5, Resources(1.0, 0.5)),
    (GPU_NODES, {"gpus": 2}, 1, Resources(1.0, 2.0)),
    (GPU_NODES, {"gpus": 0}, 17, Resources(2.0)),
    ([{"CPU": 8.0, "TPU": 4.0}], {}, 4, Resources(1.0, 0.0, 1.0))])
def test_devices_of_a_cluster_are_shared_out(nodes, asked, workers, resources):
    assert share_out(nodes, **{"workers": None, "cpus": None, "gpus": None} | asked) == (workers, resources)


@pytest.mark.parametrize(("asked", "message"), [
    ({"workers": 15}, "--workers=15: the Ray cluster has 14 CPUs"),
    ({"gpus": 1}, "no node of the cluster has 1 CPUs and 1 GPUs; all of it together has 14 CPU"),
    ({"cpus": 11}, "no node of the cluster has 11 CPUs"),
    ({"cpus": 0}, "cpus_per_worker=0: must be at least 1")])
def test_what_a_cluster_does_not_have_is_refused(asked, message):
    with pytest.raises(UserError, match=message):
        share_out(CPU_NODES, **{"workers": None, "cpus": None, "gpus": None} | asked)


def test_without_ray_it_is_said_how_to_get_it(monkeypatch):
    import importlib.util

    from purelm.ablation.launchers.ray_cluster import RayLauncher

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[ray\]'"):
        RayLauncher(None)


# SLURM: the script, run by bash as an array task would be.

TASKS = [["base/0", "base/1"], ["A1,betas=(0.9, 0.99)/0", "A1,betas=(0.9, 0.99)/1"], ["it's@learning_rate=0.1/1000"]]
RECORDER = """#!{python}
import json, os, sys
print(json.dumps([sys.argv[1:], os.getcwd(), os.environ["PYTHONPATH"]]), file=open({heard!r}, "a"))
"""


def as_array_task(script: pathlib.Path, number: int, folder: pathlib.Path) -> subprocess.CompletedProcess:
    return subprocess.run(["bash", str(script)], env={**os.environ, "SLURM_ARRAY_TASK_ID": str(number)}, cwd=folder,
                          capture_output=True, text=True, timeout=120)


def test_each_array_task_does_its_cells(tmp_path, monkeypatch):
    """Reddens with an unquoted path, with `sed -n Np` off by one, and with a list of cells that bash splits."""
    workdir, started = tmp_path / "a table's 100 %", tmp_path / "started here"
    (tmp_path / "elsewhere").mkdir()
    started.mkdir()
    monkeypatch.chdir(started)
    python, heard = tmp_path / "my python", tmp_path / "heard.jsonl"
    python.write_text(RECORDER.format(python=sys.executable, heard=str(heard)))
    python.chmod(0o755)
    script = write_script(str(workdir), TASKS, together=True, python=str(python), at_once=2, time_limit="1:00:00",
                          directives=["--gres=gpu:1", "--mem=16G"])
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    for number in range(len(TASKS)):
        done = as_array_task(script, number, tmp_path / "elsewhere")
        assert done.returncode == 0, done.stderr
    for (arguments, folder, path), keys in zip(map(json.loads, heard.read_text().splitlines()), TASKS, strict=True):
        assert arguments == ["-m", "purelm.ablation.worker", f"--workdir={workdir}", f"--code={code_fingerprint()}",
                             "--together", f"--cells={','.join(keys)}"]
        assert folder == str(started) and (pathlib.Path(path.split(":")[0]) / "purelm").is_dir()
    options = [line.removeprefix("#SBATCH ") for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"--array=0-2%2", "--time=1:00:00", "--gres=gpu:1", "--mem=16G", "--signal=B:TERM@120",
            f'--output="{tmp_path}/a table\'s 100 %%/logs/slurm-%A_%a.log"'} <= set(options)
    assert (workdir / "logs").is_dir()


@pytest.mark.slow
def test_an_array_task_trains_and_another_call_goes_on(tmp_path, capfd):
    workdir = planned(tmp_path, "a table")
    assert SlurmLauncher().run(workdir, [["base/0"], ["faster/1"]], together=False, on_change=nothing) == []
    said = capfd.readouterr().err
    assert f"sbatch --time=4:00:00 --gres=gpu:1 '{workdir}/slurm.sh'" in said and "2 array tasks" in said
    done = as_array_task(pathlib.Path(workdir, "slurm.sh"), 1, tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_record(workdir, "faster/1").state == "done" and read_record(workdir, "base/0") is None


def test_an_array_in_the_queue_is_not_changed_by_the_next_one(tmp_path):
    """Reddens where tasks are read from a file beside the script, of which SLURM has a copy."""
    heard, python = tmp_path / "heard.jsonl", tmp_path / "python"
    python.write_text(RECORDER.format(python=sys.executable, heard=str(heard)))
    python.chmod(0o755)
    queued = write_script(str(tmp_path), [["a/0"]], together=False, python=str(python)).rename(tmp_path / "copy.sh")
    write_script(str(tmp_path), [["b/0"]], together=False, python=str(python))
    as_array_task(queued, 0, tmp_path)
    assert json.loads(heard.read_text())[0][-1] == "--cells=a/0"


def test_a_directive_that_is_no_option_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"sbatch option 'gres=gpu:1': wants one such as --gres=gpu:1"):
        write_script(str(tmp_path), TASKS, together=True, directives=["gres=gpu:1"])
