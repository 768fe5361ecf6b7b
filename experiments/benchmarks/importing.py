"""Taking over a checkpoint of 500 MB, GPT-2 124M in float32, beside transformers' own load."""

from __future__ import annotations

import pathlib
import statistics
import sys
import tempfile
import time

from benchmarks.published import convert, run, write_checkpoint

FIELDS = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "bos_token_id": 256, "eos_token_id": 256}
ROUNDS = 5
# Files are mapped into memory and read when they are used: the sum is what reads them.
_LOAD = """
import sys
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
print(sum(float(parameter.detach().sum()) for parameter in model.parameters()))
"""


def measure() -> list[dict[str, object]]:
    """Medians of programs in turns, and of loads inside one process, with the files in the system's cache."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        source = folder / "gpt2"
        write_checkpoint(source, FIELDS, shard_bytes=10**10)
        whole: dict[str, list[float]] = {"theirs": [], "ours": []}
        for number in range(ROUNDS + 1):
            theirs = run([sys.executable, "-c", _LOAD, str(source)])[0]
            ours = convert(f"--from_hf={source}", f"--workdir={folder}/run{number}")[0]
            if number:  # The first compiles bytecode and warms the system's cache.
                whole["theirs"].append(theirs)
                whole["ours"].append(ours)
        rows += _rows("program, from start to end: from_pretrained and a sum | convert.py --from_hf", whole)
        rows += _rows("in one process: from_pretrained and a sum | open_checkpoint and place_params", _inside(source))
    return rows


def _inside(source: pathlib.Path) -> dict[str, list[float]]:
    import jax
    from transformers import AutoModelForCausalLM

    from purelm.interop.checkpoint import open_checkpoint
    from purelm.interop.importing import place_params

    def theirs():
        model = AutoModelForCausalLM.from_pretrained(source)
        return sum(float(parameter.detach().sum()) for parameter in model.parameters())

    def ours():
        checkpoint = open_checkpoint(source)
        return jax.block_until_ready(place_params(checkpoint, checkpoint.model))

    times: dict[str, list[float]] = {"theirs": [], "ours": []}
    for number in range(ROUNDS + 1):
        for who, load in (("theirs", theirs), ("ours", ours)):
            started = time.perf_counter()
            load()
            if number:
                times[who].append(time.perf_counter() - started)
    return times


def _rows(what: str, times: dict[str, list[float]]) -> list[dict[str, object]]:
    whats = dict(zip(("theirs", "ours"), (part.strip() for part in what.partition(":")[2].split("|")), strict=True))
    ratios = [ours / theirs for ours, theirs in zip(times["ours"], times["theirs"], strict=True)]
    where = what.partition(":")[0]
    return [{"where": where, "what": f"{'transformers' if who == 'theirs' else 'purelm'}: {whats[who]}",
             "s": f"{statistics.median(values):.2f}", "spread": f"{min(values):.2f}-{max(values):.2f}",
             "over transformers": "1" if who == "theirs" else f"{statistics.median(ratios):.2f}"}
            for who, values in times.items()]
