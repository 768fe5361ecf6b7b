"""Trains a model from a config file, into a run folder; the same command again resumes where it stopped."""

import sys

from absl import flags

from purelm import cli

USAGE = """
Train a language model, and resume it.

  python experiments/train.py --config=configs/lm/shakespeare_char.py --workdir=runs/a --config.data.path=FILE
  python experiments/train.py --config=... --workdir=runs/a     the same command again resumes
  python experiments/train.py --config=... --dry_run            compile, print sizes and stop
"""

cli.define_config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "folder of this run; made if missing, resumed if begun")
DRY_RUN = flags.DEFINE_bool("dry_run", False, "compile, print parameters, FLOPs a token and memory, write nothing")
COORDINATOR = flags.DEFINE_string("coordinator", None, "several processes: host:port of process 0, or auto")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "several processes: how many")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "several processes: this one's number, from 0")


def main() -> None:
    config = cli.config_from_flags()
    if cli.FLAGS.print_config:
        from purelm.config import to_json

        print(to_json(config), end="")
        return
    from purelm.training import launch

    if DRY_RUN.value:
        launch.dry_run(config)
        return
    outcome = launch.launch(config, WORKDIR.value, coordinator=COORDINATOR.value, num_processes=NUM_PROCESSES.value,
                            process_id=PROCESS_ID.value)
    if outcome.stopped_by is not None:
        print(f"stopped by signal {outcome.stopped_by} after step {outcome.step}; the same command resumes",
              file=sys.stderr)
        sys.exit(128 + outcome.stopped_by)


if __name__ == "__main__":
    cli.run(main, USAGE)
