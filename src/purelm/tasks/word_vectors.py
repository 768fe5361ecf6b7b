"""Word vectors: skip-gram and CBOW with negative sampling (Mikolov et al. 2013, arXiv 1301.3781 and 1310.4546), and
GloVe (Pennington, Socher & Manning 2014, EMNLP).

Negatives: each block of a batch draws one pool, which all its pairs share, and every pair counts the whole pool by
negatives / pool size. The expected loss and gradient are those of negatives drawn for each pair alone (1310.4546,
equation 4), and the sums over pairs become matrix products (sharing as in Ji et al. 2016, arXiv 1604.04661). A
negative that happens to be the right word counts, as in equation 4 (the authors' program skips it).

With config.optimizer.name=sgd, skip-gram and CBOW are trained as the authors' programs train them: WORDS_AT_ONCE words
after WORDS_AT_ONCE words of a batch move the rows they read, by learning_rate times the sum (not the mean) over their
pairs, before the next are read (see tasks.online). Any other optimizer has the plain gradient of the whole batch.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from purelm.config import Config
from purelm.data.preparation import Progress
from purelm.data.preparation import prepare as prepare_tokens
from purelm.data.tokenizers import Tokenizer
from purelm.data.word_data import PreparedWords, prepare_words
from purelm.data.word_pairs import pool_size
from purelm.models.word_vectors import WordVectors
from purelm.tasks.online import online_sums

UNIT = "pairs"
# So few that the most frequent word, subsampled, is among them a few times only: its summed step stays stable.
WORDS_AT_ONCE = 512
Rows = tuple[jax.Array, jax.Array]


def prepare(config: Config, *, tokenizer: Tokenizer | None = None, labels: None = None,
            progress: Progress | None = None) -> PreparedWords:
    """Blocks of words, or counts of pairs (see data.word_data); raises as data.prepare and prepare_words."""
    return prepare_words(config, prepare_tokens(config, tokenizer=tokenizer, progress=progress),
                         progress or (lambda line: None))


def batch_shapes(config: Config, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The abstract batch of `rows` blocks (skip-gram, CBOW), or of `rows` x context_length counts (GloVe)."""
    length, window = config.model.context_length, config.word_vectors.window
    if config.word_vectors.method == "glove":
        lengths = {"rows": length, "columns": length, "counts": length}
    else:
        lengths = {"words": length + 2 * window, "left": length, "right": length, "negatives": pool_size(config)}
    return {name: jax.ShapeDtypeStruct((rows, size), jnp.float32 if name == "counts" else jnp.int32)
            for name, size in lengths.items()}


def initialize(config: Config, key: jax.Array) -> Any:
    """The initial parameters: input/embedding and output/embedding [V, D]; for GloVe input/bias and output/bias [V]."""
    model = WordVectors(config.model, biases=config.word_vectors.method == "glove")
    return model.init(key, jnp.zeros((1, 1), jnp.int32))["params"]


def loss_sums(config: Config, params: Any, batch: Mapping[str, jax.Array],
              key: jax.Array | None) -> dict[str, jax.Array]:
    """Sums over the batch's pairs, float32 scalars: `loss`, `cross_entropy` (the same number) and `weight`.

    A pair is a word and a neighbor (skip-gram; loss in nats: equation 4 of arXiv 1310.4546), a word and the mean of
    its neighbors (CBOW; in nats), or two words with a count (GloVe; the weighted squared error of its equation 8).
    `key` is not used: nothing is drawn here.
    """
    if config.word_vectors.method == "glove":
        loss, weight = _glove(config, params, batch)
    else:
        pair_sums = _skip_gram if config.word_vectors.method == "skip_gram" else _cbow
        tables = (params["input"]["embedding"], params["output"]["embedding"])
        if config.optimizer.name == "sgd":
            loss, weight = online_sums(functools.partial(_places, config), functools.partial(pair_sums, config, True),
                                       config.optimizer.learning_rate, WORDS_AT_ONCE // config.model.context_length,
                                       tables, dict(batch))
        else:
            rows = tuple(_rows(table, index) for table, index in zip(tables, _places(config, batch)))
            loss, weight = pair_sums(config, False, rows, batch)
    return {"loss": loss, "cross_entropy": loss, "weight": weight}


def _places(config: Config, batch: Mapping[str, jax.Array]) -> Rows:
    """Ids [B, ...] of the rows that the batch reads of the input table and of the output table.

    Negatives follow the right words in one look-up, so that their gradient is one pass over the table.
    """
    window, words_BS = config.word_vectors.window, batch["words"]
    centers_BT = words_BS[:, window:window + config.model.context_length]
    inputs, outputs = (centers_BT, words_BS) if config.word_vectors.method == "skip_gram" else (words_BS, centers_BT)
    return inputs, jnp.concatenate([outputs, batch["negatives"]], axis=1)


