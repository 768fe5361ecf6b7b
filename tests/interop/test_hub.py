"""Names of the Hub, from its cache: no test has a network."""

import pathlib
import subprocess
import sys

import published
import pytest

from purelm.errors import UserError
from purelm.interop.hub import resolve
from purelm.interop.importing import import_checkpoint

ROOT = pathlib.Path(__file__).resolve().parents[2]
OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """huggingface_hub's cache with two revisions of a repository."""
    cache = tmp_path_factory.mktemp("hub")
    for revision, layers in ((OLD, 1), (NEW, 2)):
        published.gpt2(cache / "models--group--tiny" / "snapshots" / revision, n_layer=layers)
    refs = cache / "models--group--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text(NEW)
    (refs / "v1").write_text(OLD)
    return cache


@pytest.fixture(autouse=True)
def offline(cache, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.mark.parametrize("revision, expected", [(None, NEW), ("v1", OLD), (OLD, OLD)])
def test_a_name_is_its_snapshot_in_the_cache(cache, revision, expected):
    source = resolve("group/tiny", revision)
    assert source.revision == expected and (source.folder / "config.json").is_file()


def test_the_commit_is_recorded(tmp_path):
    done = import_checkpoint("group/tiny", str(tmp_path / "run"), revision="v1")
    assert done.revision == OLD and done.config.model.num_layers == 1
    assert OLD in (tmp_path / "run" / "run.json").read_text()


@pytest.mark.parametrize("name, revision, message", [
    ("group/other", None, "no such folder, and the Hub cannot be reached; group/other is not in the cache"),
    ("group/tiny", "v2", "group/tiny at revision v2 is not in the cache"),
    ("", None, "--from_hf is empty; give a folder"),
    ("./missing", None, "no such folder; give one with config.json"),
    ("a/b/c", None, "no such folder; give one with config.json"),
])
def test_what_cannot_be_found_gives_one_line(name, revision, message):
    with pytest.raises(UserError, match=message) as caught:
        resolve(name, revision)
    assert "\n" not in str(caught.value)


def test_a_folder_has_no_revisions(tmp_path):
    with pytest.raises(UserError, match="is a folder, which has no revisions"):
        resolve(str(tmp_path), "main")


def test_the_command_says_so_in_one_line(tmp_path):
    """The process that a user starts: exit code 2, one line, nothing left."""
    done = subprocess.run(
        [sys.executable, ROOT / "experiments" / "convert.py", "--from_hf=group/nothing",
         f"--workdir={tmp_path / 'run'}"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: --from_hf=group/nothing: no such folder") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
