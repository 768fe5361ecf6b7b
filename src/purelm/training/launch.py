"""From a config to a run: data, engine, the newest good checkpoint, and the loop."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from purelm.config import Config, finalize, steps_of
from purelm.errors import UserError
from purelm.runtime import start_jax
from purelm.tasks import task_of
from purelm.training.manifests import step_folders
from purelm.training.run_folder import (
    RunFolder,
    check_same_data,
    check_same_run,
    check_workdir,
    held,
    open_run,
    read_labels,
    write_atomically,
    write_start,
)


def launch(config: Config, workdir: str | None, *, coordinator: str | None = None, num_processes: int | None = None,
           process_id: int | None = None, quiet: bool = False, devices: Sequence[Any] | None = None):
    """Trains `config` in `workdir`, from the newest good checkpoint there or from the start.

    Args:
      config: validated.
      coordinator, num_processes, process_id: as `start_jax` takes them.
      quiet: nothing is shown.
      devices: to train on; none is all there are.

    Returns:
      loop.Outcome.

    Raises:
      UserError: anything about the config, the data or the folder that the user can put right.
    """
    if not workdir:
        raise UserError("--workdir is missing; give the folder to train in, such as --workdir=runs/a")
    _check_processes(coordinator, num_processes, process_id)
    folder, made = check_workdir(workdir)
    try:
        begun = bool(step_folders(folder.checkpoints))  # Until then nothing was trained that could be lost.
        shown = not quiet and not process_id
        data, config = prepare_run(config, folder if begun else None, progress=_print_line if shown else None)
        changes = check_same_run(folder, config) if begun else []
        if begun:
            check_same_data(folder, data.fingerprint)
        start_jax(coordinator=coordinator, num_processes=num_processes, process_id=process_id)
        from purelm.training.parallel import make_engine
        from purelm.training.transfer import start_state

        engine = make_engine(config, devices)
        _check_agreement(data)
        taken = None
        if not begun and (config.init_from or config.init_vectors):  # Before anything is written: it may not fit.
            taken = start_state(config, engine, data.tokenizer)
    except UserError:
        with contextlib.suppress(OSError):  # Another process may have begun to write there.
            for path in made:
                path.rmdir()
        raise
    import jax

    try:
        with held(folder) if jax.process_index() == 0 else contextlib.nullcontext():
            return _train(config, data, folder, engine, changes, begun, quiet, taken)
    except jax.errors.JaxRuntimeError as error:
        if "out of memory" not in str(error).lower() and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(f"out of memory ({str(error).splitlines()[0]}); --dry_run says what is needed; make "
                        "config.model or config.training.batch_size smaller, or raise "
                        "config.training.accumulation_steps") from error


def _check_processes(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    if coordinator is None or coordinator == "auto":
        if num_processes is not None or process_id is not None:
            raise UserError("--num_processes and --process_id: give --coordinator=host:port with them, and "
                            "--coordinator=auto or none without")
        return
    if num_processes is None or process_id is None:
        raise UserError("--coordinator: give --num_processes and --process_id too, or --coordinator=auto")
    if not re.fullmatch(r".+:\d+", coordinator):
        raise UserError(f"--coordinator={coordinator}: wants host:port of process 0, such as localhost:1234, or auto")
    if not 0 <= process_id < num_processes:
        raise UserError(f"--process_id={process_id}: must be 0 to {num_processes - 1} where --num_processes is "
                        f"{num_processes}")


def _check_agreement(data) -> None:
    """Every process prepared the data by itself: they must hold the same."""
    import jax

    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    mine = zlib.crc32(json.dumps(data.fingerprint, sort_keys=True).encode())
    if len(set(multihost_utils.process_allgather(np.uint32(mine)).tolist())) > 1:
        raise UserError("config.data: the processes hold different data or tokenizers; give all the same files, and "
                        "the tokenizer of one by --config.data.tokenizer_path")


def _train(config: Config, data, folder: RunFolder, engine, changes: list[str], begun: bool, quiet: bool, taken):
    import jax

    from purelm.training import loop
    from purelm.training.checkpoints import Checkpoints
    from purelm.training.load import load_run
    from purelm.training.progress import Progress
    from purelm.training.transfer import start_state
    from purelm.training.vectors import save_vectors

    primary = jax.process_index() == 0
    if primary:
        write_folder(folder, config, data, engine.devices, begun=begun)
    training = config.training
    with Checkpoints(folder.checkpoints, keep_last=training.keep_last, keep_best=training.keep_best) as checkpoints:
        restored = checkpoints.restore_latest(engine.shapes())
        step = 0 if restored is None else restored.step
        progress = Progress(first_step=step, num_steps=training.num_steps, unit=task_of(config).UNIT,
                            quiet=quiet or not primary)
        if restored is None:
            state, notes = taken or start_state(config, engine, data.tokenizer)
        else:
            state, notes = engine.place(restored.state), []
        try:
            for line in start_lines(config, data, engine, step, changes) + notes:
                progress.note(line)
            outcome = loop.train(config, data, folder, engine, progress, state=state, start_step=step,
                                 checkpoints=checkpoints)
        finally:
            progress.close()
    vectors = ""
    if config.task.name == "word_vectors" and outcome.stopped_by is None:
        run = load_run(str(folder.path))  # In every process: they agree on the checkpoint.
        vectors = f"{save_vectors(folder.path, run.tokenizer, run.params).name}, " if primary else ""
    if primary and not quiet:
        print(f"wrote {folder.path}: {vectors}metrics.jsonl, curves.png, config.json, run.json, tokenizer.json, "
              "checkpoints, tensorboard")
    return outcome


def write_folder(folder: RunFolder, config: Config, data: Any, devices: Sequence[Any], *, begun: bool) -> None:
    """What a start writes: config.json, run.json, and where the run is not begun its tokenizer and labels."""
    write_start(folder, config, data.fingerprint, list(devices), begun=begun)
    if begun:
        return
    data.tokenizer.save(folder.tokenizer)
    if data.labels is not None:
        write_atomically(folder.labels, json.dumps(data.labels, ensure_ascii=False, indent=1) + "\n")


def _print_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def prepare_run(config: Config, folder: RunFolder | None, *, progress: Callable[[str], None] | None = None):
    """(prepared data, finalized config), with the tokenizer and labels of the run folder, if one is given.

    A run that starts from another (config.init_from) takes that one's tokenizer, unless config.data.tokenizer_path
    names one, and where it has the data's labels among its own, its labels: a class keeps its row of the head.
    `progress` is called with a line at the start of each long part.
    """
    tokenizer, labels = given_vocabulary(config, folder)
    data = task_of(config).prepare(config, tokenizer=tokenizer, labels=labels, progress=progress)
    if labels is None and data.labels is not None:
        known = _labels_of_start(config)
        if known != data.labels and set(data.labels) <= set(known):
            data = task_of(config).prepare(config, tokenizer=tokenizer, labels=known, progress=progress)
    if "train" not in data.splits:
        raise UserError("config.data: there is no training split; give a file to train on")
    return data, finalize(config, vocabulary_size=data.vocabulary_size, tokens_per_epoch=data.tokens_per_epoch(config),
                          num_classes=None if data.labels is None else len(data.labels))


def given_vocabulary(config: Config, folder: RunFolder | None) -> tuple[Any, tuple[str, ...] | None]:
    """(tokenizer, labels) that a run does not make itself: those of its folder, or of the run that it starts from."""
    from purelm.data import load_tokenizer

    if folder is not None:
        return load_tokenizer(folder.tokenizer), read_labels(folder)
    if config.init_from and config.data.tokenizer_path is None:
        return load_tokenizer(open_run(config.init_from, "config.init_from")[0].tokenizer), None
    return None, None


def _labels_of_start(config: Config) -> tuple[str, ...]:
    """The labels of the run that this one starts from, where it can have them all."""
    if config.init_from is None:
        return ()
    start, before = open_run(config.init_from, "config.init_from")
    known = read_labels(start) or ()
    room = config.model.num_classes
    return known if before.task.name == config.task.name and (room is None or len(known) <= room) else ()


def start_lines(config: Config, data, engine, step: int, changes: list[str]) -> list[str]:
    """What a person wants to know before the first step."""
    import jax

    from purelm.models.counting import count_parameters, flops_per_token
    from purelm.training.hardware import COUNTING_RULE, peak_flops
    from purelm.training.optimizer import learning_rate_multipliers

    devices = engine.devices
    kind, training = devices[0].device_kind, config.training
    multipliers = jax.tree.leaves(learning_rate_multipliers(config, engine.shapes().params))
    leaves = jax.tree.leaves(engine.shapes().params)
    frozen = sum(math.prod(leaf.shape) for leaf, multiplier in zip(leaves, multipliers) if not multiplier)
    lines = [data.describe(),
             f"model: {count_parameters(engine.shapes().params):,} parameters"
             + (f" ({frozen:,} of them frozen)" if frozen else "")
             # Other tasks have no output layer over the vocabulary, which the count holds.
             + (f", {flops_per_token(config.model, config.model.context_length):,} FLOPs a token"
                if task_of(config).UNIT == "tokens" else ""),
             f"training: {training.num_steps} steps of {training.batch_size} x {config.model.context_length} tokens, "
             f"{engine.name} on {len(devices)} x {kind}"]
    if peak_flops(kind) is not None:
        lines.append(f"{COUNTING_RULE}; peak of {kind} {peak_flops(kind) / 1e12:.0f} TFLOP/s")
    if steps_of(config.optimizer.warmup) > training.num_steps:
        lines.append(f"note: the warm-up of {config.optimizer.warmup} steps is longer than the run, so the learning "
                     "rate stays below its peak")
    if step:
        lines.append(f"resuming after step {step}")
    return lines + [f"changed since this run began: {change}" for change in changes]


def dry_run(config: Config) -> None:
    """Prepares the data, compiles the step and prints what it would cost; writes no run folder."""
    start_jax()
    from purelm.training.parallel import make_engine

    data, config = prepare_run(config, None, progress=_print_line)
    engine = make_engine(config)
    print("\n".join(start_lines(config, data, engine, 0, [])))
    compiled = engine.lower_train_step().compile()
    costs, memory = compiled.cost_analysis(), compiled.memory_analysis()
    tokens = config.training.batch_size * config.model.context_length
    loops = config.training.accumulation_steps > 1 or config.model.scan_layers or config.training.loss_chunk
    if costs and "flops" in costs and not loops:  # XLA counts the body of a loop once.
        print(f"compiled: {costs['flops']:,.0f} FLOPs a step on a device by XLA's count, "
              f"{costs['flops'] / tokens * len(engine.devices):,.0f} a token")
    if memory is not None:
        print(f"memory a device: {memory.argument_size_in_bytes / 2**20:,.1f} MiB of state and batch, "
              f"{memory.temp_size_in_bytes / 2**20:,.1f} MiB of temporaries")
