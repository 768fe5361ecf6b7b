from __future__ import annotations

import jax
import pytest
from small_models import init, small

from purelm.config import ModelConfig
from purelm.config.presets import bart, bert, gpt2, llama, nanogpt_cpu, nanogpt_gpu, purelm_fast, t5, vaswani
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


BART_BASE = 139_420_416  # Hugging Face's, which has two rows of positions more in each stack, and no bias among them


@pytest.mark.parametrize(("config", "count"), [
    (bert("base"), 109_514_298), (bert("tiny"), 4_416_698), (t5("tiny"), 15_570_688), (t5("small"), 60_506_624),
    (t5("base"), 222_903_552), (t5("small", version="1.1"), 76_961_152), (t5("base", version="1.1"), 247_577_856),
    (bart("base"), BART_BASE - 2 * 2 * 768 + 50_265)])
def test_encoders_have_the_published_numbers_of_parameters(config, count):
    assert count_parameters(parameter_shapes(config)) == count


@pytest.mark.parametrize(("size", "vocabulary", "millions"), [
    ("base", 37_000, 65), ("big", 37_000, 213), ("tiny", 10_000, 2.6)])
def test_vaswani_has_about_the_parameters_of_the_papers_tables(size, vocabulary, millions):
    count = count_parameters(parameter_shapes(vaswani(size, vocabulary_size=vocabulary)))
    assert count == pytest.approx(1e6 * millions, rel=0.03)


def test_purelm_fast_is_within_its_budget_and_trains_from_uniform_predictions():
    params = init(purelm_fast(65), jax.random.key(0))
    assert count_parameters(params) <= 850_000
    assert not params["head"]["kernel"].any()


def test_changes_and_wrong_sizes():
    assert gpt2("xl", embedding_dropout=0.1).embedding_dropout == 0.1
    with pytest.raises(UserError, match="did you mean '124m'"):
        gpt2("125m")
    with pytest.raises(UserError, match="did you mean 'base'"):
        bert("bas")
    with pytest.raises(UserError, match="t5.version='2'. is no version"):
        t5(version="2")
    assert vaswani("tiny", num_layers=1).num_layers == 1


def test_flops_follow_the_rule():
    # 2 layers of q, k, v, o and up, down at width 16, and the head; scores and values over 8 keys.
    weights = 2 * (4 * 16 * 16 + 2 * 16 * 64) + 16 * 29
    assert flops_per_token(small(), 8) == 6 * weights + 12 * 2 * 16 * 8
    assert forward_flops_per_token(small(), 8) * 3 == flops_per_token(small(), 8)
    assert flops_per_token(small(attention_window=2), 8) == 6 * weights + 12 * 2 * 16 * 2
    assert flops_per_token(small(layer_sharing=2), 8) == flops_per_token(small(), 8)


@pytest.mark.parametrize("changes", [
    {}, {"feed_forward": "swiglu", "num_kv_heads": 2, "head_size": 6}, {"tied_embeddings": False},
    {"embedding_width": 6}], ids=str)
def test_flops_count_the_matrices_that_exist(changes):
    config = small(bias=False, norm="none", positions="none", **changes)
    params = parameter_shapes(config)
    count = count_parameters(params) - (0 if config.tied_embeddings else config.width * config.vocabulary_size)
    assert flops_per_token(config, 1) - flops_per_token(config, 0) == 12 * 2 * 4 * (config.head_size or 4)
    assert flops_per_token(config, 0) == 6 * count


@pytest.mark.parametrize("changes", [
    {"architecture": "encoder", "head_transform": True}, {"architecture": "encoder_decoder"},
    {"architecture": "encoder_decoder", "encoder_layers": 3, "num_kv_heads": 2, "shared_embeddings": False},
    {"architecture": "encoder_decoder", "embedding_width": 16}], ids=str)
def test_flops_of_encoders_count_both_stacks(changes):
    config = small(bias=False, norm="none", positions="none", **changes)
    params = parameter_shapes(config)
    looked_up = 29 * 16 if not config.shared_embeddings else 0
    again = 16 * 16 if config.embedding_width else 0  # one projection of tokens for both stacks
    assert flops_per_token(config, 0) == 6 * (count_parameters(params) - looked_up + again)
    # A query over one key: once a layer of each stack, and once more for what the decoder reads of the source.
    attentions = 2 if config.architecture == "encoder" else 2 + 2 + (config.encoder_layers or 2)
    assert flops_per_token(config, 1) - flops_per_token(config, 0) == 12 * attentions * 16


def test_embeddings_of_both_stacks_are_left_out_on_request():
    shapes = parameter_shapes(small(architecture="encoder_decoder", shared_embeddings=False, head_bias=True))
    left_out = [shapes["embedding"], shapes["positions"], shapes["head"], shapes["encoder"]["embedding"],
                shapes["encoder"]["positions"]]
    assert count_parameters(shapes) - count_parameters(shapes, embeddings=False) == count_parameters(left_out)


@pytest.mark.parametrize("architecture", ["recurrent", "recurrent_encoder_decoder"])
@pytest.mark.parametrize("tied_embeddings", [False, True])
def test_flops_of_recurrent_networks_are_those_of_their_matrices(architecture, tied_embeddings):
    config = ModelConfig(architecture=architecture, vocabulary_size=29, context_length=16, num_layers=2, width=16,
                         tied_embeddings=tied_embeddings)
    paths = jax.tree_util.tree_leaves_with_path(parameter_shapes(config))
    matrices = [leaf.size for path, leaf in paths if jax.tree_util.keystr(path).endswith("kernel']")]
    assert flops_per_token(config, 16) == 6 * (sum(matrices) + (29 * 16 if tied_embeddings else 0))


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_cache_bytes_are_the_cache(dtype):
    config = small(num_kv_heads=2)
    cache = init_cache(config, 3, 10, dtype)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves((cache.keys, cache.values)))
    assert cache_bytes(config, 3, 10, dtype) == held
