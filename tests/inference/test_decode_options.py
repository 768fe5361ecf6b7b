"""What a call of generation may ask for beside the tokens: samples of a prompt, stop strings, constraints, chances."""

from __future__ import annotations

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.inference import automata, decode_loop
from purelm.inference.decode import Reason, generate, window_start
from purelm.inference.sampling import History, Sampler, draw
from purelm.models import make_model, parameter_shapes
from purelm.models.transformer import Transformer as TransformerModule

LETTERS = [b"a", b"b", b"c", b"ab", b"ca", b"bc", b"aa", b"cab"]
END = 8
CONFIG = ModelConfig(vocabulary_size=10, context_length=8, num_layers=1, width=16, num_heads=2)
RECURRENT = ModelConfig(architecture="recurrent", vocabulary_size=10, context_length=8, num_layers=1, width=16,
                        tied_embeddings=False)
MODELS = {"decoder": CONFIG, "recurrent": RECURRENT}
NAMES = ["decoder", pytest.param("recurrent", marks=pytest.mark.slow)]


@functools.cache
def make_params(config: ModelConfig):
    """Random numbers, scales about 1, without the compilation that initial values take."""
    random = np.random.default_rng(1)

    def leaf(path, shape):
        return jnp.asarray(0.3 * random.normal(size=shape.shape) + (path[-1].key == "scale"), shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, parameter_shapes(config))


@functools.partial(jax.jit, static_argnums=0)
def forward(config, params, tokens_BT):
    return make_model(config).apply({"params": params}, tokens_BT).logits_BTV


def next_logits(config: ModelConfig, ids: list[int]) -> np.ndarray:
    """float32 [V] of the token after `ids`, by the full forward over its own window; the padding's are -inf."""
    size = 64 if config.architecture == "recurrent" else config.context_length
    window = ids if config.architecture == "recurrent" else ids[window_start(len(ids), size):]
    tokens_BT = np.pad(np.array([window]), ((0, 0), (0, size - len(window))))
    logits_V = np.asarray(forward(config, make_params(config), tokens_BT)[0, len(window) - 1], np.float32).copy()
    logits_V[END + 1:] = -np.inf
    return logits_V


