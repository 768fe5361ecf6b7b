"""Contrastive search against its equation, with a full forward for each candidate and no cache."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.inference import automata
from purelm.inference.contrastive_search import contrastive_search
from purelm.inference.decode import Reason, generate, window_start
from purelm.inference.sampling import Sampler
from purelm.models import make_model, parameter_shapes

TRANSFORMER = ModelConfig(vocabulary_size=11, context_length=8, num_layers=1, width=16, num_heads=2)
VARIANTS = {
    "learned": TRANSFORMER,
    "tied_rope": ModelConfig(**{**TRANSFORMER.__dict__, "positions": "rope", "tied_embeddings": True,
                                "logits_softcap": 3.0, "context_length": 7, "head_bias": True}),
    "recurrent": ModelConfig(architecture="recurrent", vocabulary_size=11, context_length=8, num_layers=1, width=16,
                             tied_embeddings=False),
}


@functools.cache
def make_params(config: ModelConfig):
    """Random numbers, scales about 1, without the compilation that initial values take."""
    random = np.random.default_rng(3)

    def leaf(path, shape):
        return jnp.asarray(0.3 * random.normal(size=shape.shape) + (path[-1].key == "scale"), shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, parameter_shapes(config))


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, tokens_BT):
    model = make_model(config)
    return (model.apply({"params": params}, tokens_BT).logits_BTV,
            model.apply({"params": params}, tokens_BT, method="hidden").logits_BTV)


def read(config: ModelConfig, ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(logits_TV, hidden_TD) of tokens that fit one window."""
    size = 32 if config.architecture == "recurrent" else config.context_length
    tokens_BT = np.pad(np.array([ids]), ((0, 0), (0, size - len(ids))))
    logits_BTV, hidden_BTD = forward(config, make_params(config), tokens_BT)
    return np.asarray(logits_BTV[0, :len(ids)], np.float64), np.asarray(hidden_BTD[0, :len(ids)], np.float64)


def plain(config, ids, num_tokens, top_k, alpha, vocabulary_size=11) -> list[int]:
    """Equation 5 of Su et al. 2022 by the letter."""
    ids, start = [int(token) for token in ids], len(ids)

    def window(end: int) -> int:
        return 0 if config.architecture == "recurrent" else int(window_start(end, config.context_length))

    for position in range(start, start + num_tokens):
        logits_V = read(config, ids[window(position):])[0][-1][:vocabulary_size]
        chance_V = np.exp(logits_V - logits_V.max()) / np.exp(logits_V - logits_V.max()).sum()
        scores = {}
        for candidate in np.argsort(-chance_V, kind="stable")[:top_k]:
            hidden_TD = read(config, [*ids[window(position + 1):], int(candidate)])[1]
            *before, own = hidden_TD / np.linalg.norm(hidden_TD, axis=-1, keepdims=True)
            scores[int(candidate)] = (1 - alpha) * chance_V[candidate] - alpha * max(own @ other for other in before)
        ids.append(max(scores, key=scores.get))
    return ids[start:]


def prompts(rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(length).integers(0, 9, (rows, length))


def run(config, prompt_BT, num_tokens, top_k=4, alpha=0.6, **options):
    return contrastive_search(config, make_params(config), prompt_BT, max_new_tokens=num_tokens, top_k=top_k,
                              alpha=alpha, **options)


@pytest.mark.parametrize("name", ["learned", "recurrent", pytest.param("tied_rope", marks=pytest.mark.slow)])
def test_tokens_are_those_of_the_equation(name):
    # Reddens with: hidden states that are not normalized, of another window, or lost; a candidate compared with
    # itself; probabilities of the rest alone; the memory of another candidate kept.
    config, lengths_B = VARIANTS[name], [3, 5, 1]
    found = run(config, prompts(3, 5), 16, prompt_lengths_B=lengths_B, vocabulary_size=9)
    for row, length in enumerate(lengths_B):
        expected = plain(config, prompts(3, 5)[row, :length], 16, 4, 0.6, vocabulary_size=9)
        assert found.ids_BT[row].tolist() == expected
    assert found.lengths_B.tolist() == [16] * 3
    greedy = generate(config, make_params(config), prompts(3, 5), prompt_lengths_B=np.array(lengths_B),
                      max_new_tokens=16, sampler=Sampler(0.0), key=jax.random.key(0), vocabulary_size=9)
    assert (found.ids_BT != greedy.ids_BT).any(), "or the test could not tell"


def test_any_length_of_prompt():
    # Reddens with: a prompt that ends where its window does read in the wrong one.
    config = VARIANTS["learned"]
    for length in (1, 7, 8, 9, 12, 13):
        found = run(config, prompts(1, length), 3)
        assert found.ids_BT[0].tolist() == plain(config, prompts(1, length)[0], 3, 4, 0.6), length


def test_without_the_penalty_it_is_greedy():
    config = VARIANTS["learned"]
    greedy = generate(config, make_params(config), prompts(2, 3), max_new_tokens=15, sampler=Sampler(0.0),
                      key=jax.random.key(0), stop_id=2)
    for options in ({"alpha": 0.0}, {"top_k": 1}):
        found = run(config, prompts(2, 3), 15, stop_id=2, **options)
        np.testing.assert_array_equal(found.ids_BT, greedy.ids_BT)
        np.testing.assert_array_equal(found.lengths_B, greedy.lengths_B)
        np.testing.assert_allclose(found.log_probabilities_B, greedy.log_probabilities_B, rtol=1e-4)


@pytest.mark.slow
def test_prompts_that_are_read_both_ways():
    # Reddens with: a prompt read causally.
    config = ModelConfig(**{**TRANSFORMER.__dict__, "prefix_attention": True})
    found = run(config, prompts(3, 4), 3, alpha=0.0, prompt_lengths_B=[4, 2, 4])
    greedy = generate(config, make_params(config), prompts(3, 4), max_new_tokens=3, sampler=Sampler(0.0),
                      key=jax.random.key(0), prompt_lengths_B=[4, 2, 4])
    np.testing.assert_array_equal(found.ids_BT, greedy.ids_BT)


def test_rows_end_with_their_stop():
    config, letters = VARIANTS["learned"], [bytes([97 + number]) for number in range(11)]
    free = run(config, prompts(3, 3), 12)
    stop_string = "".join(chr(97 + token) for token in free.ids_BT[0, 2:4])
    found = run(config, prompts(3, 3), 12, stop=automata.stop_strings(letters, [stop_string]),
                stop_id=int(free.ids_BT[1, 5]))
    assert (found.lengths_B < 12).sum() >= 2 and Reason.STOP_ID in found.reasons_B
    for row in range(3):
        length = found.lengths_B[row]
        assert found.ids_BT[row, :length].tolist() == free.ids_BT[row, :length].tolist()


@pytest.mark.parametrize("options, words", [
    ({"top_k": 0}, "top_k is 0"), ({"top_k": 12}, "among 1 to 11"), ({"alpha": 1.5}, "alpha is 1.5"),
    ({"config": ModelConfig(**{**TRANSFORMER.__dict__, "architecture": "encoder_decoder"})}, "take a beam"),
])
def test_wrong_calls_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        run(options.pop("config", TRANSFORMER) if "config" in options else TRANSFORMER, prompts(1, 2), 2, **options)
