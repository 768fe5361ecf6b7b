"""Speculative decoding against `generate`, whose text it must be, and against the model's exact distribution."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import ModelConfig
from purelm.errors import UserError
from purelm.inference.decode import generate
from purelm.inference.sampling import Sampler, filter_logits
from purelm.inference.speculative import LookUp, ModelDraft, generate_speculative
from purelm.inference.speculative_drafts import look_up_drafter, matches
from purelm.models import make_model, parameter_shapes

TARGET = ModelConfig(vocabulary_size=11, context_length=16, num_layers=2, width=16, num_heads=2, positions="learned")
DRAFT = ModelConfig(vocabulary_size=11, context_length=10, num_layers=1, width=8, num_heads=1, positions="rope")
RECURRENT = ModelConfig(vocabulary_size=11, architecture="recurrent", cell="gru", context_length=16, num_layers=2,
                        width=8, hidden_size=8, tied_embeddings=False)
GREEDY = Sampler(0.0)


def variant(config: ModelConfig, **fields) -> ModelConfig:
    return ModelConfig(**{**config.__dict__, **fields})


@functools.cache
def make_params(config: ModelConfig, seed: int = 0):
    """Every parameter noisy, so that the probabilities are far apart; without the compilation of initial values."""
    rng = np.random.default_rng(seed + 1)

    def leaf(path, shape):
        return jnp.asarray(0.2 * rng.normal(size=shape.shape) + (path[-1].key == "scale"), shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, parameter_shapes(config))


def slow(*values) -> list:
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


def prompts(rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(length).integers(0, TARGET.vocabulary_size, (rows, length))


def model_draft(config: ModelConfig = DRAFT) -> ModelDraft:
    return ModelDraft(config, make_params(config, 5))


# Another model, which is mostly wrong; the target itself, which is right as long as its windows agree; a recurrent
# one, whose state must be taken back; and the text.
DRAFTS = {
    "model": model_draft(),
    "itself": ModelDraft(TARGET, make_params(TARGET)),
    "recurrent": model_draft(RECURRENT),
    "look_up": LookUp(longest=3, shortest=1),
}


def run(draft, prompt_BT, num_tokens, *, config=TARGET, sampler=GREEDY, num_drafted=3, acceptance="shared_noise",
        **options):
    options.setdefault("key", jax.random.key(3))
    return generate_speculative(
        config, make_params(config), prompt_BT, draft=draft, num_drafted=num_drafted, max_new_tokens=num_tokens,
        sampler=sampler, acceptance=acceptance, **options)


def plain(prompt_BT, num_tokens, *, config=TARGET, sampler=GREEDY, **options):
    options.setdefault("key", jax.random.key(3))
    return generate(config, make_params(config), prompt_BT, max_new_tokens=num_tokens, sampler=sampler, **options)


def assert_same(found, expected):
    np.testing.assert_array_equal(found.ids_BT, expected.ids_BT)
    np.testing.assert_array_equal(found.lengths_B, expected.lengths_B)
    np.testing.assert_array_equal(found.stopped_B, expected.stopped_B)
    np.testing.assert_allclose(found.log_probabilities_B, expected.log_probabilities_B, rtol=1e-4)


# Past the end of a window of 16 tokens from every side; one bucket of lengths.
LENGTHS = (1, 5, 15, 16, 17, 30)


@pytest.mark.parametrize("name", ["model", "look_up"])
def test_the_text_is_that_of_generate_over_many_windows(name):
    # Reddens with: a cache length off by one after a guess is dropped, guesses kept past a window's end, a window of
    # the target begun at the wrong place, a guess counted that is not the model's token.
    for length in LENGTHS:
        found = run(DRAFTS[name], prompts(1, length), 60)
        assert_same(found.generated, plain(prompts(1, length), 60))
        assert 60 / 4 <= found.steps_B[0] <= 60
        assert found.accepted_B[0] + found.steps_B[0] >= 60


# Each is a program or two to compile; all of them in `make test-all`.
@pytest.mark.parametrize("name", ["recurrent", *slow("model", "itself", "look_up")])
def test_sampled_text_is_that_of_generate_with_shared_noise(name):
    # Reddens with keys by step in place of by position, or a draw of the verified tokens by another rule.
    for length in LENGTHS:
        options = {"sampler": Sampler(0.9, top_k=8, top_p=0.95), "key": jax.random.key(length)}
        found = run(DRAFTS[name], prompts(1, length), 60, **options)
        assert_same(found.generated, plain(prompts(1, length), 60, **options))
        assert len(np.unique(found.generated.ids_BT)) > 3


@pytest.mark.parametrize("acceptance", ["rejection", *slow("shared_noise")])
def test_a_perfect_draft_is_always_right(acceptance):
    # Reddens with a draft that misses a token of the text (after a step whose guesses were all right, say), or whose
    # window begins elsewhere than where `ahead` says.
    config = variant(TARGET, context_length=64)
    draft = ModelDraft(config, make_params(config))
    found = run(draft, prompts(1, 5), 40, config=config, sampler=Sampler(1.0), acceptance=acceptance)
    assert found.steps_B.tolist() == [10] and found.drafted_B.tolist() == [30] == found.accepted_B.tolist()


@pytest.mark.parametrize("name, acceptance", [
    ("model", "shared_noise"), *(pytest.param(*values, marks=pytest.mark.slow) for values in (
        ("model", "rejection"), ("recurrent", "shared_noise"), ("look_up", "shared_noise")))])
def test_rows_go_on_at_their_own_pace_and_are_what_they_are_alone(name, acceptance):
    # Reddens with: one length for all rows, a row whose window is filled anew with another's, keys by batch.
    lengths_B, prompt_BT, key = np.array([3, 17, 9, 1]), prompts(4, 17), jax.random.key(8)
    options = {"sampler": Sampler(0.9, top_k=8, top_p=0.95), "acceptance": acceptance}
    together = run(DRAFTS[name], prompt_BT, 60, key=key, prompt_lengths_B=lengths_B, **options)
    assert len(set(together.steps_B.tolist())) > 1
    for row in (1, 3):
        alone = run(DRAFTS[name], prompt_BT[row: row + 1, :lengths_B[row]], 60, key=jax.random.fold_in(key, row)[None],
                    **options)
        np.testing.assert_array_equal(alone.generated.ids_BT[0], together.generated.ids_BT[row])
        if name != "look_up":
            assert alone.steps_B[0] == together.steps_B[row]


def test_rows_stop_inside_of_a_step():
    # Reddens with a row that goes on after its stop_id where guesses after it were right, or looks at one of two.
    draft, free = DRAFTS["itself"], plain(prompts(6, 4), 30).ids_BT
    stop_id = (int(free[0, 7]), int(free[1, 11]))
    found = run(draft, prompts(6, 4), 30, stop_id=stop_id)
    assert_same(found.generated, plain(prompts(6, 4), 30, stop_id=stop_id))
    assert found.generated.stopped_B.any() and not found.generated.stopped_B.all()


def test_other_rules_reach_every_position_of_a_step():
    # Reddens with a history that ends where the step began, or that holds the guesses after a token.
    sampler = Sampler(0.8, repetition_penalty=1.5, frequency_penalty=0.7, logit_bias=((3, 2.0),), banned=(4,),
                      forced=((2, 7), (11, 1)), min_new_tokens=9)
    options = {"sampler": sampler, "stop_id": 3}
    found = run(DRAFTS["itself"], prompts(2, 6), 30, **options)
    assert_same(found.generated, plain(prompts(2, 6), 30, **options))
    assert found.accepted_B.sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize("fields", [
    {"positions": "rope", "num_kv_heads": 1, "qk_norm": True}, {"positions": "alibi", "attention_window": 5},
    {"positions": "t5", "relative_buckets": 4, "relative_max_distance": 8}, {"positions": "sinusoidal"},
    {"prefix_attention": True}, {"attention_sink": True, "logits_softcap": 3.0, "layer_sharing": 2},
], ids=str)
def test_every_kind_of_decoder(fields):
    config = variant(TARGET, **fields)
    for rows in (1, 3):
        found = run(DRAFTS["model"], prompts(rows, 6), 30, config=config)
        assert_same(found.generated, plain(prompts(rows, 6), 30, config=config))


@functools.partial(jax.jit, static_argnums=0)
def probabilities(sampler: Sampler, tokens_BT: jax.Array) -> jax.Array:
    logits_BV = make_model(TARGET).apply({"params": make_params(TARGET)}, tokens_BT).logits_BTV[:, -1]
    return jax.nn.softmax(filter_logits(sampler, logits_BV), axis=-1)


@pytest.mark.parametrize("sampler", [Sampler(1.3, top_k=8, top_p=0.9), *slow(Sampler(1.0))], ids=["filtered", "all"])
def test_rejection_has_the_exact_distribution(sampler):
    # The first three tokens of 20,000 rows, pairs of them by a chi-square test: the first two are a guess and what
    # follows it (a guess, or a token in the place of one), the last two straddle the steps. Reddens with: the residual
    # not taken, taken of unfiltered probabilities, or a guess drawn from other probabilities than it is judged by.
    stats = pytest.importorskip("scipy.stats")
    rows, V = 20_000, TARGET.vocabulary_size
    found = run(DRAFTS["model"], np.tile(prompts(1, 5), (rows, 1)), 3, sampler=sampler, num_drafted=1,
                acceptance="rejection")
    assert 0.02 < found.accepted_B.sum() / found.drafted_B.sum() < 0.98
    first_V = np.asarray(probabilities(sampler, jnp.asarray(prompts(1, 5))))[0].astype(np.float64)
    after_one = np.concatenate([np.tile(prompts(1, 5), (V, 1)), np.arange(V)[:, None]], axis=1)
    second_VV = np.asarray(probabilities(sampler, jnp.asarray(after_one)), np.float64)
    after_two = np.concatenate([np.repeat(after_one, V, axis=0), np.tile(np.arange(V), V)[:, None]], axis=1)
    third_VVV = np.asarray(probabilities(sampler, jnp.asarray(after_two)), np.float64).reshape(V, V, V)
    expected = first_V[:, None, None] * second_VV[:, :, None] * third_VVV
    a, b, c = found.generated.ids_BT.T
    for expected_VV, pairs in [(expected.sum(2), a * V + b), (expected.sum(0), b * V + c)]:
        counts = np.bincount(pairs, minlength=V * V)
        expected_X = expected_VV.ravel() * rows
        assert counts[expected_X == 0].sum() == 0
        large = expected_X >= 5
        observed = np.append(counts[large], counts[~large].sum())
        wanted = np.append(expected_X[large], expected_X[~large].sum())
        keep = wanted > 0
        p_value = stats.chisquare(observed[keep], wanted[keep] * observed.sum() / wanted.sum()).pvalue
        assert p_value > 1e-3, p_value


def test_rejection_keeps_more_guesses_than_shared_noise():
    # Reddens with an acceptance probability below min(1, p / q), which the distribution alone would not show.
    kept = {}
    for acceptance in ("rejection", "shared_noise"):
        found = run(DRAFTS["model"], np.tile(prompts(1, 5), (2000, 1)), 1, sampler=Sampler(1.0), num_drafted=1,
                    acceptance=acceptance)
        kept[acceptance] = found.accepted_B.mean()
    p_V = np.asarray(probabilities(Sampler(1.0), jnp.asarray(prompts(1, 5))))[0]
    q_V = jax.nn.softmax(make_model(DRAFT).apply({"params": DRAFTS["model"].params}, prompts(1, 5)).logits_BTV[0, -1])
    overlap = np.minimum(p_V, q_V).sum()
    assert abs(kept["rejection"] - overlap) < 0.04
    # Daliri, Musco & Suresh 2024: at least (1 - t) / (1 + t) for a total variation distance t.
    assert overlap / (2 - overlap) - 0.04 < kept["shared_noise"] < overlap + 0.04


def test_look_up_takes_the_latest_of_the_longest_matches():
    find = jax.jit(matches, static_argnums=0)

    def guess(text: str, longest: int = 3):
        ids_BX = np.frombuffer(text.ljust(16, ".").encode(), np.uint8).astype(np.int32)[None]
        end_B, found_B = find(LookUp(longest, shortest=longest - 1), ids_BX, np.array([len(text)]))
        return int(end_B[0]) if found_B[0] else None

    assert guess("abcXbcYcZabc") == 3  # All three of "abc", though "bc" and "c" come later.
    assert guess("abcXabcYabc") == 7
    assert guess("abcXbcYcZabc", longest=2) == 6
    assert guess("abcXc") is None and guess("abc") is None and guess("a") is None
    assert guess("aa", longest=2) == 1 and guess("aaa") == 2
    # What comes after the text's end is no match.
    assert guess("xy.", longest=2) is None


def test_a_repetition_goes_on_past_the_texts_end():
    # Reddens with a guess that reads past the known text. After "ab" the text ababab... is guessed whole.
    ids_BX = jnp.asarray([[5, 1, 2, 3, 1, 2, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0]])
    proposal = look_up_drafter(LookUp(2, 1), 5).propose(ids_BX, jnp.asarray([7]), None)
    assert proposal.ids_BX[0, 7:12].tolist() == [1, 2, 3, 1, 2]


@pytest.mark.parametrize("changes, message", [
    ({"draft": ModelDraft(variant(DRAFT, vocabulary_size=12), None)}, "12 tokens, the model's 11"),
    ({"draft": ModelDraft(variant(DRAFT, architecture="encoder"), None)}, "no language model"),
    ({"draft": ModelDraft(variant(RECURRENT, bidirectional=True), None)}, "no language model"),
    ({"num_drafted": 0}, "num_drafted"), ({"num_drafted": 6}, "at most 5"),
    ({"config": RECURRENT}, "speculative decoding is for decoder"), ({"acceptance": "some"}, "shared_noise or"),
    ({"sampler": Sampler(1.0, banned=(2,)), "acceptance": "rejection"}, "take shared_noise"),
    ({"stop_id": 11}, "stop_id"),
])
def test_wrong_calls_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        run(changes.pop("draft", DRAFTS["model"]), prompts(1, 3), 4, **changes)
    with pytest.raises(UserError, match="longest"):
        LookUp(longest=1, shortest=2)


def test_damaged_parameters_are_an_error():
    # Reddens with a token that is drawn from what is no number.
    broken = jax.tree.map(lambda leaf: leaf * np.nan, make_params(TARGET))
    with pytest.raises(UserError, match="not finite"):
        generate_speculative(TARGET, broken, prompts(1, 5), draft=DRAFTS["model"], num_drafted=3, max_new_tokens=60,
                             sampler=GREEDY, key=jax.random.key(0), acceptance="shared_noise")
    with pytest.raises(UserError, match="not finite"):
        generate_speculative(
            TARGET, broken, np.tile(prompts(1, 5), (2000, 1)), draft=DRAFTS["model"], num_drafted=1, max_new_tokens=1,
            sampler=Sampler(1.0), key=jax.random.key(0), acceptance="rejection")