def prompts(rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(length).integers(0, 8, (rows, length))


PLAIN = Sampler(1.0)


def run(prompt_BT, num_tokens, sampler=PLAIN, config=CONFIG, **options):
    options = {"key": jax.random.key(0), "stop_id": END, "vocabulary_size": END + 1} | options
    return generate(config, make_params(config), prompt_BT, max_new_tokens=num_tokens, sampler=sampler, **options)


def text_of(ids) -> bytes:
    return b"".join(LETTERS[number] for number in ids if number < END)


@pytest.mark.parametrize("name", NAMES)
def test_samples_of_one_prefill_are_rows_of_their_own(name):
    # Reddens with: samples in another order, keys by sample in place of row, a memory that is not repeated.
    config, lengths_B = MODELS[name], np.array([3, 5])
    samples = run(prompts(2, 5), 12, Sampler(1.2), config, prompt_lengths_B=lengths_B, num_samples=3)
    rows = run(np.repeat(prompts(2, 5), 3, 0), 12, Sampler(1.2), config, prompt_lengths_B=np.repeat(lengths_B, 3))
    np.testing.assert_array_equal(samples.ids_BT, rows.ids_BT)
    np.testing.assert_array_equal(samples.reasons_B, rows.reasons_B)
    assert len({tuple(row) for row in samples.ids_BT.tolist()}) == 6


def test_samples_share_the_prefill(monkeypatch):
    # Reddens where the prompt is read once a sample.
    seen, features = [], TransformerModule.features

    def counted(self, tokens_BT, **inputs):
        jax.debug.callback(lambda: seen.append(tokens_BT.shape))
        return features(self, tokens_BT, **inputs)

    config = ModelConfig(**{**CONFIG.__dict__, "context_length": 40})
    params = make_params(config)
    monkeypatch.setattr(TransformerModule, "features", counted)
    generate(config, params, prompts(2, 20), max_new_tokens=3, sampler=Sampler(1.0), key=jax.random.key(0),
             num_samples=4)
    jax.effects_barrier()
    assert [shape for shape in seen if shape[1] > 1] == [(2, 32)] and seen.count((8, 1)) == 3


@pytest.mark.slow
def test_samples_of_prompts_that_are_read_both_ways():
    config = ModelConfig(**{**CONFIG.__dict__, "prefix_attention": True})
    options = {"config": config, "stop_id": None}
    samples = run(prompts(3, 4), 3, prompt_lengths_B=[4, 2, 4], num_samples=2, **options)
    rows = run(np.repeat(prompts(3, 4), 2, 0), 3, prompt_lengths_B=[4, 4, 2, 2, 4, 4], **options)
    np.testing.assert_array_equal(samples.ids_BT, rows.ids_BT)


@pytest.mark.parametrize("name", NAMES)
def test_each_tokens_log_probability_and_the_likeliest_beside_it(name):
    # Reddens with: places that are off by one or counted from the longest prompt, the sampler's own distribution.
    config, lengths_B = MODELS[name], [3, 1]
    found = run(prompts(2, 3), 12, Sampler(0.7, top_k=4, repetition_penalty=1.3), config, prompt_lengths_B=lengths_B,
                log_probabilities=3)
    assert found.stopped_B.any() or found.lengths_B.max() == 12
    for row, length in enumerate(lengths_B):
        ids = prompts(2, 3)[row, :length].tolist()
        for place in range(found.lengths_B[row]):
            expected_V = np.asarray(jax.nn.log_softmax(next_logits(config, ids)))
            token = int(found.ids_BT[row, place])
            assert found.log_probabilities_BT[row, place] == pytest.approx(expected_V[token], abs=1e-4)
            assert found.alternative_ids_BTJ[row, place].tolist() == np.argsort(-expected_V)[:3].tolist()
            np.testing.assert_allclose(found.alternatives_BTJ[row, place], np.sort(expected_V)[::-1][:3], atol=1e-4)
            ids.append(token)
    np.testing.assert_allclose(found.log_probabilities_BT.sum(1), found.log_probabilities_B, atol=1e-4)
    alone = run(prompts(2, 3), 4, log_probabilities=0)
    assert alone.log_probabilities_BT.shape == (2, 4) and alone.alternative_ids_BTJ is None


@pytest.mark.parametrize("sampler", [
    Sampler(0.0, repetition_penalty=1.5), Sampler(1.0, frequency_penalty=1.0, presence_penalty=0.5),
    Sampler(0.8, banned=(2,), logit_bias=((3, 2.0),), forced=((1, 5),), min_new_tokens=6, min_p=0.05)], ids=str)
def test_what_a_token_is_drawn_with_reaches_the_loop(sampler):
    # Reddens with: a history that begins or ends elsewhere, counts places from the longest prompt, or forgets windows.
    lengths_B = [5, 2]
    found = run(prompts(2, 5), 14, sampler, prompt_lengths_B=lengths_B)
    for row, length in enumerate(lengths_B):
        ids = prompts(2, 5)[row, :length].tolist()
        for token in found.ids_BT[row, :found.lengths_B[row]]:
            known = np.pad(ids, (0, 20 - len(ids)))[None].astype(np.int32)
            history = History(known, np.array([len(ids)]), np.array([length]), np.array([window_start(len(ids), 8)]))
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), row), len(ids))
            expected = draw(sampler, jnp.asarray(next_logits(CONFIG, ids))[None], key[None], history, stop_id=END)
            assert int(expected[0]) == token
            ids.append(int(token))


@pytest.mark.parametrize("stops", [("bca",), ("aab", "cc", "bb")])
def test_stop_strings_end_a_row_where_plain_search_finds_them(stops):
    # Reddens with: a match counted from the prompt, found a token late, across an end, or that ends other rows.
    stop = automata.stop_strings(LETTERS, stops)
    prompt_BT, lengths_B = prompts(6, 4), [4, 2, 3, 4, 1, 2]
    free = run(prompt_BT, 25, Sampler(1.5), prompt_lengths_B=lengths_B)
    found = run(prompt_BT, 25, Sampler(1.5), prompt_lengths_B=lengths_B, stop=stop)
    reasons = set()
    for row in range(6):
        length, reason = int(free.lengths_B[row]), Reason.STOP_ID if free.stopped_B[row] else Reason.LENGTH
        for place in range(length):
            if any(stop.encode() in text_of(free.ids_BT[row, :place + 1]) for stop in stops):
                length, reason = place + 1, Reason.STOP_STRING
                break
        assert (found.lengths_B[row], found.reasons_B[row]) == (length, reason)
        assert found.ids_BT[row, :length].tolist() == free.ids_BT[row, :length].tolist()
        assert (found.ids_BT[row, length:] == END).all() and found.stopped_B[row] == (reason == Reason.STOP_ID)
        reasons.add(reason)
    assert Reason.STOP_STRING in reasons


