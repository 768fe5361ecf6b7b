"""Generation against the plain rule: the full, uncached forward over each token's window, one token at a time."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.inference import decode_loop, sampling
from purelm.inference.decode import generate, window_start
from purelm.inference.sampling import Sampler, mask_vocabulary, sample
from purelm.models import Transformer, make_model, unstack_layers

BASE = ModelConfig(vocabulary_size=13, context_length=8, num_layers=2, width=16, num_heads=4)
GREEDY = Sampler(0.0)


def variant(**fields) -> ModelConfig:
    return ModelConfig(**{**BASE.__dict__, **fields})


VARIANTS = {
    "learned": BASE,
    "none": variant(positions="none"),
    "sinusoidal": variant(positions="sinusoidal", norm_place="post"),
    "rope_gqa": variant(positions="rope", num_kv_heads=2, qk_norm=True, norm="rms_norm", feed_forward="swiglu"),
    "alibi_window": variant(positions="alibi", attention_window=3, tied_embeddings=False),
    "t5_sharing": variant(positions="t5", relative_buckets=4, relative_max_distance=8, layer_sharing=2),
    "sink_softcap": variant(attention_sink=True, attention_softcap=2.0, logits_softcap=3.0, num_kv_heads=1),
    "odd_context": variant(context_length=7, positions="rope", parallel_block=True, scan_layers=True),
}


@functools.cache
def make_params(config: ModelConfig):
    """Every parameter noisy, so that sinks and biases count and the probabilities are far apart."""
    params = Transformer(config).init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(tree, [leaf + 0.3 * rng.normal(size=leaf.shape).astype(np.float32) for leaf in leaves])


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def next_ids(config, sampler, vocabulary_size, params, tokens_BT, last, position, key):
    """Row by row, the id drawn after column `last` of right-padded tokens, by a full forward without a cache."""
    logits_BV = Transformer(config).apply({"params": params}, tokens_BT).logits_BTV[:, last]
    rows_B = jnp.arange(tokens_BT.shape[0])
    keys_B = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(key, row), position))(rows_B)
    return sample(sampler, mask_vocabulary(logits_BV, vocabulary_size), keys_B)


def prompts(rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(length).integers(0, BASE.vocabulary_size, (rows, length))


def uncached(config, prompt_BT, num_tokens, sampler=GREEDY, key=None, vocabulary_size=None) -> np.ndarray:
    """What `generate` promises, without a cache: each token from the full forward over its own window."""
    ids_BT, size = np.asarray(prompt_BT), config.context_length
    key = jax.random.key(0) if key is None else key
    for position in range(ids_BT.shape[1], ids_BT.shape[1] + num_tokens):
        window_BT = ids_BT[:, 0 if position <= size else window_start(position, size):]
        padded_BT = np.pad(window_BT, ((0, 0), (0, size - window_BT.shape[1])))
        new_B = next_ids(config, sampler, vocabulary_size, make_params(config), padded_BT, window_BT.shape[1] - 1,
                         position, key)
        ids_BT = np.concatenate([ids_BT, np.asarray(new_B)[:, None]], axis=1)
    return ids_BT[:, np.shape(prompt_BT)[1]:]


def run(config, prompt_BT, num_tokens, sampler=GREEDY, **options):
    options.setdefault("key", jax.random.key(0))
    return generate(config, make_params(config), prompt_BT, max_new_tokens=num_tokens, sampler=sampler, **options)


# All variants in `make test-all`: each is a model and a loop to compile.
QUICK = ("learned", "rope_gqa", "alibi_window")


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
                                  for name in VARIANTS])
def test_tokens_are_those_of_the_full_forward(name):
    # Reddens with: a cache length off by one, a prefill that attends to its padding, positions that go on after a
    # new window starts, keys and values swapped or written at the wrong row; keys not folded by row and position.
    config, prompt_BT, sampler, key = VARIANTS[name], prompts(3, 3), Sampler(0.8), jax.random.key(5)
    found = run(config, prompt_BT, 21, sampler, key=key)
    np.testing.assert_array_equal(found.ids_BT, uncached(config, prompt_BT, 21, sampler, key))
    assert found.lengths_B.tolist() == [21] * 3 and not found.stopped_B.any()
    assert len(np.unique(found.ids_BT)) > 3, "a constant answer would prove nothing"


def test_top_k_and_top_p_reach_the_loop():
    sampler, key = Sampler(1.5, top_k=9, top_p=0.95), jax.random.key(5)
    found = run(BASE, prompts(3, 3), 15, sampler, key=key)
    np.testing.assert_array_equal(found.ids_BT, uncached(BASE, prompts(3, 3), 15, sampler, key))


def test_any_prompt_length_gives_the_full_forward_and_few_programs():
    # Reddens with: a prompt of one token, of one context, or longer, treated wrongly; a program for each length.
    config = variant(context_length=12)
    before = decode_loop.run._cache_size()
    for length in [*range(1, 16), 24, 40]:
        found = run(config, prompts(2, length), 4)
        np.testing.assert_array_equal(found.ids_BT, uncached(config, prompts(2, length), 4), err_msg=f"{length}")
    assert decode_loop.run._cache_size() - before <= 2


def test_a_cache_longer_than_one_bucket():
    config = variant(context_length=100, positions="rope")
    before = decode_loop.run._cache_size()
    for length, num_tokens in [(20, 7), (18, 9), (25, 3)]:
        found = run(config, prompts(1, length), num_tokens)
        np.testing.assert_array_equal(found.ids_BT, uncached(config, prompts(1, length), num_tokens))
    assert decode_loop.run._cache_size() - before == 1
    # Reddens with a prefill sized for the prompt, too short for the windows that follow.
    for length, num_tokens in [(90, 5), (3, 105)]:
        found = run(config, prompts(1, length), num_tokens)
        np.testing.assert_array_equal(found.ids_BT, uncached(config, prompts(1, length), num_tokens))


@pytest.mark.parametrize("sampler", [GREEDY, Sampler(1.5)], ids=str)
def test_continuing_is_the_same_wherever_the_prompt_ended(sampler):
    # Reddens with randomness by step in place of by position, or windows that depend on the prompt.
    whole = run(BASE, prompts(2, 3), 24, sampler).ids_BT
    for split in (4, 5, 6, 13):
        longer = np.concatenate([prompts(2, 3), whole[:, :split]], axis=1)
        np.testing.assert_array_equal(run(BASE, longer, 24 - split, sampler).ids_BT, whole[:, split:])


def test_a_row_does_not_depend_on_the_others():
    key = jax.random.key(7)
    together = run(BASE, prompts(4, 5), 12, Sampler(1.5), key=key).ids_BT
    for row in (0, 3):
        alone = run(BASE, prompts(4, 5)[row: row + 1], 12, Sampler(1.5), key=jax.random.fold_in(key, row)[None])
        np.testing.assert_array_equal(alone.ids_BT[0], together[row])
    assert len({tuple(row) for row in run(BASE, prompts(1, 5).repeat(4, 0), 12, Sampler(1.5), key=key).ids_BT}) == 4


def test_rows_stop_at_different_times_and_the_loop_with_the_last(monkeypatch):
    # Reddens with: a loop that runs to the end, one that stops with the first row, a stop counted twice or not, one of
    # two stop ids that is not looked at.
    config = variant(width=20)
    free = uncached(config, prompts(6, 3), 40)
    stop_id, steps = (int(free[0, 9]), int(free[1, 12])), []

    def counted(sampler, logits_BV, keys_B, history, **options):
        jax.debug.callback(lambda: steps.append(1))
        return draw(sampler, logits_BV, keys_B, history, **options)

    draw = sampling.draw
    monkeypatch.setattr(sampling, "draw", counted)
    found = run(config, prompts(6, 3), 40, stop_id=stop_id)
    jax.effects_barrier()
    stops = [next((place for place, token in enumerate(row) if token in stop_id), None) for row in free.tolist()]
    assert len(set(stops)) > 2
    for row, stop in enumerate(stops):
        length = 40 if stop is None else stop + 1
        assert found.lengths_B[row] == length and found.stopped_B[row] == (stop is not None)
        assert found.ids_BT[row].tolist() == [*free[row, :length].tolist(), *[stop_id[0]] * (40 - length)]
    assert len(steps) == found.lengths_B.max()

    steps.clear()
    ending = [row for row, stop in enumerate(stops) if stop is not None][:2]
    found = run(config, prompts(6, 3)[ending], 40, stop_id=stop_id)
    assert set(found.ids_BT[np.arange(2), found.lengths_B - 1].tolist()) <= set(stop_id)
    jax.effects_barrier()
    assert len(steps) == found.lengths_B.max() < 40


def ragged(lengths) -> tuple[np.ndarray, np.ndarray]:
    """Prompts of these lengths, and garbage after them."""
    prompt_BT = prompts(len(lengths), max(lengths))
    return np.where(np.arange(max(lengths)) < np.array(lengths)[:, None], prompt_BT, 99), np.array(lengths)


@pytest.mark.parametrize("name, sampler", [("learned", GREEDY), ("rope_gqa", Sampler(1.2))])
def test_prompts_of_different_lengths_are_each_as_alone(name, sampler):
    # Reddens with: a drawn token taken inside of a prompt, an answer that begins with the longest prompt's end, keys
    # by step in place of position, rows that end with the first of them, or windows cut by each row's own prompt.
    config, key = VARIANTS[name], jax.random.key(5)
    for lengths in [(5, 1, 8, 20), (13, 11, 12, 30)]:
        prompt_BT, lengths_B = ragged(lengths)
        together = run(config, prompt_BT, 12, sampler, key=key, prompt_lengths_B=lengths_B)
        for row, length in enumerate(lengths):
            alone = run(config, prompt_BT[row: row + 1, :length], 12, sampler, key=jax.random.fold_in(key, row)[None])
            np.testing.assert_array_equal(together.ids_BT[row], alone.ids_BT[0], err_msg=f"{lengths} {row}")
            np.testing.assert_allclose(together.log_probabilities_B[row], alone.log_probabilities_B[0], rtol=1e-4)
        assert together.lengths_B.tolist() == [12] * 4


def test_a_prefix_language_model_reads_the_prompt_both_ways():
    # Reddens with: a prompt read causally, its last token left out of it, or rows of other lengths read as prompt.
    config, (prompt_BT, lengths_B) = variant(prefix_attention=True), ragged((5, 3, 5, 4))
    found = run(config, prompt_BT, 3, prompt_lengths_B=lengths_B)
    causal = run(BASE, prompt_BT, 3, prompt_lengths_B=lengths_B)
    forward = jax.jit(lambda tokens_BT, prefix_BT: Transformer(config).apply(
        {"params": make_params(config)}, tokens_BT, prefix_BT=prefix_BT).logits_BTV)
    for row, length in enumerate(lengths_B):
        ids = prompt_BT[row, :length]
        for _ in range(3):
            logits_BTV = forward(np.pad(ids, (0, 8 - len(ids)))[None], np.arange(8)[None] < length)
            ids = np.append(ids, int(np.argmax(logits_BTV[0, len(ids) - 1])))
        assert ids[length:].tolist() == found.ids_BT[row].tolist()
    assert (found.ids_BT != causal.ids_BT).any(), "or the test could not tell"


def test_a_recurrent_network_goes_on_from_its_state():
    # Reddens with: a window of the context's length, padding that changes the state, a prompt's last token read twice.
    config = ModelConfig(architecture="recurrent", vocabulary_size=13, context_length=8, num_layers=2,
                         width=16, tied_embeddings=False)
    model = make_model(config)
    params = model.init(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    params = jax.tree.map(lambda leaf: 3 * leaf, params)
    prompt_BT, lengths_B = ragged((5, 20, 1))
    forward = jax.jit(lambda tokens_BT: model.apply({"params": params}, tokens_BT).logits_BTV)
    found = generate(config, params, prompt_BT, prompt_lengths_B=lengths_B, max_new_tokens=9, sampler=Sampler(0.7),
                     key=jax.random.key(2))
    for row, length in enumerate(lengths_B):
        tokens = np.append(prompt_BT[row, :length], found.ids_BT[row])
        logits_TV = forward(np.pad(tokens[None, :-1], ((0, 0), (0, 29 - len(tokens)))))[0]
        keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(2), row), length + i) for i in range(9)]
        expected = sample(Sampler(0.7), logits_TV[length - 1: length + 8], jnp.stack(keys))
        assert found.ids_BT[row].tolist() == expected.tolist()
    assert len(np.unique(found.ids_BT)) > 3


def test_prompts_of_different_lengths_stop_as_alone():
    prompt_BT, lengths_B = ragged((5, 2, 7, 3, 3, 1))
    free = run(BASE, prompt_BT, 20, prompt_lengths_B=lengths_B)
    stop_id = int(free.ids_BT[1, 4])  # of the shortest: it waits for the others
    found = run(BASE, prompt_BT, 20, prompt_lengths_B=lengths_B, stop_id=stop_id)
    for row, length in enumerate(lengths_B):
        alone = run(BASE, prompt_BT[row: row + 1, :length], 20, stop_id=stop_id)
        assert found.ids_BT[row].tolist() == alone.ids_BT[0].tolist()
        assert found.lengths_B[row] == alone.lengths_B[0] and found.stopped_B[row] == alone.stopped_B[0]
    assert found.stopped_B.any() and len(set(found.lengths_B.tolist())) > 1


@pytest.mark.parametrize("sampler", [GREEDY, Sampler(0.5, top_k=3)], ids=str)
def test_log_probabilities_are_those_of_the_model(sampler):
    # Reddens with: the sampler's own distribution, the padded vocabulary counted, or ids after the stop counted.
    prompt_BT, stop_id = prompts(4, 3) % 9, 2
    found = run(BASE, prompt_BT, 5, sampler, stop_id=stop_id, vocabulary_size=9)
    assert found.stopped_B.any() and not found.stopped_B.all()
    tokens_BT = np.concatenate([prompt_BT, found.ids_BT], axis=1)
    logits_BTV = Transformer(BASE).apply({"params": make_params(BASE)}, tokens_BT[:, :-1]).logits_BTV[:, 2:, :9]
    each_BT = np.take_along_axis(np.asarray(jax.nn.log_softmax(logits_BTV)), found.ids_BT[..., None], axis=-1)[..., 0]
    expected_B = np.where(np.arange(5) < found.lengths_B[:, None], each_BT, 0).sum(1)
    np.testing.assert_allclose(found.log_probabilities_B, expected_B, rtol=1e-4)


def test_ids_of_the_padding_never_come_out():
    prompt_BT = prompts(4, 3) % 5
    found = run(BASE, prompt_BT, 30, Sampler(3.0), vocabulary_size=5)
    assert set(np.unique(found.ids_BT)) == set(range(5))
    np.testing.assert_array_equal(
        run(BASE, prompt_BT, 9, vocabulary_size=5).ids_BT, uncached(BASE, prompt_BT, 9, vocabulary_size=5))


def test_both_layouts_of_parameters_and_both_kinds_of_keys():
    stacked = run(BASE, prompts(2, 3), 6, Sampler(1.5), key=jax.random.PRNGKey(3))
    unstacked = generate(BASE, unstack_layers(make_params(BASE)), prompts(2, 3), max_new_tokens=6,
                         sampler=Sampler(1.5), key=jax.random.key(3))
    np.testing.assert_array_equal(stacked.ids_BT, unstacked.ids_BT)


def test_no_new_tokens():
    found = run(BASE, prompts(2, 3), 0)
    assert found.ids_BT.shape == (2, 0) and found.lengths_B.tolist() == [0, 0]


@pytest.mark.parametrize("context_length", range(1, 10))
def test_window_start(context_length):
    # Reddens with windows longer than the context, shorter than half of it, or that cropping would move.
    for position in range(1, 60):
        start = window_start(position, context_length)
        seen = position - start
        assert start >= 0 and 1 <= seen <= context_length
        assert start == 0 if position <= context_length else seen > context_length // 2
        for later in range(position, 60):
            assert window_start(later, context_length) == start + window_start(later - start, context_length)
        assert window_start(jnp.int32(position), context_length) == start


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_numbers_are_refused(value):
    # Reddens without the check: ids would come out, and perhaps from the padding.
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, value), make_params(BASE))
    with pytest.raises(UserError, match="not finite"):
        generate(BASE, params, prompts(2, 3), max_new_tokens=21, sampler=Sampler(0.8), key=jax.random.key(0))


@pytest.mark.parametrize("prompt, options, words", [
    ([[]], {}, "one token or more"),
    ([1, 2], {}, r"\[rows, tokens\]"),
    ([[1, 13]], {}, "prompt id 13 is outside of the vocabulary"),
    ([[-1, 2]], {}, "prompt id -1 is outside of the vocabulary"),
    ([[1, 9]], {"vocabulary_size": 9}, r"prompt id 9 .*\(0 to 8\)"),
    ([[1]], {"stop_id": 13}, "stop_id 13"),
    ([[1]], {"num_tokens": -1}, "max_new_tokens is -1"),
    ([[1, 2]], {"prompt_lengths_B": [3]}, "1 numbers from 1 to 2"),
    ([[1, 2]], {"prompt_lengths_B": [0]}, r"prompt_lengths_B is \[0\]"),
    ([[1, 2]], {"prompt_lengths_B": [1, 1]}, "1 numbers from 1 to 2"),
])
def test_wrong_calls_are_refused(prompt, options, words):
    options = dict(options)
    with pytest.raises(UserError, match=words) as error:
        run(BASE, prompt, options.pop("num_tokens", 2), **options)
    assert "\n" not in str(error.value)
