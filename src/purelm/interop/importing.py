"""Published weights as a run folder, which every command takes as one that was trained here."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from purelm.config import (
    Config,
    DataConfig,
    DecodingConfig,
    ModelConfig,
    OptimizerConfig,
    TaskConfig,
    TrainingConfig,
    validate,
)
from purelm.errors import UserError
from purelm.interop.checkpoint import Checkpoint, open_checkpoint
from purelm.interop.checkpoint_files import Stored, Writer, read_json, read_tensor
from purelm.interop.generation import WRITING, decoding_of
from purelm.interop.hub import resolve
from purelm.interop.mapping import leaves_of
from purelm.interop.new_folder import check_free, new_folder
from purelm.interop.new_heads import draw
from purelm.interop.placing import stream_params
from purelm.interop.task_parameters import in_type, task_shapes
from purelm.training.checkpoint_items import nest
from purelm.training.run_folder import RunFolder, write_atomically, write_start

# In the run folder: what an export gives back as it was.
ORIGINALS = "huggingface"
KEPT = "kept.safetensors"
TENSORS = "tensors.json"
_SMALL = (".json", ".txt", ".model", ".tiktoken", ".spm", ".jinja")
_LARGEST_SMALL = 64 << 20


@dataclasses.dataclass(frozen=True)
class Imported:
    """A run folder that was made: what is in it, the names of tensors that were kept aside, and lines on what was not
    taken over."""

    folder: RunFolder
    checkpoint: Checkpoint
    config: Config
    num_parameters: int
    kept: tuple[str, ...]
    revision: str | None
    notes: tuple[str, ...]


def import_checkpoint(
    name: str, workdir: str, *, revision: str | None = None, dtype: str = "auto", context_length: int | None = None,
    tokenizer_from: str | None = None, task: str | None = None, num_classes: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Imported:
    """Makes a run folder of a published checkpoint, whole or not at all.

    Args:
      name: a folder, or a name of the Hub.
      workdir: the run folder, which must not hold anything.
      revision: of the Hub's repository.
      dtype: of parameters and activations: float32, bfloat16, or auto, which is bfloat16 where all tensors are.
      context_length: where the positions are not learned, in place of the checkpoint's, for a smaller cache.
      tokenizer_from: a folder with the tokenizer's files, where they are not beside the weights.
      task: to begin another than the checkpoint's own; what its head lacks is drawn.
      num_classes: of such a task; None is 2.
      progress: called with (bytes placed, bytes in all).

    Raises:
      UserError: whatever is wrong with the checkpoint, the names or the disk, in one line.
    """
    target, flag = pathlib.Path(workdir), f"--workdir={workdir}"
    check_free(target, flag)
    source = resolve(name, revision)
    checkpoint = open_checkpoint(source.folder, task, num_classes)
    model = _with_length(_in_types(checkpoint, dtype), context_length)
    fields = _with_generation(checkpoint)
    tokenizer = _tokenizer(checkpoint, fields, pathlib.Path(tokenizer_from or source.folder), model)
    decoding, notes = decoding_of(fields, checkpoint.task, model.context_length)
    config = _run_config(checkpoint, model, tokenizer, decoding, target)
    with new_folder(target, flag, _least_bytes(config)) as partial:
        num_parameters = _write_run(partial, checkpoint, config, tokenizer, name, source.revision, progress)
    kept = () if checkpoint.retasked else tuple(sorted(checkpoint.others))
    if checkpoint.drawn:
        notes.append(f"in no file, and so drawn at random: {', '.join(checkpoint.drawn)}")
    if checkpoint.retasked and checkpoint.others:
        notes.append(f"of other heads, and so left out: {', '.join(sorted(checkpoint.others))}")
    return Imported(RunFolder(target), checkpoint, config, num_parameters, kept, source.revision,
                    tuple(notes))


def _least_bytes(config: Config) -> int:
    """What the parameters take on a disk: Orbax compresses them, those that were of half the width by half."""
    shapes = task_shapes(config.model, config.task.name)
    size = np.dtype(jax.numpy.dtype(config.model.param_dtype)).itemsize
    return sum(leaf.size for leaf in jax.tree.leaves(shapes)) * size // 2


def _in_types(checkpoint: Checkpoint, dtype: str) -> ModelConfig:
    types = {stored.dtype.name for stored in checkpoint.files.values()}
    if dtype == "auto":
        dtype = "bfloat16" if types == {"bfloat16"} else "float32"
    return dataclasses.replace(checkpoint.model, param_dtype=dtype, compute_dtype=dtype)


def _with_length(model: ModelConfig, context_length: int | None) -> ModelConfig:
    if context_length is None:
        return model
    if model.positions == "learned":
        raise UserError(f"--context_length={context_length}: the model's {model.context_length} positions are learned, "
                        "and so is their number; leave it out")
    if context_length > model.context_length:
        raise UserError(f"--context_length={context_length} is more than the checkpoint's {model.context_length}; give "
                        "at most that")
    return dataclasses.replace(model, context_length=context_length)


def _with_generation(checkpoint: Checkpoint) -> dict[str, Any]:
    """config.json's fields and generation_config.json's.

    Where there is such a file, what it leaves out of how texts are written is not taken from config.json, as
    transformers does not.
    """
    path = checkpoint.folder / "generation_config.json"
    if not path.is_file():
        return checkpoint.fields
    own = {name: value for name, value in checkpoint.fields.items() if name not in WRITING}
    return own | {name: value for name, value in read_json(path).items() if value is not None}


def _tokenizer(checkpoint: Checkpoint, fields: dict[str, Any], folder: pathlib.Path, model: ModelConfig) -> Any:
    from purelm.data.tokenizers.importing import import_tokenizer

    if not folder.is_dir():
        raise UserError(f"--tokenizer={folder}: no such folder; give one with a tokenizer's files")
    tokenizer = import_tokenizer(folder, checkpoint.task, checkpoint.fields["model_type"], fields)
    if tokenizer is None:
        raise UserError(f"{folder}: no tokenizer is there (tokenizer.json, vocab.json and merges.txt, vocab.txt, "
                        "a .model, .spm or .tiktoken file); give the folder of one as --tokenizer")
    if tokenizer.vocabulary_size > model.vocabulary_size:
        raise UserError(f"{folder}: the tokenizer has {tokenizer.vocabulary_size:,} ids, but the model has "
                        f"{model.vocabulary_size:,} rows of embeddings; they are not of one checkpoint")
    largest = max(tokenizer.special.every_id, default=0)
    if largest >= model.vocabulary_size:
        raise UserError(f"{checkpoint.folder}: config.json or generation_config.json names the token {largest:,}, but "
                        f"the model has {model.vocabulary_size:,} rows of embeddings; they are not of one checkpoint")
    return tokenizer


def _run_config(checkpoint: Checkpoint, model: ModelConfig, tokenizer: Any, decoding: DecodingConfig,
                target: pathlib.Path) -> Config:
    """The config of the run, which train.py takes too, and then begins from these weights.

    Its optimizer and length are those of fine-tuning (Devlin et al. 2019, appendix A.3).
    """
    special = tokenizer.special
    marked = tokenizer.end_of_text_id is not None or bool(special.start)
    return validate(Config(
        init_from=str(target), model=model, task=TaskConfig(name=checkpoint.task), decoding=decoding,
        data=DataConfig(tokenizer_path=str(target / "tokenizer.json"), end_of_text=marked),
        optimizer=OptimizerConfig(name="adamw", learning_rate=2e-5),
        training=TrainingConfig(num_epochs=3.0, batch_size=8)))


def _write_run(partial: pathlib.Path, checkpoint: Checkpoint, config: Config, tokenizer: Any, name: str,
               revision: str | None, progress: Callable[[int, int], None] | None) -> int:
    folder = RunFolder(partial)
    if not checkpoint.retasked:
        originals = partial / ORIGINALS
        originals.mkdir()
        _keep_originals(checkpoint, tokenizer, originals)
    tokenizer.save(folder.tokenizer)
    data = {"tokenizer": tokenizer.fingerprint,
            "imported": {"from": name, "revision": revision, "model_type": checkpoint.fields["model_type"],
                         "architecture": checkpoint.fields["architectures"][0]}}
    if checkpoint.labels is not None:
        data["labels"] = list(checkpoint.labels)
        write_atomically(folder.labels, json.dumps(data["labels"], ensure_ascii=False) + "\n")
    params = place_params(checkpoint, config.model, progress=progress)
    _save_params(folder, params)
    write_start(folder, config, data, jax.devices(), begun=False)
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


def place_params(checkpoint: Checkpoint, model: ModelConfig, shardings: Any = None, *,
                 progress: Callable[[int, int], None] | None = None) -> Any:
    """The checkpoint's parameters on devices, streamed tensor by tensor.

    Args:
      checkpoint: what `open_checkpoint` gave.
      model: its model, in the types that are wanted.
      shardings: a tree of them, or None for one device.
      progress: called with (bytes placed, bytes in all).
    """
    shapes = in_type(task_shapes(model, checkpoint.task), np.dtype(jax.numpy.dtype(model.param_dtype)))
    if shardings is not None:
        shapes = jax.tree.map(lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                              shapes, shardings)
    total, done = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes)), 0

    def advance(num_bytes: int) -> None:
        nonlocal done
        done += num_bytes
        if progress is not None:
            progress(done, total)

    drawn = checkpoint.drawn
    placed = dict(leaves_of(stream_params(
        [tensor for tensor in checkpoint.tensors if tensor.ours not in drawn],
        nest({path: leaf for path, leaf in leaves_of(shapes) if path not in drawn}), checkpoint.files,
        progress=advance)))
    if drawn:
        placed |= draw(model, checkpoint.task, drawn)
    return nest(placed)


def _save_params(folder: RunFolder, params: Any) -> None:
    from purelm.training.checkpoints import Checkpoints
    from purelm.training.state import TrainState

    with Checkpoints(folder.checkpoints, keep_last=1, keep_best=False) as checkpoints:
        checkpoints.save(0, TrainState(np.zeros((), np.int32), params, {}, None))


def _keep_originals(checkpoint: Checkpoint, tokenizer: Any, originals: pathlib.Path) -> None:
    """Copies of the small files, the tensors that are not read, and where every tensor was; of the tokenizer its own
    files, which may have come from elsewhere."""
    from purelm.data.tokenizers.exporting import write_tokenizer_files
    from purelm.data.tokenizers.importing import is_tokenizer_file

    sources = {name: checkpoint.folder / name for name in tokenizer.file_names}
    beside = all(path.is_file() and path.read_bytes() == tokenizer.file(name) for name, path in sources.items())
    for path in sorted(checkpoint.folder.iterdir()):
        if path.is_file() and path.name.endswith(_SMALL) and path.stat().st_size < _LARGEST_SMALL and (
                not path.name.endswith(".index.json")) and (beside or not is_tokenizer_file(path.name)):
            shutil.copyfile(path, originals / path.name)
    if not beside:
        write_tokenizer_files(tokenizer, originals)
    if checkpoint.others:
        writer = Writer(originals / KEPT, {name: (stored.dtype, stored.shape)
                                           for name, stored in checkpoint.others.items()})
        for name, stored in checkpoint.others.items():
            writer.write(name, read_tensor(stored))
        writer.close()
    write_atomically(originals / TENSORS, json.dumps(_where_all(checkpoint), indent=0) + "\n")


def _where_all(checkpoint: Checkpoint) -> dict[str, Any]:
    """Of each tensor, by its name in the files and in their order: its file, type, shape, and name in the table."""
    everything: list[tuple[str, str | None, Stored]] = [
        *((checkpoint.names[name], name, stored) for name, stored in checkpoint.files.items()),
        *((name, None, stored) for name, stored in checkpoint.others.items())]
    everything.sort(key=lambda item: (item[2].file.name, item[2].offset))
    return {name: {"file": stored.file.name, "dtype": stored.dtype.name, "shape": list(stored.shape), "reads": reads}
            for name, reads, stored in everything}