@pytest.mark.parametrize("name, pattern", [("decoder", "(ab|ca)+b"), ("recurrent", "a{2,3}(bc)*")])
def test_a_constrained_answer_matches(pattern, name):
    # Reddens with: a state that is not carried or that the prompt moves, an end where the pattern has none.
    pytest.importorskip("outlines_core")
    constraint = automata.regex(LETTERS, pattern)
    options = {"prompt_lengths_B": [4, 2, 3, 4], "config": MODELS[name]}
    found = run(prompts(4, 4), 40, Sampler(3.0), constraint=constraint, **options)
    for row in range(4):
        text = text_of(found.ids_BT[row, :found.lengths_B[row]]).decode()
        assert found.stopped_B[row] and re.fullmatch(pattern, text), text


def test_a_constraint_ends_the_answer_where_there_is_no_end_of_text():
    pytest.importorskip("outlines_core")
    found = run(prompts(3, 4), 40, Sampler(1.3), stop_id=None, constraint=automata.regex(LETTERS, "(ab|bc){3}"))
    assert (found.reasons_B == Reason.CONSTRAINT).all() and not found.stopped_B.any()
    for row in range(3):
        assert re.fullmatch("(ab|bc){3}", text_of(found.ids_BT[row, :found.lengths_B[row]]).decode())


def test_patterns_of_like_size_share_a_program():
    # Reddens where the automaton is a constant of the program.
    pytest.importorskip("outlines_core")
    run(prompts(2, 3), 5, constraint=automata.regex(LETTERS, "(ab)*"))
    before = decode_loop.run._cache_size()
    for pattern in ("(bc)*", "a*b*", "(ab|ca)+"):
        run(prompts(2, 3), 5, constraint=automata.regex(LETTERS, pattern))
    assert decode_loop.run._cache_size() == before


def test_an_option_that_is_off_is_not_in_the_program():
    # Reddens where the plain loop carries what nobody asked for.
    def carried(**options):
        traced = {}

        def recorded(condition, body, state):
            traced["leaves"] = max(traced.get("leaves", 0), len(jax.tree.leaves(state)))
            return loop(condition, body, state)

        loop = jax.lax.while_loop
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jax.lax, "while_loop", recorded)
            decode_loop.run.clear_cache()
            run(prompts(1, 3), 3, Sampler(0.0), **options)
        return traced["leaves"]

    # Ids, position, lengths, reasons, log-probabilities; keys and values of a layer, and their length.
    assert carried() == 8
    assert carried(log_probabilities=2) == 11
    assert carried(stop=automata.stop_strings(LETTERS, ["ab"])) == 9


@pytest.mark.parametrize("options, words", [
    ({"num_samples": 0}, "num_samples is 0"),
    ({"log_probabilities": 21}, "0 to 20"),
    ({"cache": "half"}, "full, rolling or int8"),
    ({"cache": "rolling"}, "attention_window"),
    ({"cache": "int8", "config": RECURRENT}, "recurrent has the full one alone"),
    ({"key": jax.random.split(jax.random.key(0), 3)}, "one for each of 2 rows"),
    ({"source_BS": [[1], [2]]}, "reads no source"),
    ({"config": ModelConfig(**{**CONFIG.__dict__, "architecture": "encoder"})}, "writes nothing"),
])
def test_wrong_options_are_refused(options, words):
    with pytest.raises(UserError, match=words) as error:
        run(prompts(2, 3), 2, **options)
    assert "\n" not in str(error.value)


def test_banned_ids_are_of_the_vocabulary():
    with pytest.raises(UserError, match="outside of the vocabulary"):
        run(prompts(1, 2), 2, Sampler(banned=(9,)))
