"""Beam search against greedy and exhaustive search, on a random second-order Markov model in place of a network."""

import itertools

import numpy as np
import pytest
from markov_model import END, FUNCTIONS, KINDS, LENGTH, VOCABULARY, answers, log_probability, search, table

from purelm.errors import UserError
from purelm.inference import beam_search


@pytest.fixture(autouse=True)
def markov(monkeypatch):
    monkeypatch.setattr(beam_search, "hypotheses", FUNCTIONS)


def every_ended():
    for length in range(LENGTH):
        for ids in itertools.product(range(END), repeat=length):
            yield (*ids, END)


def test_a_beam_of_one_is_greedy():
    # Reddens where the state or the last token is one step off, or where the search goes on after the best ends.
    logits = table()
    for kind, found in enumerate(answers(search(logits))):
        ids, before, last = [], END, END
        while len(ids) < LENGTH and (not ids or ids[-1] != END):
            ids.append(int(logits[kind, before, last].argmax()))
            before, last = last, ids[-1]
        assert found == tuple(ids)


def plain_beam(logits, kind, size, stops, alpha):
    """The best answer of a beam search, word for word."""
    def chance(ids):
        return log_probability(logits, kind, ids)

    def score(ids, length):
        return chance(ids) / ((5 + length) / 6) ** alpha

    alive, finished = [()], []
    for _ in range(LENGTH):
        extended = sorted(((*ids, token) for ids in alive for token in range(VOCABULARY)), key=chance, reverse=True)
        finished += [ids for ids in extended[:size] if ids[-1] in stops]
        alive = [ids for ids in extended if ids[-1] not in stops][:size]
        best = max((score(ids, len(ids)) for ids in finished), default=-np.inf)
        if len(finished) >= size or best >= score(alive[0], LENGTH):
            break
    return max(finished or alive, key=lambda ids: score(ids, len(ids)))


@pytest.mark.parametrize("size", [1, 4])
def test_several_ids_end_an_answer(size):
    # Reddens where one of them goes on.
    for seed in range(4):
        logits = table(seed)
        logits[..., 2:] += 1
        found = search(logits, beam_size=size, length_penalty=3.0, stop_id=(END, 2))
        assert answers(found) == [plain_beam(logits, kind, size, (END, 2), 3.0) for kind in range(KINDS)]


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
def test_a_wide_beam_is_exhaustive_search(alpha):
    # Reddens for a wrong length, a penalty of the wrong sign, beams mixed between rows, or a stop that is too early.
    logits = table(1)
    found = search(logits, beam_size=400, length_penalty=alpha)
    for kind, ids in enumerate(answers(found)):
        best = max(every_ended(), key=lambda ids: log_probability(logits, kind, ids) / ((5 + len(ids)) / 6) ** alpha)
        assert ids == best
    expected = [log_probability(logits, kind, ids) for kind, ids in enumerate(answers(found))]
    np.testing.assert_allclose(found.log_probability_B, expected, rtol=1e-5)
    assert found.finished_B.all() and found.finite


def test_a_larger_penalty_prefers_longer_answers():
    # Reddens where alpha is not read. The ends are made likely, so that the best short answers win without it.
    logits = table(2)
    logits[..., END] += 1
    short, long = (search(logits, beam_size=400, length_penalty=alpha) for alpha in (0.0, 3.0))
    assert short.lengths_B.mean() < long.lengths_B.mean()


def test_wider_beams_find_likelier_answers():
    logits = table(3)
    means = [search(logits, beam_size=beams, length_penalty=0.0).log_probability_B.mean() for beams in (1, 2, 8)]
    assert means[0] < means[1] <= means[2]


@pytest.mark.parametrize("beam_size, num_best", [(1, 1), (3, 2)])
def test_a_row_does_not_depend_on_the_others(beam_size, num_best):
    # Reddens where a row that is done goes on improving while others run.
    for seed in range(40, 60):
        logits = table(seed)
        logits[0, ..., END] += 2  # done soon
        logits[1, ..., END] -= 4  # done late
        together = search(logits, beam_size=beam_size, num_best=num_best, length_penalty=3.0)
        for kind in range(2):
            alone = search(logits, [kind], beam_size=beam_size, num_best=num_best, length_penalty=3.0)
            np.testing.assert_array_equal(alone.ids_BNT[0], together.ids_BNT[kind])
            np.testing.assert_allclose(alone.score_BN[0], together.score_BN[kind], rtol=1e-6)


