"""Measures a paper's table: runs its cells, and writes the table, pictures and a page of what there is."""

import shlex
import sys

from absl import flags

from purelm import cli
from purelm.errors import UserError

USAGE = """
Measure a table: every row with several seeds, its differences to the base, and what is within their noise.

  python experiments/ablate.py --ablation=configs/ablations/positions.py --workdir=runs/positions
  python experiments/ablate.py --ablation=... --workdir=runs/a --rows=base,A1 --seeds=5    some rows; others, or more
                                                                     seeds, by another call: nothing is run twice
  python experiments/ablate.py --workdir=runs/a --report             tables and pictures again, from what is there
  python experiments/ablate.py --runs='runs/*'                       a table of any runs, grouped by what differs
  python experiments/ablate.py --ablation=... --workdir=... --launcher=ray     the cells over a Ray cluster

Writes table.md, table.tex, table.csv, results.json, report.html, curves.png, forest.png and runs/ROW/SEED/.
"""

cli.define_ablation_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the table; made if missing, gone on with if begun")
SEEDS = flags.DEFINE_string("seeds", None, "how many, from 0, or which (0,1,7); the table's own if not given")
ROWS = flags.DEFINE_list("rows", None, "some rows alone, with commas between; all if not given")
REPORT = flags.DEFINE_bool("report", False, "run nothing, write the tables and pictures of what is there")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "check the table, list its cells and stop")
LAUNCHER = flags.DEFINE_enum("launcher", "here", ["here", "processes", "ray", "slurm"],
                             "this process; worker processes, one a device; a Ray cluster; an sbatch script")
WORKERS = flags.DEFINE_integer("workers", None, "of processes, ray and slurm; as many as devices if not given",
                               lower_bound=1)
ADDRESS = flags.DEFINE_string("address", None, "of the Ray cluster; a local one is started if not given")
TOGETHER = flags.DEFINE_enum("together", "auto", ["auto", "off"],
                             "auto: cells with the same compiled program train as one")
STALE = flags.DEFINE_enum("stale", "rerun", ["rerun", "keep"], "finished cells whose code or config changed since")
TEST = flags.DEFINE_enum("test", None, ["paired_t", "dunnett"], "of differences; the table's own if not given")
RUNS = flags.DEFINE_list("runs", None, "run folders or globs to compare, in place of a table")
BASE = flags.DEFINE_string("base", None, "with --runs: a run of the group that others are compared with")
METRIC = flags.DEFINE_string("metric", "validation/loss", "with --runs: the first column")


# Flags of one way to use this program, which have no effect in another.
OF_RUNNING = ("rows", "launcher", "workers", "address", "together", "stale")
OF_COMPARING = ("base", "metric")


def main() -> None:
    if RUNS.value is not None:
        compare_runs()
        return
    refuse(OF_COMPARING, "without --runs")
    if REPORT.value:
        refuse((*OF_RUNNING, "dry_run"), "with --report")
    if not WORKDIR.value:
        raise UserError("--workdir is missing; give the folder of the table, such as --workdir=runs/a")
    ablation = ablation_from_flags()
    if DRY_RUN.value:
        list_cells(ablation)
        return
    summary = None
    if not REPORT.value:
        from purelm.ablation import runner

        summary = runner.run(ablation, WORKDIR.value, rows=ROWS.value, launcher=make_launcher(),
                             together=TOGETHER.value == "auto", stale=STALE.value)
    if summary is None or summary.done:
        write(ablation)
    if summary is not None and summary.stopped_by is not None:
        print(f"stopped by signal {summary.stopped_by}; the same command goes on", file=sys.stderr)
        sys.exit(128 + summary.stopped_by)
    if summary is not None and summary.failed:
        sys.exit(1)


def refuse(names, when: str) -> None:
    """Raises UserError for the first of these flags that was given."""
    for name in names:
        if flags.FLAGS[name].present:
            raise UserError(f"--{name} has no effect {when}; leave it out")


