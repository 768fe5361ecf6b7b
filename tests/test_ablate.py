"""ablate.py as a person calls it: a table run, gone on with, reported again and compared; and wrong commands."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
TABLE = '''
import sys
sys.path.insert(0, {tests!r})
import pathlib
from small_table import small_table

def get_ablation():
    return small_table(pathlib.Path({folder!r}), seeds=1)
'''

BROKEN = '''

whole = get_ablation


def get_ablation():
    import dataclasses

    from purelm.ablation.spec import Row

    return dataclasses.replace(whole(), rows=(Row("wide", {"model.widht": 8}),))
'''

RENAMED = '''

whole = get_ablation


def get_ablation():
    import dataclasses

    return dataclasses.replace(whole(), title="another")
'''


def ablate(*arguments: str, cwd: pathlib.Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(ROOT / "experiments" / "ablate.py"), *arguments], text=True, cwd=cwd,
                          capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a table that takes seconds, its base and one row run with one seed, then with a second one."""
    folder = tmp_path_factory.mktemp("ablate")
    (folder / "table.py").write_text(TABLE.format(tests=str(ROOT / "tests" / "ablation"), folder=str(folder)))
    first = ablate("--ablation=table.py", "--workdir=work", "--rows=base,quick", cwd=folder)
    assert first.returncode == 0, first.stderr
    second = ablate("--ablation=table.py", "--workdir=work", "--rows=base,quick", "--seeds=2", cwd=folder)
    assert second.returncode == 0, second.stderr
    return folder, first, second


def cells(folder: pathlib.Path) -> dict[str, dict]:
    return {str(path.parent.relative_to(folder / "work" / "runs")): json.loads(path.read_text())
            for path in sorted((folder / "work" / "runs").glob("*/*/cell.json"))}


def test_a_table_is_run_and_written_and_another_seed_runs_new_cells_alone(place):
    folder, first, second = place
    assert first.stderr.count("done ") == 2 and second.stderr.count("done ") >= 2
    assert set(cells(folder)) == {"base/0", "base/1", "quick/0", "quick/1"}
    # Reddens where the second call trains what the first had finished.
    assert cells(folder)["base/0"]["finished"] <= cells(folder)["base/1"]["started"]
    for name in ("table.md", "table.tex", "table.csv", "results.json", "report.html", "curves.png", "forest.png"):
        assert (folder / "work" / name).stat().st_size > 100 and name in second.stdout
    assert "quick" in second.stdout and "wide" in second.stdout


def test_the_report_is_written_again_from_the_folder_alone(place):
    folder, _, _ = place
    (folder / "work" / "table.md").unlink()
    before = cells(folder)
    done = ablate("--workdir=work", "--report", "--test=dunnett", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Dunnett" in (folder / "work" / "table.md").read_text() and cells(folder) == before


def test_runs_are_compared_without_a_table(place):
    folder, _, _ = place
    done = ablate("--runs=work/runs/*/*", "--workdir=compared", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "learning_rate=0.01" in done.stdout
    # Reddens where the page's links are not from where it lies.
    assert '"run":"../work/runs/base/0"' in (folder / "compared" / "report.html").read_text(encoding="utf-8")
    assert (folder / "compared" / "curves.png").is_file()


def test_where_no_cell_could_be_trained_the_reason_is_not_buried_under_an_empty_table(place, tmp_path):
    folder, _, _ = place
    done = ablate("--ablation=table.py", f"--workdir={tmp_path}/new", "--rows=base", "--config.data.path=nowhere.txt",
                  cwd=folder)
    assert done.returncode == 1 and done.stdout == ""
    assert "failed: base/0: config.data.path=nowhere.txt: no such file" in done.stderr


def test_cells_are_listed_and_nothing_is_run(place, tmp_path):
    folder, _, _ = place
    done = ablate("--ablation=table.py", f"--workdir={tmp_path}/new", "--dry_run", "--config.model.num_layers=1",
                  cwd=folder)
    assert done.returncode == 0 and "wide/0" in done.stdout.split() and "3 cells of 3 rows" in done.stdout
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("arguments, said", [
    (["--ablation=table.py"], ["--workdir is missing"]),
    (["--ablation=tabel.py", "--workdir={new}"], ["no file tabel.py", "did you mean 'table.py'"]),
    (["--workdir={new}"], ["no table was begun here", "--ablation="]),
    (["--workdir={new}", "--report"], ["no table was begun here"]),
    (["--ablation=table.py", "--workdir={new}", "--rows=bas"], ["--rows=bas", "did you mean 'base'"]),
    (["--ablation=table.py", "--workdir={new}", "--seeds=x"], ["--seeds=x", "such as 5"]),
    (["--ablation=table.py", "--workdir={new}", "--seeds=0"], ["--seeds=0"]),
    (["--ablation=table.py", "--workdir={new}", "--seeds=1,1"], ["seeds", "1"]),
    (["--ablation=table.py", "--workdir={new}", "--launcher=rai"], ["--launcher=rai"]),
    (["--ablation=table.py", "--workdir={new}", "--workers=2"], ["--workers=2", "--launcher=processes"]),
    (["--ablation=table.py", "--workdir={new}", "--launcher=processes", "--address=auto"], ["--address=auto", "ray"]),
    (["--ablation=table.py", "--workdir={new}", "--config.model.num_layer=2"], ["did you mean 'num_layers'"]),
    (["--ablation=table.py", "--workdir={new}", "--config.model.width=24"], ["row 'wide'", "changes nothing"]),
    (["--ablation=broken.py", "--workdir={new}"], ["broken.py", "row 'wide'", "did you mean 'model.width'"]),
    (["--ablation=raises.py", "--workdir={new}"], ["raises.py:2", "ZeroDivisionError"]),
    (["--ablation=renamed.py", "--workdir=work"], ["holds the table 'a small table', not 'another'"]),
    (["--runs=nowhere/*"], ["nowhere/*"]),
    (["--runs=work/runs/*/*", "--base=nowhere"], ["nowhere"]),
    (["--runs=work/runs/*/*", "--workdir={file}"], ["file: cannot be made"]),
    (["--runs=work/runs/*/*", "--rows=base"], ["--rows has no effect"]),
    (["--runs=work/runs/*/*", "--test=dunnett"], ["--test has no effect with --runs"]),
    (["--ablation=table.py", "--workdir={new}", "--metric=test/loss"], ["--metric has no effect without --runs"]),
    (["--workdir=work", "--report", "--rows=base"], ["--rows has no effect with --report"]),
    (["--ablation=table.py", "--workdir={new}", "--address=auto"], ["--address=auto", "ray"]),
    (["--config=table.py", "--workdir=work"], ["--config has no effect without --ablation"]),
    (["--ablation=table.py", "--workdir={file}"], ["--workdir="]),
])
def test_a_mistake_gets_one_line_and_leaves_nothing(arguments, said, place, tmp_path):
    folder, _, _ = place
    (folder / "broken.py").write_text((folder / "table.py").read_text() + BROKEN)
    (folder / "renamed.py").write_text((folder / "table.py").read_text() + RENAMED)
    (folder / "raises.py").write_text("def get_ablation():\n    return 1 / 0\n")
    (tmp_path / "file").write_text("")
    places = {"new": tmp_path / "new", "file": tmp_path / "file"}
    done = ablate(*(argument.format(**places) for argument in arguments), cwd=folder)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: "), done.stderr
    assert all(part in done.stderr for part in said), done.stderr
    assert not (tmp_path / "new").exists()
