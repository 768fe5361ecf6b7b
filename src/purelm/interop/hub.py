"""Names of the Hugging Face Hub as folders on this machine."""

from __future__ import annotations

import pathlib
import re
from typing import NamedTuple

from purelm.errors import UserError
from purelm.interop.checkpoint_files import need

_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SMALL = ["*.json", "*.txt", "*.model", "*.tiktoken", "*.spm", "*.jinja"]


class Source(NamedTuple):
    """folder: with a checkpoint's files. revision: the Hub's commit, or None of a local folder."""

    folder: pathlib.Path
    revision: str | None


def resolve(name: str, revision: str | None) -> Source:
    """The folder `name`, or the snapshot of the repository of that name in huggingface_hub's cache, fetched if needed.

    Args:
      name: a folder, or a repository such as openai-community/gpt2.
      revision: a commit, branch or tag; of repositories alone.

    Raises:
      UserError: no such folder, repository or revision, one that wants a login, or no network and nothing in the cache.
    """
    if not name:
        raise UserError("--from_hf is empty; give a folder with config.json and weights, or a name such as "
                        "openai-community/gpt2")
    folder = pathlib.Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise UserError(f"--revision={revision}: {name} is a folder, which has no revisions; leave it out")
        return Source(folder, None)
    if folder.exists():
        raise UserError(f"--from_hf={name}: is a file; give the folder that it lies in")
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise UserError(f"--from_hf={name}: no such folder; give one with config.json and weights, or a name such as "
                        "openai-community/gpt2")
    snapshot = _download(name, revision, [*_SMALL, "model*.safetensors"])
    if not any(snapshot.glob("model*.safetensors")):
        snapshot = _download(name, revision, ["pytorch_model*.bin"])
    return Source(snapshot, snapshot.name)


def _download(name: str, revision: str | None, patterns: list[str]) -> pathlib.Path:
    hub = need("huggingface_hub")
    try:
        return pathlib.Path(hub.snapshot_download(name, revision=revision, allow_patterns=patterns,
                                                  ignore_patterns=["*/*"]))
    except (OSError, ValueError) as error:
        raise _refused(name, revision, error) from error


def _refused(name: str, revision: str | None, error: BaseException) -> UserError:
    from huggingface_hub import errors

    pinned = "" if revision is None else f" at revision {revision}"
    if isinstance(error, errors.GatedRepoError):
        return UserError(f"--from_hf={name}: wants an account that has accepted its terms; run hf auth login first")
    if isinstance(error, errors.RevisionNotFoundError):
        return UserError(f"--revision={revision}: {name} has no such revision; give a commit, branch or tag of it")
    if isinstance(error, errors.RepositoryNotFoundError):
        return UserError(f"--from_hf={name}: no such folder, and no such repository on the Hub (or a private one; then "
                         "run hf auth login)")
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        return UserError(f"--from_hf={name}: no such folder, and the Hub cannot be reached; {name}{pinned} is not in "
                         "the cache either: give a folder, or connect to a network")
    return UserError(f"--from_hf={name}: cannot be fetched ({' '.join(str(error).split())[:200]})")
