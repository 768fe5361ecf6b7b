"""Files of weights: what torch and safetensors write is read back, and what is damaged or foreign is refused."""

import collections
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from purelm.errors import UserError
from purelm.interop.checkpoint import same_bytes
from purelm.interop.checkpoint_files import Writer, open_weights, read_file, read_tensor


def state():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(5, 7, generator=generator)
    return {"a": a, "b": a.bfloat16(), "c": a.half(), "d": torch.arange(5), "e": torch.tensor(3.5),
            "f": torch.zeros(0, 4), "g": torch.tensor([True, False])}


def assert_same(stored, tensors):
    assert stored.keys() == tensors.keys()
    for name, entry in stored.items():
        found, expected = read_tensor(entry), tensors[name].detach()
        assert str(expected.dtype).removeprefix("torch.") == entry.dtype.name
        assert found.shape == tuple(expected.shape)
        np.testing.assert_array_equal(found.astype(np.float64), expected.double().numpy())


def test_safetensors_whole_and_in_parts(tmp_path):
    tensors = state()
    save_file(tensors, tmp_path / "model.safetensors")
    assert_same(open_weights(tmp_path), tensors)
    (tmp_path / "model.safetensors").unlink()
    parts = {"model-1.safetensors": ["a", "b", "c"], "model-2.safetensors": ["d", "e", "f", "g"]}
    for file, names in parts.items():
        save_file({name: tensors[name] for name in names}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, names in parts.items() for name in names}}))
    assert_same(open_weights(tmp_path), tensors)
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(UserError, match=r"model-2\.safetensors: is missing"):
        open_weights(tmp_path)
    save_file({"x": tensors["a"]}, tmp_path / "model-2.safetensors")
    with pytest.raises(UserError, match=r"says that model-2\.safetensors holds d, which it does not"):
        open_weights(tmp_path)
    index.write_text(json.dumps({"weight_map": {"a": "../model-1.safetensors"}}))
    with pytest.raises(UserError, match="no file beside it"):
        open_weights(tmp_path)


@pytest.mark.parametrize("damage, message", [
    (lambda data: data[:-3], "not a whole safetensors file"),
    (lambda data: data[:40], "not a whole safetensors file"),
    (lambda data: b"", "not a whole safetensors file"),
    (lambda data: b"PK" + data, "not a whole safetensors file"),
    (lambda data: data + b"x", "not a whole safetensors file"),
])
def test_a_damaged_file_is_refused(tmp_path, damage, message):
    save_file(state(), tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(damage((tmp_path / "model.safetensors").read_bytes()))
    with pytest.raises(UserError, match=message):
        open_weights(tmp_path)


def test_no_weights(tmp_path):
    with pytest.raises(UserError, match="no weights are there"):
        open_weights(tmp_path)


@pytest.mark.parametrize("zipped", [True, False])
def test_pytorch_files_with_views_and_parameters(tmp_path, zipped):
    """Reddens where strides or offsets into a shared storage are lost; not zipped: as before PyTorch 1.6."""
    tensors = state()
    tensors |= {"view": tensors["a"][1:4, 2:5], "transposed": tensors["a"].t(),
                "parameter": torch.nn.Parameter(torch.ones(2, 3))}
    path = tmp_path / "pytorch_model.bin"
    torch.save(collections.OrderedDict(tensors), path, _use_new_zipfile_serialization=zipped)
    assert_same(open_weights(tmp_path), tensors)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match="pytorch_model.bin: damaged, or"):
        open_weights(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_pointer_of_git_lfs_is_called_so(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:9d2c\nsize 290924733\n")
    with pytest.raises(UserError, match=f"{name}: is a pointer of Git LFS"):
        open_weights(tmp_path)


class Hostile:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def test_nothing_in_a_pickle_is_run(tmp_path):
    marker = tmp_path / "run"
    import os
    for hostile in (Hostile(os.mkdir, str(marker)), Hostile(eval, f"open({str(marker)!r}, 'w')")):
        torch.save({"a": hostile}, tmp_path / "pytorch_model.bin")
        with pytest.raises(UserError, match="holds more than tensors, and nothing in it is run"):
            open_weights(tmp_path)
    torch.save({"a": {"b": torch.ones(2)}}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="no state dictionary"):
        open_weights(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(UserError, match="nothing in it is run"):
        open_weights(tmp_path)
    assert not marker.exists()


def rebuilt(path, data, compression=zipfile.ZIP_STORED):
    """The .bin with `data` as its pickle."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, data if name.endswith("/data.pkl") else content)


@pytest.mark.parametrize("data", [
    b"\x80\x02K\x01r\xff\xff\xff\x7f.", b"\x80\x05\x96\x00\x00\x00\x00\x00\x10\x00\x00.", b"\x80\x02(((((.",
    b"\x80\x02Kc.", b"", b"\x80\x02cos\nsystem\n.", b"\x80\x02" + b"X\xff\xff\xff\x7fabc.", b"\x80\x02)\x85Q.",
], ids=["a memo of 16 GB", "an array of a TB", "marks", "a number", "nothing", "a function", "a text of 2 GB",
        "a storage"])
def test_a_pickle_takes_no_more_memory_than_its_file(tmp_path, data):
    """Reddens, or ends the tests, with the unpickler that is written in C."""
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    rebuilt(tmp_path / "pytorch_model.bin", data)
    message = "pytorch_model.bin: (damaged, or holds more than tensors|is no state dict)"
    with pytest.raises(UserError, match=message) as caught:
        open_weights(tmp_path)
    assert "\n" not in str(caught.value)


def test_pytorch_files_that_say_more_than_they_hold(tmp_path):
    file = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(1).expand(10**6, 10**6)}, file)  # Stride 0: four bytes as four terabytes.
    with pytest.raises(UserError, match="tensor a does not lie in the file"):
        open_weights(tmp_path)
    torch.save({"a": torch.ones(2)}, file)
    whole = file.read_bytes()
    rebuilt(file, b"", zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="no PyTorch file of weights"):
        open_weights(tmp_path)
    place = whole.index(b"PK\x01\x02")
    file.write_bytes(whole[:place + 6] + b"\xff" + whole[place + 7:])
    with pytest.raises(UserError, match=r"damaged, or cut short \(zip file version 25.5\)"):
        open_weights(tmp_path)


@pytest.mark.parametrize("text, message", [
    ("[" * 100_000, "not whole JSON"), ("1" * 5000, "not whole JSON"), ("[]", "holds no JSON object"),
    ('{"weight_map": {"a": ["b"]}}', "is missing, but"), ('{"weight_map": {"a": "%s"}}' % ("b" * 5000), "is missing"),
    ('{"weight_map": {"a": "."}}', "no file beside it"), ('{"weight_map": [1]}', "has no weight_map"),
])
def test_a_damaged_index_is_refused(tmp_path, text, message):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        open_weights(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_is_written_in_any_order_is_what_safetensors_reads(tmp_path):
    tensors = state()
    save_file(tensors, tmp_path / "model.safetensors")
    stored = open_weights(tmp_path)
    writer = Writer(tmp_path / "out.safetensors", {name: (entry.dtype, entry.shape) for name, entry in stored.items()})
    for name in reversed(stored):
        writer.write(name, read_tensor(stored[name]))
    writer.close()
    back = load_file(tmp_path / "out.safetensors")
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    again = read_file(tmp_path / "out.safetensors")
    assert all(same_bytes(again[name], stored[name]) for name in stored)
    assert not same_bytes(again["a"], stored["b"])