def ablation_from_flags():
    """The table of --ablation with its base changed by --config.*, or else the one that the work folder holds."""
    import dataclasses

    from purelm.ablation import check, load, rows, serialize

    where = cli.FLAGS.ablation
    if where is not None:
        ablation = dataclasses.replace(load.load_ablation(where), base=cli.config_from_flags())
    else:
        refuse(("config",), "without --ablation")
        where = f"{WORKDIR.value}/ablation.json"
        ablation = serialize.read(WORKDIR.value)
    if SEEDS.value is not None:
        ablation = dataclasses.replace(ablation, seeds=parsed_seeds(SEEDS.value))
    if TEST.value is not None:
        ablation = dataclasses.replace(ablation, test=TEST.value)
    check.check(ablation, where)
    rows.row_names(ablation, ROWS.value)
    return ablation


def parsed_seeds(text: str) -> int | tuple[int, ...]:
    """How many seeds, or which."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts) or text.strip() == "0":
        raise UserError(f"--seeds={text}: wants how many, such as 5, or which, such as 0,1,7")
    return int(parts[0]) if len(parts) == 1 else tuple(int(part) for part in parts)


def make_launcher():
    """The launcher that the flags ask for."""
    if ADDRESS.value is not None and LAUNCHER.value != "ray":
        raise UserError(f"--address={ADDRESS.value} has no effect with --launcher={LAUNCHER.value}; it is for ray")
    if LAUNCHER.value == "here":
        if WORKERS.value is not None:
            raise UserError(f"--workers={WORKERS.value} has no effect with --launcher=here; give --launcher=processes")
        from purelm.ablation.launchers.here import HereLauncher

        return HereLauncher()
    if LAUNCHER.value == "processes":
        from purelm.ablation.launchers.processes import ProcessLauncher

        return ProcessLauncher(WORKERS.value)
    if LAUNCHER.value == "ray":
        from purelm.ablation.launchers.ray_cluster import RayLauncher

        return RayLauncher(ADDRESS.value, WORKERS.value)
    from purelm.ablation.launchers.slurm import SlurmLauncher

    return SlurmLauncher(WORKERS.value)


def list_cells(ablation) -> None:
    """Prints what would run."""
    from purelm.ablation.plan import plan_cells

    cells = plan_cells(ablation, rows=ROWS.value)
    for cell in cells:
        print(cell.key)
    print(f"{len(cells)} cells of {len({cell.row for cell in cells})} rows, "
          f"{len({cell.program for cell in cells})} programs; nothing was run")


def command() -> str:
    """The command line, as a person would type it."""
    return shlex.join(["python", *sys.argv])


def write(ablation) -> None:
    """Writes the report of what is there, and shows the table."""
    from purelm.ablation import results
    from purelm.ablation.plan import config_differences
    from purelm.ablation.report.terminal import show
    from purelm.ablation.report.write import write_report

    table = results.table_of(ablation, WORKDIR.value, command=command())
    chosen = {row.name: row.search.chosen for row in table.rows if row.search and row.search.chosen}
    paths = write_report(table, results.curves_of(table, WORKDIR.value), WORKDIR.value,
                         config_differences(ablation, chosen), errors=results.errors_of(table, WORKDIR.value))
    show(table)
    print("wrote " + ", ".join(str(path) for path in paths))


def compare_runs() -> None:
    """A table of run folders."""
    from purelm.ablation import compare, results
    from purelm.ablation.report.terminal import show
    from purelm.ablation.report.write import write_report

    refuse(("ablation", "config", "seeds", "test", "report", "dry_run", *OF_RUNNING), "with --runs")
    table = compare.table_of_runs(RUNS.value, base=BASE.value, metric=METRIC.value, command=command())
    show(table)
    if WORKDIR.value:
        paths = write_report(compare.relative_to(table, WORKDIR.value), results.curves_of(table, "."), WORKDIR.value,
                             {})
        print("wrote " + ", ".join(str(path) for path in paths))


if __name__ == "__main__":
    cli.run(main, USAGE)
