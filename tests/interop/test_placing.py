"""Tensors onto devices: each device reads its own part."""

import concurrent.futures
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from purelm.errors import UserError
from purelm.interop.checkpoint_files import read_file, read_tensor  # noqa: F401 (the second for eight devices)
from purelm.interop.mapping import Part, Tensor, leaves_of, linear, params_from
from purelm.interop.placing import copy_into, read_part, stream_params

TABLE = [part for number, name in enumerate(("query", "key"))
         for part in linear(f"layers/attention/{name}", "h.{}.qk", True, part=Part(number, 2, 4))] + [
    Tensor("embedding/embedding", "wte")]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    path = tmp_path_factory.mktemp("placing") / "model.safetensors"
    draw = torch.Generator().manual_seed(0)
    tensors = {"wte": torch.randn(30, 16, generator=draw)}
    for layer in range(3):
        tensors |= {f"h.{layer}.qk.weight": torch.randn(48, 16, generator=draw),
                    f"h.{layer}.qk.bias": torch.randn(48, generator=draw)}
    save_file(tensors, path)
    return read_file(path), {name: tensor.numpy() for name, tensor in tensors.items()}


def shapes(dtype=np.float32):
    leaves = {"kernel": jax.ShapeDtypeStruct((3, 16, 24), dtype), "bias": jax.ShapeDtypeStruct((3, 24), dtype)}
    attention = {name: dict(leaves) for name in ("query", "key")}
    return {"layers": {"attention": attention}, "embedding": {"embedding": jax.ShapeDtypeStruct((30, 16), dtype)}}


@pytest.mark.parametrize("index", [np.s_[:, :, :], np.s_[1:2, :, :], np.s_[:, 4:8, 12:24], np.s_[2:3, 0:16, 0:1]])
def test_a_part_is_the_part_of_the_whole(files, index):
    """Reddens where a device's slice is taken of the tensor as it lies in the file, or of another layer."""
    stored, arrays = files
    whole = params_from(TABLE, shapes(), arrays.__getitem__)["layers"]["attention"]["key"]["kernel"]
    tensor = next(line for line in TABLE if line.ours == "layers/attention/key/kernel")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        part = read_part(tensor, whole.shape, np.float32, index, stored, pool)
    np.testing.assert_array_equal(part, whole[index])


def test_every_parameter_is_where_and_what_it_should_be(files):
    stored, arrays = files
    told = []
    placed = stream_params(TABLE, shapes(jax.numpy.bfloat16), stored, progress=told.append)
    expected = dict(leaves_of(params_from(TABLE, shapes(), arrays.__getitem__)))
    for path, leaf in leaves_of(placed):
        assert leaf.dtype == jax.numpy.bfloat16
        np.testing.assert_array_equal(leaf, expected[path].astype(jax.numpy.bfloat16))
    assert sum(told) == sum(leaf.nbytes for _, leaf in leaves_of(placed))


EIGHT = """
import pathlib, sys
import jax, numpy as np
sys.path.insert(0, sys.argv[1])
from test_placing import TABLE, leaves_of, read_file, read_tensor, params_from, shapes, stream_params
files = read_file(pathlib.Path(sys.argv[2]))
mesh = jax.make_mesh((4, 2), ("fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
spec = {3: jax.sharding.PartitionSpec(None, "fsdp", "tensor"), 2: jax.sharding.PartitionSpec(None, "tensor")}
place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=jax.sharding.NamedSharding(
    mesh, spec[len(leaf.shape)]))
placed = stream_params(TABLE, jax.tree.map(place, shapes()), files)
kernel = placed["layers"]["attention"]["key"]["kernel"]
assert len(kernel.addressable_shards) == 8 and kernel.addressable_shards[0].data.shape == (3, 4, 12)
whole = dict(leaves_of(params_from(TABLE, shapes(), lambda name: read_tensor(files[name]))))
for path, leaf in leaves_of(placed):
    np.testing.assert_array_equal(leaf, whole[path])
print("same")
"""


def test_parts_over_a_mesh_of_eight_devices(files):
    path = next(iter(files[0].values())).file
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "JAX_PLATFORMS": "cpu",
                                "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    done = subprocess.run([sys.executable, "-c", EIGHT, str(pathlib.Path(__file__).parent), str(path)], text=True,
                          env=environment, capture_output=True, timeout=120)
    assert done.stdout == "same\n", done.stderr[-2000:]


def test_a_shape_that_differs_is_said_before_anything_is_read(files):
    abstract = shapes()
    abstract["embedding"]["embedding"] = jax.ShapeDtypeStruct((31, 16), np.float32)
    with pytest.raises(UserError, match=r"tensor wte: is \[30, 16\], but the config says \[31, 16\]"):
        stream_params(TABLE, abstract, files[0])


@pytest.mark.parametrize("shape", [(700, 300), (256, 512), (1, 5)])
def test_a_transposed_matrix_is_copied_whole(shape):
    matrix = np.random.default_rng(0).normal(size=shape)
    target = np.empty(shape[::-1])
    copy_into(target, matrix.T)
    np.testing.assert_array_equal(target, matrix.T)