def _skip_gram(config: Config, online: bool, rows: Rows, batch: Mapping[str, jax.Array]) -> Rows:
    """(loss, pairs): each word predicts each neighbor."""
    x_BTD, y_BXD = rows
    near_BTS = _is_neighbor(batch, config.word_vectors.window)
    pairs_BT = jnp.sum(near_BTS, axis=-1)
    scores_BTX = jnp.einsum("BTD,BXD->BTX", x_BTD, y_BXD)
    positive_BTS, negative_BTP = jnp.split(scores_BTX, [near_BTS.shape[-1]], axis=-1)
    share = config.word_vectors.negatives / negative_BTP.shape[-1]
    loss = (jnp.sum(near_BTS * jax.nn.softplus(-positive_BTS)) +
            share * jnp.sum(pairs_BT[..., None] * jax.nn.softplus(negative_BTP)))
    return loss, jnp.sum(pairs_BT)


def _cbow(config: Config, online: bool, rows: Rows, batch: Mapping[str, jax.Array]) -> Rows:
    """(loss, words): the mean of the neighbors predicts the word.

    Online, each neighbor moves by the mean's whole error, not by its part of it, as in the authors' program.
    """
    x_BSD, y_BXD = rows
    y_BTD, negatives_BPD = jnp.split(y_BXD, [config.model.context_length], axis=1)
    near_BTS = _is_neighbor(batch, config.word_vectors.window)
    neighbors_BT = jnp.sum(near_BTS, axis=-1)
    real_BT = (neighbors_BT > 0).astype(jnp.float32)
    sum_BTD = jnp.einsum("BTS,BSD->BTD", near_BTS, x_BSD)
    mean_BTD = sum_BTD / jnp.maximum(neighbors_BT, 1)[..., None]
    if online:
        mean_BTD = sum_BTD + jax.lax.stop_gradient(mean_BTD - sum_BTD)
    positive_BT = jnp.sum(mean_BTD * y_BTD, axis=-1)
    negative_BTP = jnp.einsum("BTD,BPD->BTP", mean_BTD, negatives_BPD)
    share = config.word_vectors.negatives / negative_BTP.shape[-1]
    loss = (jnp.sum(real_BT * jax.nn.softplus(-positive_BT)) +
            share * jnp.sum(real_BT[..., None] * jax.nn.softplus(negative_BTP)))
    return loss, jnp.sum(real_BT)


def _glove(config: Config, params: Any, batch: Mapping[str, jax.Array]) -> Rows:
    """f(X_ij) (w_i . w~_j + b_i + b~_j - log X_ij)^2, with f(x) = min(x / maximum, 1) ** power (equations 8 and 9)."""
    settings, counts_BT = config.word_vectors, batch["counts"]
    real_BT = (counts_BT > 0).astype(jnp.float32)
    scores_BT = (jnp.sum(_rows(params["input"]["embedding"], batch["rows"])
                         * _rows(params["output"]["embedding"], batch["columns"]), axis=-1)
                 + jnp.take(params["input"]["bias"], batch["rows"], mode="clip").astype(jnp.float32)
                 + jnp.take(params["output"]["bias"], batch["columns"], mode="clip").astype(jnp.float32))
    weights_BT = real_BT * jnp.minimum(counts_BT / settings.glove_maximum, 1.0) ** settings.glove_power
    errors_BT = scores_BT - jnp.log(jnp.where(counts_BT > 0, counts_BT, 1.0))
    return jnp.sum(weights_BT * errors_BT ** 2), jnp.sum(real_BT)


def _rows(table_VD: jax.Array, index: jax.Array) -> jax.Array:
    """float32 rows of the table."""
    return jnp.take(table_VD, index, axis=0, mode="clip").astype(jnp.float32)


def _is_neighbor(batch: Mapping[str, jax.Array], window: int) -> jax.Array:
    """float32 [B, T, W + T + W]: 1 where word s is one of the neighbors that word t sees."""
    length = batch["left"].shape[1]
    distance_TS = jnp.arange(length + 2 * window) - window - jnp.arange(length)[:, None]
    inside_BTS = (distance_TS >= -batch["left"][..., None]) & (distance_TS <= batch["right"][..., None])
    return (inside_BTS & (distance_TS != 0)).astype(jnp.float32)
