"""Span corruption: write what was cut out of a text (Raffel et al. 2020, arXiv 1910.10683, section 3.1.4).

Spans of tokens are replaced by a sentinel each; what is to be written is each sentinel followed by its span, and an end
of text. How many tokens and spans are cut depends on the context's length alone, so that all batches have one shape.
An encoder-decoder reads the one and writes the other; a decoder has both in one window, the first as its prefix.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from purelm import data
from purelm.config import Config
from purelm.data import Batch, Tokenizer
from purelm.data.preparation import Progress
from purelm.errors import UserError
from purelm.models import make_model
from purelm.tasks import losses
from purelm.tasks.head_statistics import head_statistics
from purelm.tasks.noised_windows import Draw, NoisedWindows, with_context
from purelm.tasks.sequence_to_sequence import closing

UNIT = "tokens"
_PURPOSE = 12


class Sizes(NamedTuple):
    """Of a window of `window` tokens: those cut out, their spans, what is read (S) and what is written (T).

    Both of the last count one sentinel a span and the end of text.
    """

    window: int
    noise: int
    spans: int
    source: int
    target: int


def sizes_of_window(window: int, mask_fraction: float, mean_span_length: float) -> Sizes:
    """The sizes for a window: round(mask_fraction N) tokens in round(tokens / mean_span_length) spans, both at least 1
    and leaving as many tokens between the spans."""
    noise = min(max(round(window * mask_fraction), 1), window - 1)
    spans = min(max(round(noise / mean_span_length), 1), noise, window - noise)
    return Sizes(window, noise, spans, window - noise + spans + 1, noise + spans + 1)


def sizes(config: Config) -> Sizes:
    """The sizes for the longest window whose parts fit config.model.context_length.

    For an encoder-decoder the source must fit (T5's random_spans_helper: 512 read are windows of 568, 114 written) and
    the target too; for a decoder both, one after the other.

    Raises:
      UserError: the context is too short for any.
    """
    model, task = config.model, config.task
    return _longest_sizes(model.context_length, model.architecture == "decoder", task.mask_fraction,
                          task.mean_span_length)


@functools.lru_cache(maxsize=16)
def _longest_sizes(room: int, one_window: bool, mask_fraction: float, mean_span_length: float) -> Sizes:
    window, best = 2, None
    while (found := sizes_of_window(window, mask_fraction, mean_span_length)).source <= room:
        together = found.source + found.target - 1 if one_window else found.target
        best = found if together <= room else best
        window += 1
    if best is None:
        raise UserError(f"config.model.context_length={room} is too short for span_corruption; give at least 8")
    return best


def prepare(config: Config, *, tokenizer: Tokenizer | None = None, labels: None = None,
            progress: Progress | None = None) -> NoisedWindows:
    """Windows of the token stream with spans cut out; `labels` are for other tasks.

    Raises:
      UserError: the data has no end of text, which ends what is written.
    """
    if not config.data.end_of_text:
        raise UserError("span_corruption ends what it writes with the end of text; set --config.data.end_of_text=true")
    found = sizes(config)
    inner = data.prepare(with_context(config, found.window), tokenizer=tokenizer, progress=progress)
    sentinels = sentinel_ids(inner.tokenizer, found.spans)
    return NoisedWindows(inner, corrupted, num_specials=0 if sentinels[0] < inner.vocabulary_size else found.spans,
                         window_length=lambda config: sizes(config).window, purpose=_PURPOSE)


def sentinel_ids(tokenizer: Tokenizer, spans: int) -> np.ndarray:
    """int32 [spans]: the tokenizer's sentinels, or the ids after all of its own.

    Raises:
      UserError: the tokenizer has fewer sentinels, or frames a source otherwise than by one id after it.
    """
    special = tokenizer.special
    if special.source_start or len(closing(special)) != 1 or not special.stop:
        raise UserError("span_corruption ends what is read with one id, and what it writes; the run's tokenizer puts "
                        f"{len(special.source_start)} before a source and {len(closing(special))} after it: take "
                        "T5's, or one of purelm's own with --config.data.end_of_text=true")
    if not special.sentinels:
        return tokenizer.vocabulary_size + np.arange(spans, dtype=np.int32)
    if spans > len(special.sentinels):
        raise UserError(f"the tokenizer has {len(special.sentinels)} sentinels, but the windows of span_corruption "
                        f"{spans} spans; lower config.model.context_length or config.task.mask_fraction, or raise "
                        "config.task.mean_span_length")
    return np.array(special.sentinels[:spans], np.int32)


def corrupted(config: Config, tokenizer: Tokenizer, batch: Batch, draw: Draw) -> Batch:
    """Plain windows [B, N] with spans cut out, in the form of the architecture.

    Returns:
      for an encoder-decoder source, source_segments [B, S], tokens, targets, weights [B, T]: those of
      sequence_to_sequence; tokens are targets one step later, after what a target starts with. For a decoder tokens,
      targets, weights, segments, positions, prefix [B, context_length]: source and target in one window, no loss on
      the source.
    """
    found = sizes(config)
    noise_BN = span_mask(found, draw)
    pieces = cut_spans(batch["tokens"], batch["segments"] != 0, noise_BN, found, tokenizer)
    if config.model.architecture == "decoder":
        return _one_window(*pieces, config.model.context_length)
    source_BS, source_real_BS, target_BT, target_real_BT = pieces
    first = (tokenizer.special.target_start or tokenizer.special.stop)[0]
    tokens_BT = np.concatenate([np.full((len(target_BT), 1), first), target_BT[:, :-1]], axis=1)
    source_real_BS[:, 0] = True  # A row of padding would have nothing to attend to.
    return {"source": source_BS, "source_segments": source_real_BS.astype(np.int32),
            "tokens": tokens_BT.astype(np.int32), "targets": target_BT, "weights": target_real_BT.astype(np.float32)}


def span_mask(found: Sizes, draw: Draw) -> np.ndarray:
    """bool [B, N]: the tokens that are cut out. Kept and cut spans take turns, a kept one first; the lengths of either
    are a uniformly drawn division of its tokens into that many parts, none of them empty."""
    kept_BP = _division(draw(found.window - found.noise - 1), found.spans)
    cut_BP = _division(draw(found.noise - 1), found.spans)
    lengths_BP = np.stack([kept_BP, cut_BP], axis=2).reshape(len(cut_BP), -1)
    ends_BP = np.cumsum(lengths_BP, axis=1)
    # The number of ends at or before a token says whether it is in an even (kept) or an odd (cut) part.
    part_BN = (ends_BP[:, None, :] <= np.arange(found.window)[None, :, None]).sum(axis=2)
    return part_BN % 2 == 1


def _division(uniform_BG: np.ndarray, parts: int) -> np.ndarray:
    """[B, parts] lengths >= 1 that sum to G + 1: the G gaps between tokens with the smallest numbers are the cuts."""
    num_rows, gaps = uniform_BG.shape
    cuts = np.sort(np.argsort(uniform_BG, axis=1)[:, :parts - 1], axis=1) + 1
    edges = np.concatenate([np.zeros((num_rows, 1), int), cuts, np.full((num_rows, 1), gaps + 1)], axis=1)
    return np.diff(edges, axis=1)


def cut_spans(tokens_BN: np.ndarray, real_BN: np.ndarray, noise_BN: np.ndarray, found: Sizes, tokenizer: Tokenizer,
              ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(source_BS, whether it is text, target_BT, whether it is text). `real_BN` is False on padding, which comes last:
    a span that starts in it leaves padding in both, and the end of text follows all."""
    first_BN = noise_BN & ~np.pad(noise_BN, ((0, 0), (1, 0)))[:, :-1]
    # Before the first span there is none to be numbered; nothing is taken from there.
    sentinel_BN = sentinel_ids(tokenizer, found.spans)[np.cumsum(first_BN, axis=1) - 1]
    with_sentinel_BN = np.where(first_BN, sentinel_BN, tokens_BN)
    read = [_taken(value, first_BN | ~noise_BN, found.source - 1) for value in (with_sentinel_BN, real_BN)]
    # Every token with room for a sentinel before it.
    both_BX = np.stack([sentinel_BN, tokens_BN], axis=2).reshape(len(tokens_BN), -1)
    wanted_BX = np.stack([first_BN, noise_BN], axis=2).reshape(len(tokens_BN), -1)
    written = [_taken(value, wanted_BX, found.target - 1) for value in (both_BX, np.repeat(real_BN, 2, axis=1))]
    special = tokenizer.special
    return (*_with_end(*read, closing(special)[0]), *_with_end(*written, special.stop[0]))


def _taken(value_BN: np.ndarray, wanted_BN: np.ndarray, count: int) -> np.ndarray:
    """The wanted values of each row, of which every row has `count`."""
    return value_BN[wanted_BN].reshape(len(value_BN), count)


def _with_end(ids_BX: np.ndarray, real_BX: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
    """The ids with their end after the last one that is text, zeros after it; and what is text."""
    length_B1 = real_BX.sum(axis=1, keepdims=True)
    place = np.arange(ids_BX.shape[1] + 1)
    ids = np.where(place < length_B1, np.pad(ids_BX, ((0, 0), (0, 1))), np.where(place == length_B1, end, 0))
    real = (place <= length_B1) & (length_B1 > 0)
    return np.where(real, ids, 0).astype(np.int32), real


def _one_window(source_BS: np.ndarray, source_real_BS: np.ndarray, target_BT: np.ndarray, target_real_BT: np.ndarray,
                length: int) -> Batch:
    """Source and target as one sequence; the source's end of text is what the target starts from."""
    size = length + 1
    ids_BX, real_BX, target_BX = (np.zeros((len(source_BS), size), kind) for kind in (np.int32, bool, bool))
    for row, (source, source_real, target, target_real) in enumerate(
            zip(source_BS, source_real_BS, target_BT, target_real_BT, strict=True)):
        read, written = source[source_real], target[target_real]
        end = len(read) + len(written)
        ids_BX[row, :end] = np.concatenate([read, written])
        real_BX[row, :end] = True
        target_BX[row, len(read):end] = True
    positions_BT = np.broadcast_to(np.arange(length, dtype=np.int32), (len(source_BS), length))
    return {"tokens": ids_BX[:, :-1], "targets": ids_BX[:, 1:], "weights": target_BX[:, 1:].astype(np.float32),
            "segments": real_BX[:, :-1].astype(np.int32), "positions": positions_BT.copy(),
            "prefix": (real_BX & ~target_BX)[:, :-1].astype(np.int32)}


def batch_shapes(config: Config, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """The abstract batch of `rows` windows."""
    found, length = sizes(config), config.model.context_length
    if config.model.architecture == "decoder":
        widths = dict.fromkeys(("tokens", "targets", "weights", "segments", "positions", "prefix"), length)
    else:
        widths = dict.fromkeys(("source", "source_segments"), found.source)
        widths |= dict.fromkeys(("tokens", "targets", "weights"), found.target)
    return {name: jax.ShapeDtypeStruct((rows, width), jnp.float32 if name == "weights" else jnp.int32)
            for name, width in widths.items()}


def initialize(config: Config, key: jax.Array) -> Any:
    """The initial parameters."""
    return make_model(config.model).init(key, jnp.zeros((1, config.model.context_length), jnp.int32))["params"]


def loss_sums(config: Config, params: Any, batch: Mapping[str, jax.Array],
              key: jax.Array | None) -> dict[str, jax.Array]:
    """Sums over the tokens that are to be written, float32 scalars; arguments and result as in
    `masked_language_modeling.loss_sums`, the batch is one of `corrupted`."""
    training, model, variables = config.training, make_model(config.model), {"params": params}
    encoder_key, decoder_key = (None, None) if key is None else jax.random.split(key)
    common = {"deterministic": key is None}
    if config.model.architecture == "decoder":
        inputs = {"segments_BT": batch["segments"], "prefix_BT": batch["prefix"], "positions_BT": batch["positions"]}
    else:
        inputs = {"encoded": model.apply(variables, batch["source"], source_segments_BS=batch["source_segments"],
                                         method="encode", rngs=_rngs(encoder_key), **common)}
    x_BTD = model.apply(variables, batch["tokens"], rngs=_rngs(decoder_key), method="hidden", **inputs,
                        **common).logits_BTV
    statistics = head_statistics(config, params, x_BTD, batch["targets"])
    return losses.loss_sums(statistics, batch["weights"], label_smoothing=training.label_smoothing,
                            z_loss=training.z_loss)


def _rngs(key: jax.Array | None) -> dict[str, jax.Array]:
    return {} if key is None else {"dropout": key}
