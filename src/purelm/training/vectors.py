"""Word vectors into a run (its first embeddings) and out of one (vectors.txt)."""

from __future__ import annotations

import pathlib
import re
from typing import Any

import jax
import numpy as np

from purelm.config import Config
from purelm.data.tokenizers import TRAINED_KINDS, Tokenizer
from purelm.data.vectors_file import read_vectors, write_vectors
from purelm.errors import UserError
from purelm.models.word_vectors import is_trained, word_vectors
from purelm.training.rules import path_name

FILE = "vectors.txt"
# Token embeddings, of an encoder and of a decoder, and the input table of word vectors.
_TABLES = re.compile(r"^(.*/)?embedding/embedding$|^input/embedding$")


def trained_vectors(tokenizer: Tokenizer, params: Any) -> tuple[list[str], np.ndarray]:
    """(words, [N, D]): the words that training has moved, the most frequent first, and their vectors."""
    ids = np.flatnonzero(np.asarray(is_trained(params))[:tokenizer.base_size])
    vectors_VD = np.asarray(word_vectors(params), np.float32)
    return [tokenizer.token_bytes[number].decode("utf-8") for number in ids.tolist()], vectors_VD[ids]


def save_vectors(run_folder: str | pathlib.Path, tokenizer: Tokenizer, params: Any) -> pathlib.Path:
    """Writes RUN/vectors.txt, in word2vec's text format, from the parameters of task word_vectors; returns its path.

    Raises UserError as `write_vectors`.
    """
    path = pathlib.Path(run_folder) / FILE
    write_vectors(path, *trained_vectors(tokenizer, params))
    return path


def initial_embeddings(config: Config, tokenizer: Tokenizer, params: Any) -> tuple[Any, str]:
    """`params` (host arrays) with the vectors of config.init_vectors in the rows of the tokens that they are of.

    A token is matched by its text, as it is or else in lower case; of subwords those alone that begin a word, without
    the space before it. Other rows stay as they were. To freeze the table:
    config.optimizer.learning_rate_rules = (("embedding/embedding$", 0.0), (".*", 1.0)).

    Returns:
      The parameters, and a line that says how many rows were matched.

    Raises:
      UserError: the file cannot be read, its vectors are not of the model's width, no token is in it, or the model has
        no table of embeddings.
    """
    path = config.init_vectors
    words, vectors = read_vectors(path)
    row_of = {word: row for row, word in enumerate(words)}
    ids, rows = [], []
    for number in range(tokenizer.base_size):
        text = _word_of(tokenizer, number)
        row = row_of[text] if text in row_of else row_of[text.lower()] if text and text.lower() in row_of else None
        if row is not None:
            ids.append(number)
            rows.append(row)
    if not ids:
        raise UserError(f"config.init_vectors={path}: none of its {len(words):,} words is a token of this run's "
                        f"{tokenizer.kind} tokenizer; take vectors of the same language, or "
                        "config.data.tokenizer=words")
    tables = []

    def fill(key_path: Any, leaf: Any) -> Any:
        name = path_name(key_path)
        if not _TABLES.search(name):
            return leaf
        if leaf.shape[1] != vectors.shape[1]:
            field = "width" if config.model.embedding_width is None else "embedding_width"
            raise UserError(f"config.init_vectors={path}: its vectors have {vectors.shape[1]} numbers, and {name} has "
                            f"{leaf.shape[1]} (config.model.{field}); set --config.model.{field}={vectors.shape[1]}")
        tables.append(name)
        filled = np.array(leaf)
        filled[ids] = vectors[rows].astype(filled.dtype)
        return filled

    params = jax.tree_util.tree_map_with_path(fill, params)
    if not tables:
        raise UserError("config.init_vectors: this model has no table of embeddings to start from vectors")
    return params, (f"{path}: {len(ids):,} of {tokenizer.vocabulary_size:,} tokens start from its {len(words):,} words "
                    f"({', '.join(tables)})")


def _word_of(tokenizer: Tokenizer, number: int) -> str | None:
    """The word that a token stands for, or None where it is no start of a word, or no text."""
    try:
        text = tokenizer.token_bytes[number].decode("utf-8")
    except UnicodeDecodeError:
        return None
    if tokenizer.kind in TRAINED_KINDS:
        return text[1:] if len(text) > 1 and text.startswith(" ") else None
    return text
