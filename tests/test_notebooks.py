"""The notebooks run from top to bottom at a small size, in a kernel of their own, and install what a machine needs."""

from __future__ import annotations

import ast
import glob
import importlib.util
import json
import os
import pathlib
import random
import subprocess
import sys

import nbclient
import nbformat
import pytest

import purelm

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "notebooks"
SMALL = {
    "quickstart": """
WORKDIR, DATA = "run", "text.txt"
LAYERS, WIDTH, CONTEXT = 1, 16, 16
STEPS, STOP_AT = 400, 40
VOCABULARY, NEW_TOKENS = 300, 5
""",
    "ablation": """
WORKDIR, DATA = "table", "text.txt"
LAYERS, WIDTH, CONTEXT = 1, 16, 16
STEPS, BATCH, SEEDS = 8, 4, 2
"""}


def read(name: str) -> nbformat.NotebookNode:
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(book)
    return book


@pytest.fixture
def kernel_folder(tmp_path, monkeypatch):
    """A folder with a text, for a kernel that imports purelm from where this process does."""
    words = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "nothing", "much"]
    draw = random.Random(0)
    (tmp_path / "text.txt").write_text(
        "\n".join(" ".join(draw.choices(words, k=8)) + "." for _ in range(600)))
    source = str(pathlib.Path(purelm.__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    return tmp_path


def assigned(source: str) -> set[str]:
    """The names that a cell gives values to."""
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def run(name: str, folder: pathlib.Path, asked: str) -> dict:
    """Executes a notebook with the small sizes in place of its own; what `asked`, an expression, is at its end."""
    book = read(name)
    sizes, = (cell for cell in book.cells if "parameters" in cell.metadata.get("tags", []))
    assert assigned(sizes.source) == assigned(SMALL[name])
    sizes.source = SMALL[name]
    book.cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps({asked}))"))
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3",
                            resources={"metadata": {"path": str(folder)}}).execute()
    (printed,) = (output.text for output in book.cells[-1].outputs if output.get("name") == "stdout")
    return json.loads(printed)


def test_quickstart(kernel_folder):
    """Reddens where a stopped training starts anew, or is not stopped at all."""
    found = run("quickstart", kernel_folder, "{'first': first.step, 'stopped_by': first.stopped_by, "
                "'second': second.step, 'samples': samples, 'measured': measured, 'validation': validation, "
                "'refused': refused, 'devices': len(jax.devices())}")
    assert found["stopped_by"] == 2 and 40 <= found["first"] < 400 == found["second"]
    assert all(sample.startswith("the ") and len(sample) > 4 for sample in found["samples"])
    assert found["measured"]["bits_per_byte"] < 8 and found["measured"]["xz_bits_per_byte"] < 8
    assert [row["step"] for row in found["validation"]] == [100, 200, 300, 400]
    assert "100" in found["refused"] and "\n" not in found["refused"]
    assert (kernel_folder / "run" / "curves.png").is_file()


@pytest.mark.slow
def test_ablation(kernel_folder):
    """Reddens where a seed more reruns what is done."""
    found = run("ablation", kernel_folder, "{'done': summary.done, 'verdicts': verdicts, 'refused': refused, "
                "'added': added.run, 'written': [path.name for path in written]}")
    rows = ["base", "rope", "no_positions", "slower", "epsilon"]
    assert found["done"] == 10 and found["added"] == ["base/2", "rope/2"]
    assert list(found["verdicts"]) == rows and found["verdicts"]["base"] == "base"
    assert "row 'typo'" in found["refused"] and "did you mean 'model.positions'?" in found["refused"]
    assert {"report.html", "forest.png", "curves.png", "table.tex"} <= set(found["written"])


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_notebook_is_stored_without_outputs(name):
    for cell in read(name).cells:
        assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None)


@pytest.mark.parametrize("name", sorted(SMALL))
@pytest.mark.parametrize(("environment", "files", "driver", "has_cuda12", "extra"), [
    ({}, [], 0, False, ""),
    ({"COLAB_GPU": "1"}, [], 580, False, "cuda"),
    ({"COLAB_GPU": "1"}, [], 550, False, "cuda12"),
    ({"COLAB_GPU": "1"}, [], 590, True, "cuda12"),
    ({"TPU_ACCELERATOR_TYPE": "v5litepod-1"}, [], 0, False, "tpu"),
    ({"COLAB_TPU_ADDR": "10.0.0.2:8470"}, [], 0, False, "tpu"),
    ({}, ["/dev/accel0"], 0, False, "tpu")])
def test_the_first_cell_knows_the_machine(name, environment, files, driver, has_cuda12, extra):
    assert first_cell(name)["extra_for"](environment, files, driver, has_cuda12) == extra


@pytest.mark.parametrize(("code", "said", "driver"), [(0, "550.54.15\n", 550), (9, "no devices were found", 0)])
def test_the_first_cell_asks_the_driver(monkeypatch, code, said, driver):
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, code, said))
    assert first_cell("quickstart")["nvidia_driver"]() == driver


@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_first_cell_installs_the_folder_it_is_in(name, tmp_path, monkeypatch):
    """Reddens where it installs what is there already, or another folder's."""
    namespace, commands = first_cell(name), []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command) or
                        subprocess.CompletedProcess(command, 0))
    monkeypatch.setattr(sys, "path", list(sys.path))
    namespace["install"]()
    assert not commands
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    namespace["nvidia_driver"] = lambda: 0
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AssertionError, match="set REPOSITORY above"):
        namespace["install"]()
    namespace["REPOSITORY"] = "https://example.org/purelm"
    namespace["install"]()
    assert commands[0][:2] == ["git", "clone"] and commands[0][-2:] == ["https://example.org/purelm",
                                                                         str(tmp_path / "purelm")]
    (tmp_path / "src" / "purelm").mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setattr(glob, "glob", lambda _: ["/dev/accel0"])
    namespace["install"]()
    assert commands[-1][-2:] == ["-e", f"{tmp_path}[tpu]"] and sys.path[0] == str(tmp_path / "src")


def first_cell(name: str) -> dict:
    """What the first cell defines, without what it does."""
    source = next(cell.source for cell in read(name).cells if cell.cell_type == "code")
    namespace: dict = {}
    exec(source[:source.index("install()\nimport jax")], namespace)
    return namespace
