"""Highest host memory of taking over and giving back a checkpoint of 3 GB (Llama's shape, float32, files of 1 GB)."""

from __future__ import annotations

import pathlib
import tempfile

from benchmarks.published import convert, write_checkpoint

FIELDS = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 32_000, "hidden_size": 2048,
          "intermediate_size": 5632, "num_hidden_layers": 12, "num_attention_heads": 16, "num_key_value_heads": 16,
          "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "bos_token_id": 256, "eos_token_id": 256}
SHARD = 10**9


def measure() -> list[dict[str, object]]:
    """A row a direction: the peak, what may be held (1.3 times the largest file, and what the devices hold), ratio."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        largest = write_checkpoint(folder / "source", FIELDS, SHARD)
        total = sum(path.stat().st_size for path in (folder / "source").glob("*.safetensors"))
        rows = [_row("import", convert(f"--from_hf={folder}/source", f"--workdir={folder}/run"), total, largest, total)]
        done = convert(f"--to_hf={folder}/back", f"--workdir={folder}/run")
        # An export holds nothing on a device.
        rows.append(_row("export", done, total, largest, 0))
        same = all((folder / "back" / path.name).read_bytes() == path.read_bytes()
                   for path in (folder / "source").glob("*.safetensors"))
        return [{**row, "files come back": "byte for byte" if same else "CHANGED"} for row in rows]


def _row(what: str, done: tuple[float, int], total: int, largest: int, devices: int) -> dict[str, object]:
    seconds, peak = done
    limit = 1.3 * largest + devices
    return {"what": what, "checkpoint, GB": f"{total / 1e9:.2f}", "largest file, GB": f"{largest / 1e9:.2f}",
            "on devices, GB": f"{devices / 1e9:.2f}", "peak, GB": f"{peak / 1e9:.2f}",
            "limit, GB": f"{limit / 1e9:.2f}", "over the limit": f"{peak / limit:.2f}", "s": f"{seconds:.0f}"}
