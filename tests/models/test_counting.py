from __future__ import annotations

import jax
import pytest
from small_models import init, small

from purelm.config.presets import gpt2, llama, nanogpt_cpu, nanogpt_gpu, purelm_fast
from purelm.errors import UserError
from purelm.models import (
    cache_bytes,
    count_parameters,
    flops_per_token,
    forward_flops_per_token,
    init_cache,
    parameter_shapes,
)


@pytest.mark.parametrize(("config", "count"), [
    (gpt2("124m"), 124_439_808), (gpt2("medium"), 354_823_168), (gpt2("large"), 774_030_080),
    (gpt2("xl"), 1_557_611_200),
    (llama("8b"), 8_030_261_248), (llama("1b"), 1_100_048_384), (llama("tiny"), 15_191_712)])
def test_presets_have_the_published_numbers_of_parameters(config, count):
    assert count_parameters(parameter_shapes(config)) == count


@pytest.mark.parametrize(("config", "count"), [
    (nanogpt_cpu(vocabulary_size=65), 795_904), (nanogpt_gpu(vocabulary_size=65), 10_646_784)])
def test_nanogpt_counts_all_but_positions(config, count):
    shapes = parameter_shapes(config)
    assert count_parameters(shapes) - count_parameters(shapes["positions"]) == count  # nanoGPT prints 0.80M and 10.65M
    assert count_parameters(shapes, embeddings=False) == count - 65 * config.width


def test_purelm_fast_is_within_its_budget_and_trains_from_uniform_predictions():
    params = init(purelm_fast(65), jax.random.key(0))
    assert count_parameters(params) <= 850_000
    assert not params["head"]["kernel"].any()


def test_changes_and_wrong_sizes():
    assert gpt2("xl", embedding_dropout=0.1).embedding_dropout == 0.1
    with pytest.raises(UserError, match="did you mean '124m'"):
        gpt2("125m")


def test_flops_follow_the_rule():
    # 2 layers of q, k, v, o and up, down at width 16, and the head; scores and values over 8 keys.
    weights = 2 * (4 * 16 * 16 + 2 * 16 * 64) + 16 * 29
    assert flops_per_token(small(), 8) == 6 * weights + 12 * 2 * 16 * 8
    assert forward_flops_per_token(small(), 8) * 3 == flops_per_token(small(), 8)
    assert flops_per_token(small(attention_window=2), 8) == 6 * weights + 12 * 2 * 16 * 2
    assert flops_per_token(small(layer_sharing=2), 8) == flops_per_token(small(), 8)


@pytest.mark.parametrize("changes", [
    {}, {"feed_forward": "swiglu", "num_kv_heads": 2, "head_size": 6}, {"tied_embeddings": False}], ids=str)
def test_flops_count_the_matrices_that_exist(changes):
    config = small(bias=False, norm="none", positions="none", **changes)
    params = parameter_shapes(config)
    count = count_parameters(params) - (0 if config.tied_embeddings else config.width * config.vocabulary_size)
    assert flops_per_token(config, 1) - flops_per_token(config, 0) == 12 * 2 * 4 * (config.head_size or 4)
    assert flops_per_token(config, 0) == 6 * count


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_cache_bytes_are_the_cache(dtype):
    config = small(num_kv_heads=2)
    cache = init_cache(config, 3, 10, dtype)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves((cache.keys, cache.values)))
    assert cache_bytes(config, 3, 10, dtype) == held
