"""Generation with each kind of cache, against the plain rule of test_decode.py."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from inference.test_decode import prompts, run, uncached, variant

from purelm.errors import UserError
from purelm.inference.sampling import Sampler

WINDOWED = {"alibi": variant(positions="alibi", attention_window=3, context_length=12),
            "rope_gqa": variant(positions="rope", attention_window=5, num_kv_heads=2, context_length=12)}


@pytest.mark.parametrize("name", [pytest.param("alibi", marks=pytest.mark.slow), "rope_gqa"])
def test_a_rolling_cache_gives_the_same_tokens(name):
    # Reddens with: a ring that padding overwrites, that is as long as the context, or that is not forgotten with its
    # window.
    config, key = WINDOWED[name], jax.random.key(5)
    for length in (3, 11, 30):
        found = run(config, prompts(2, length), 20, Sampler(0.8), key=key, cache="rolling")
        np.testing.assert_array_equal(found.ids_BT, uncached(config, prompts(2, length), 20, Sampler(0.8), key))


@pytest.mark.slow
def test_a_rolling_cache_of_many_samples_and_lengths():
    config = WINDOWED["rope_gqa"]
    options = {"prompt_lengths_B": [7, 2], "num_samples": 2}
    full = run(config, prompts(2, 7), 15, Sampler(1.0), **options)
    rolling = run(config, prompts(2, 7), 15, Sampler(1.0), cache="rolling", **options)
    np.testing.assert_array_equal(full.ids_BT, rolling.ids_BT)


def test_an_int8_cache_gives_nearly_the_same_chances():
    # Reddens with: scales that are lost or of another row. Rounding moves a logit by a hundredth or so.
    config = variant(positions="rope", context_length=32)
    full = run(config, prompts(3, 5), 20, log_probabilities=0)
    rounded = run(config, prompts(3, 5), 20, log_probabilities=0, cache="int8")
    same_BT = np.cumprod(full.ids_BT == rounded.ids_BT, axis=1) > 0
    assert same_BT.mean() > 0.5
    np.testing.assert_allclose(rounded.log_probabilities_BT[same_BT], full.log_probabilities_BT[same_BT], atol=0.15)
    assert (rounded.log_probabilities_BT != full.log_probabilities_BT).any(), "or nothing was rounded"


def test_a_prompt_that_is_read_at_once_does_not_roll():
    with pytest.raises(UserError, match="prefix_attention"):
        run(variant(prefix_attention=True, attention_window=3), prompts(1, 4), 2, cache="rolling")
