"""Checkpoints in the published format, of random numbers, and programs that read them."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
END = "<|endoftext|>"


def write_checkpoint(folder: pathlib.Path, fields: dict, shard_bytes: int) -> int:
    """Writes config.json, float32 weights and a tokenizer of bytes; the bytes of the largest file of weights.

    The tensors are those of the family's table, each drawn alone, so that any size fits in memory.
    """
    import numpy as np
    from tokenizers import Tokenizer, models, pre_tokenizers

    from purelm.interop.checkpoint import read_model
    from purelm.interop.checkpoint_files import Writer
    from purelm.interop.export_plan import shard
    from purelm.interop.families import family_of
    from purelm.interop.mapping import lines_by_name, shape_of
    from purelm.interop.task_parameters import task_shapes

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(fields))
    task, family = "language_modeling", family_of(fields["model_type"], "config.json")
    model = read_model(family, fields, task, "config.json")
    shapes = task_shapes(model, task)
    lines = lines_by_name(family.tensors(model, task), shapes)
    sizes = {name: shape_of(found, shapes) for name, found in lines.items()}
    files: dict[str, dict] = {}
    for name, (file, dtype, shape) in shard(sizes, np.dtype(np.float32), shard_bytes).items():
        files.setdefault(file, {})[name] = (dtype, shape)
    draw = np.random.default_rng(0)
    for file, entries in files.items():
        writer = Writer(folder / file, entries)
        for name, (dtype, shape) in entries.items():
            writer.write(name, draw.standard_normal(shape, dtype=dtype) * np.float32(0.02))
        writer.close()
    if len(files) > 1:
        weight_map = {name: file for file, entries in files.items() for name in entries}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    vocabulary = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([END])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "bos_token": END}))
    return max((folder / file).stat().st_size for file in files)


def convert(*arguments: str) -> tuple[float, int]:
    """(seconds, highest resident memory in bytes) of one call of convert.py."""
    return run([sys.executable, "experiments/convert.py", *arguments])


# A process begins with its parent's highest memory, so a small one starts what is measured.
_LAUNCHER = """
import resource, subprocess, sys, time
started = time.perf_counter()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL)
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done.returncode)
"""


def run(command: list[str]) -> tuple[float, int]:
    """(seconds, highest resident memory in bytes) of a program; RuntimeError where it fails."""
    done = subprocess.run([sys.executable, "-c", _LAUNCHER, *command], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "HF_HUB_OFFLINE": "1"})
    if done.returncode:
        raise RuntimeError(f"{command}: {done.stderr.splitlines()[-1] if done.stderr else done.returncode}")
    seconds, kilobytes = done.stdout.split()[-2:]
    return float(seconds), int(kilobytes) * 1024
