"""Rows with their own rules: each gets, bit for bit, what its rule gives alone; and nothing is compiled again."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.errors import UserError
from purelm.inference import row_sampling, sampling
from purelm.inference.penalties import History
from purelm.inference.row_sampling import stack_samplers
from purelm.inference.sampling import Sampler

ROWS, SIZE, COLUMNS, WIDTH = 6, 70, 20, 4

draw = jax.jit(sampling.draw, static_argnums=0)


@jax.jit
def draw_rows(rows, logits_BV, keys_B, history, allowed_BV, stop_ids_BS):
    return row_sampling.draw_rows(rows, logits_BV, keys_B, history, allowed_BV=allowed_BV, stop_ids_BS=stop_ids_BS)


def on_device(samplers) -> row_sampling.RowSamplers:
    return jax.tree.map(jnp.asarray, stack_samplers(samplers, max_biases=WIDTH))


def random_sampler(rng: np.random.Generator) -> Sampler:
    def maybe(value, default):
        return value if rng.random() < 0.5 else default

    ids = rng.permutation(SIZE)[:12].tolist()
    return Sampler(
        temperature=maybe(float(rng.uniform(0.3, 3)), maybe(0.0, 1.0)), top_k=maybe(int(rng.integers(1, 100)), None),
        top_p=maybe(float(rng.uniform(0.05, 1)), None), min_p=maybe(float(rng.uniform(0, 0.3)), None),
        repetition_penalty=maybe(float(rng.uniform(0.5, 2)), 1.0),
        frequency_penalty=maybe(float(rng.normal()), 0.0), presence_penalty=maybe(float(rng.normal()), 0.0),
        logit_bias=maybe(tuple((i, float(rng.normal() * 3)) for i in ids[:int(rng.integers(1, WIDTH + 1))]), ()),
        banned=maybe(tuple(ids[4:4 + int(rng.integers(1, WIDTH + 1))]), ()),
        forced=((int(rng.integers(0, 4)), ids[9]),) if rng.random() < 0.2 else (),
        min_new_tokens=maybe(int(rng.integers(0, 6)), 0))


def random_inputs(rng: np.random.Generator):
    starts_B = rng.integers(1, 10, ROWS)
    history = History(rng.integers(0, SIZE, (ROWS, COLUMNS)).astype(np.int32),
                      (starts_B + rng.integers(0, 5, ROWS)).astype(np.int32), starts_B.astype(np.int32),
                      rng.integers(0, 3, ROWS).astype(np.int32))
    return ((rng.normal(size=(ROWS, SIZE)) * 3).astype(np.float32),
            jax.random.split(jax.random.key(int(rng.integers(1 << 30))), ROWS), history,
            rng.random((ROWS, SIZE)) < 0.7, rng.integers(-1, SIZE, (ROWS, 2)).astype(np.int32))


@pytest.fixture(scope="module")
def samplers():
    """Few: `draw` is compiled for each."""
    rng = np.random.default_rng(0)
    return [Sampler(0.0), *(random_sampler(rng) for _ in range(5))]


def test_rows_are_drawn_as_alone_and_one_program_serves_all(samplers):
    # Reddens with: any option's value rounded or applied otherwise than in draw, a row that gets another's option, a
    # conditional that looks at the wrong field, a field that is static.
    rng = np.random.default_rng(1)
    draw_rows.clear_cache()
    alone, together = [], []
    for _ in range(30):
        logits_BV, keys_B, history, allowed_BV, stop_ids_BS = inputs = random_inputs(rng)
        numbers_B = rng.integers(0, len(samplers), ROWS)
        together.append(draw_rows(on_device([samplers[number] for number in numbers_B]), *inputs))
        options = {"allowed_BV": allowed_BV, "stop_id": stop_ids_BS}
        alone.append([draw(samplers[number], logits_BV, keys_B, history, **options)[row]
                      for row, number in enumerate(numbers_B)])
    np.testing.assert_array_equal(together, np.array(alone))
    assert len(np.unique(together)) > 40
    assert draw_rows._cache_size() == 1


def test_many_random_draws_agree():
    # Bits that differ show only once in many draws: three rules in 2,048 rows.
    rng, rows = np.random.default_rng(1), 2048
    logits_BV = (rng.normal(size=(rows, SIZE)) * 2).astype(np.float32)
    keys_B = jax.random.split(jax.random.key(2), rows)
    samplers = [Sampler(0.7, top_p=0.9), Sampler(1.3, top_k=20, min_p=0.05), Sampler(0.9)]
    plain = jax.jit(lambda rows, *inputs: row_sampling.draw_rows(rows, *inputs, None))
    mixed = plain(on_device([samplers[row % 3] for row in range(rows)]), logits_BV, keys_B)
    for number, sampler in enumerate(samplers):
        alone = draw(sampler, logits_BV, keys_B, None)
        np.testing.assert_array_equal(mixed[number::3], alone[number::3])


def test_a_row_does_not_depend_on_the_others():
    # Reddens where a conditional, or a list's padding, lets one row's rule reach another row.
    rng = np.random.default_rng(3)
    inputs, quiet = random_inputs(rng), Sampler(0.8, top_p=0.9)
    expected = int(draw_rows(on_device([quiet] * ROWS), *inputs)[2])
    for _ in range(10):
        samplers = [random_sampler(rng) for _ in range(ROWS)]
        samplers[2] = quiet
        others = random_inputs(rng)
        mixed = jax.tree.map(lambda mine, other: jnp.asarray(other).at[2].set(mine[2]), inputs, others)
        assert int(draw_rows(on_device(samplers), *mixed)[2]) == expected


@pytest.mark.parametrize("fields, word", [
    ({"logit_bias": tuple((i, 1.0) for i in range(5))}, "logit_bias has 5 tokens; at most 4"),
    ({"banned": tuple(range(5))}, "banned"), ({"forced": tuple((i, i) for i in range(5))}, "forced"),
], ids=str)
def test_lists_that_are_too_long(fields, word):
    with pytest.raises(UserError, match=word):
        stack_samplers([Sampler(), Sampler(**fields)], max_biases=WIDTH)


def test_numbers_that_float32_cannot_hold():
    rows = stack_samplers([Sampler(1e300), Sampler(1e-45), Sampler(2e-38), Sampler(min_p=1e-300)], max_biases=0)
    assert (rows.inverse_temperature_B > 0).all() and np.isfinite(rows.inverse_temperature_B).all()
    assert rows.greedy_B.tolist() == [False, True, False, False]
    assert np.isfinite(rows.log_min_p_B[3])
