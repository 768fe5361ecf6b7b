"""Generation after a source, by both kinds of encoder-decoder, against the full forward without a cache."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.inference import automata
from purelm.inference.decode import Reason, generate
from purelm.inference.sampling import Sampler, sample
from purelm.models import make_model, parameter_shapes

END = 0
MODELS = {
    "transformer": ModelConfig(architecture="encoder_decoder", vocabulary_size=11, context_length=16, num_layers=1,
                               width=16, num_heads=2),
    "recurrent": ModelConfig(architecture="recurrent_encoder_decoder", vocabulary_size=11, context_length=16,
                             num_layers=1, width=16, bidirectional=True),
}
NAMES = ["transformer", pytest.param("recurrent", marks=pytest.mark.slow)]


@functools.cache
def make_params(config: ModelConfig):
    """Random numbers, scales about 1, without the compilation that initial values take."""
    random = np.random.default_rng(1)

    def leaf(path, shape):
        return jnp.asarray(0.3 * random.normal(size=shape.shape) + (path[-1].key == "scale"), shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, parameter_shapes(config))


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, source_BS, segments_BS, tokens_BT):
    model, variables = make_model(config), {"params": params}
    encoded = model.apply(variables, source_BS, source_segments_BS=segments_BS, method="encode")
    return model.apply(variables, tokens_BT, encoded=encoded).logits_BTV


SOURCE = np.random.default_rng(0).integers(1, 11, (3, 6))
SEGMENTS = (np.arange(6) < np.array([6, 2, 4])[:, None]).astype(np.int32)


DRAWN = Sampler(0.8)


def run(config, prompt_BT, num_tokens, sampler=DRAWN, **options):
    options = {"key": jax.random.key(4), "source_BS": SOURCE, "source_segments_BS": SEGMENTS} | options
    return generate(config, make_params(config), prompt_BT, max_new_tokens=num_tokens, sampler=sampler, **options)


@pytest.mark.parametrize("name", MODELS)
def test_tokens_are_those_of_the_full_forward(name):
    # Reddens with: a forced beginning that is skipped or drawn, keys by step in place of position, a source of another
    # row, log-probabilities at other places.
    config, lengths_B = MODELS[name], np.array([1, 3, 2])
    prompt_BT = np.array([[END, 99, 99], [END, 5, 2], [END, 7, 99]])
    found = run(config, prompt_BT, 10, prompt_lengths_B=lengths_B, log_probabilities=2)
    for row, length in enumerate(lengths_B):
        ids = np.append(prompt_BT[row, :length], found.ids_BT[row])
        logits_TV = forward(config, make_params(config), SOURCE[row:row + 1], SEGMENTS[row:row + 1],
                            np.pad(ids[:-1], (0, 13 - len(ids)))[None])[0, length - 1:length + 9]
        key = jax.random.fold_in(jax.random.key(4), row)
        keys = jnp.stack([jax.random.fold_in(key, length + place) for place in range(10)])
        assert found.ids_BT[row].tolist() == sample(Sampler(0.8), logits_TV, keys).tolist()
        chance_TV = np.asarray(jax.nn.log_softmax(logits_TV))
        np.testing.assert_allclose(found.log_probabilities_BT[row], chance_TV[np.arange(10), found.ids_BT[row]],
                                   atol=1e-4)
        np.testing.assert_array_equal(found.alternative_ids_BTJ[row], np.argsort(-chance_TV)[:, :2])
    assert len(np.unique(found.ids_BT)) > 4


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_one_source_are_rows_of_their_own(name):
    samples = run(MODELS[name], np.full((3, 1), END), 8, Sampler(1.3), num_samples=2, stop_id=END)
    rows = run(MODELS[name], np.full((6, 1), END), 8, Sampler(1.3), stop_id=END, source_BS=SOURCE.repeat(2, 0),
               source_segments_BS=SEGMENTS.repeat(2, 0))
    np.testing.assert_array_equal(samples.ids_BT, rows.ids_BT)
    np.testing.assert_array_equal(samples.lengths_B, rows.lengths_B)
    alone = run(MODELS[name], [[END]], 8, Sampler(1.3), stop_id=END, source_BS=SOURCE[1:2, :2],
                source_segments_BS=None, key=jax.random.fold_in(jax.random.key(4), 2)[None])
    assert alone.ids_BT[0].tolist() == samples.ids_BT[2].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_stop_strings_and_penalties_after_a_source(name):
    letters = [bytes([97 + number]) for number in range(11)]
    sampler = Sampler(1.3, banned=(END,), repetition_penalty=1.2)
    free = run(MODELS[name], np.full((3, 1), END), 14, sampler)
    stop = "".join(chr(97 + token) for token in free.ids_BT[0, 3:5])
    found = run(MODELS[name], np.full((3, 1), END), 14, sampler, stop=automata.stop_strings(letters, [stop]))
    text = "".join(chr(97 + token) for token in free.ids_BT[0])
    assert found.lengths_B[0] == text.index(stop) + 2 and found.reasons_B[0] == Reason.STOP_STRING
    assert END not in free.ids_BT


@pytest.mark.parametrize("options, words", [
    ({"source_BS": None, "source_segments_BS": None}, "reads a source"),
    ({"source_BS": SOURCE[:2]}, r"\[3, tokens\]"),
    ({"num_tokens": 17}, "at most 16"),
    ({"cache": "int8"}, "full one alone"),
])
def test_wrong_calls_are_refused(options, words):
    options = dict(options)
    with pytest.raises(UserError, match=words):
        run(MODELS["transformer"], np.full((3, 1), END), options.pop("num_tokens", 2), **options)