def test_ids_beyond_the_vocabulary_are_never_drawn():
    padded = np.concatenate([np.pad(table(5), ((0, 0), (0, 0), (0, 0), (0, 0))),
                             np.full((KINDS, VOCABULARY, VOCABULARY, 2), 50, np.float32)], axis=-1)
    for beam_size in (1, 3):
        found, plain = search(padded, beam_size=beam_size), search(table(5), beam_size=beam_size)
        assert (found.ids_BT < VOCABULARY).all()
        np.testing.assert_allclose(found.log_probability_B, plain.log_probability_B, rtol=1e-6)


def test_without_an_end_the_likeliest_is_given_at_full_length():
    logits = table(6)
    logits[..., END] = -1e9
    found = search(logits, beam_size=3)
    assert not found.finished_B.any() and (found.lengths_B == LENGTH).all()
    expected = [log_probability(logits, kind, ids) for kind, ids in enumerate(answers(found))]
    np.testing.assert_allclose(found.log_probability_B, expected, rtol=1e-5)


def test_logits_that_are_not_numbers_are_told():
    logits = table(7)
    logits[0, END, END] = np.nan
    assert not search(logits).finite


def all_answers(found, row):
    return [tuple(ids[:length]) for ids, length in zip(found.ids_BNT[row].tolist(), found.lengths_BN[row])]


def test_n_best_are_the_exhaustive_n_best():
    # Reddens where a finished one is forgotten, taken twice, or where they are not sorted by score.
    logits = table(8)
    found = search(logits, beam_size=400, num_best=7)
    for kind in range(KINDS):
        scores = {ids: log_probability(logits, kind, ids) / ((5 + len(ids)) / 6) ** 0.6 for ids in every_ended()}
        best = sorted(scores, key=scores.get, reverse=True)[:7]
        assert all_answers(found, kind) == best
        np.testing.assert_allclose(found.score_BN[kind], [scores[ids] for ids in best], rtol=1e-5)
        np.testing.assert_allclose(
            found.log_probability_BN[kind], [log_probability(logits, kind, ids) for ids in best], rtol=1e-5)
    assert found.finished_BN.all()


def test_the_best_of_n_is_the_best_alone():
    logits = table(9)
    one, four = search(logits, beam_size=4), search(logits, beam_size=4, num_best=4)
    assert answers(one) == answers(four)
    assert (np.diff(four.score_BN, axis=1) <= 0).all()


def test_where_few_finish_the_likeliest_others_follow():
    # Of "end" at once and all texts without an end: the first answer is the one that finished, whatever its score.
    logits = table(10)
    logits[..., END] = -1e9
    logits[:, END, END, END] = -12
    found = search(logits, beam_size=4, num_best=3)
    assert (found.lengths_BN == [1, LENGTH, LENGTH]).all() and (found.finished_BN == [True, False, False]).all()
    assert (found.score_BN[:, 0] < found.score_BN[:, 1]).all()


def test_where_there_are_not_so_many_hypotheses_the_others_are_impossible():
    found = search(table(11), beam_size=400, num_best=300, max_new_tokens=2)
    ended, others = 1 + END, END * END
    assert (found.lengths_BN > 0).sum() == KINDS * (ended + others)
    assert np.isneginf(found.score_BN[:, ended + others:]).all() and found.finished_BN[:, :ended].all()


@pytest.mark.parametrize("options, told", [
    ({"beam_size": 0}, "beam_size"), ({"num_best": 2}, "num_best"), ({"max_new_tokens": 0}, "max_new_tokens"),
    ({"beam_size": 4, "num_groups": 3}, "num_groups")])
def test_numbers_that_do_not_go_together_are_told(options, told):
    with pytest.raises(UserError, match=told):
        search(table(), **options)
