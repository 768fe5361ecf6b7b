"""Diverse beam search against a plain Python version of the paper's algorithm, on a random Markov model."""

import numpy as np
import pytest
from markov_model import END, FUNCTIONS, KINDS, LENGTH, VOCABULARY, answers, next_log_probabilities, search, table

from purelm.inference import beam_search


@pytest.fixture(autouse=True)
def markov(monkeypatch):
    monkeypatch.setattr(beam_search, "hypotheses", FUNCTIONS)


def reference(logits, kind, *, groups, size, penalty, alpha):
    """Vijayakumar et al. 2016, algorithm 1, with Hamming diversity: {ids: score} of what each group finished."""
    beams = [[((), 0.0)] for _ in range(groups)]
    finished = [[] for _ in range(groups)]
    done = [False] * groups
    for length in range(1, LENGTH + 1):
        said = np.zeros(VOCABULARY)
        for group in range(groups):
            extended = [((*ids, token), score + value - penalty * said[token])
                        for ids, score in beams[group]
                        for token, value in enumerate(next_log_probabilities(logits, kind, ids))]
            extended = sorted(extended, key=lambda pair: -pair[1])[:2 * size]
            ended = [(ids, score / ((5 + length) / 6) ** alpha) for ids, score in extended[:size] if ids[-1] == END]
            beams[group] = [pair for pair in extended if pair[0][-1] != END][:size]
            if done[group]:
                continue
            finished[group] += ended
            for ids, _ in beams[group]:
                said[ids[-1]] += 1
            done[group] = len(finished[group]) >= size
    return finished


@pytest.mark.parametrize("groups, size, penalty", [(2, 2, 0.7), (3, 1, 5.0), (2, 3, 0.2)])
def test_groups_are_those_of_the_paper(groups, size, penalty):
    # Reddens where groups do not see the ones before, see what ended, or forget the penalty of earlier steps.
    logits = table(1)
    logits[..., END] += 0.3
    beams = groups * size
    found = search(logits, beam_size=beams, num_best=beams, num_groups=groups, diversity_penalty=penalty)
    for kind in range(KINDS):
        finished = reference(logits, kind, groups=groups, size=size, penalty=penalty, alpha=0.6)
        best = [pair for group in finished for pair in sorted(group, key=lambda pair: -pair[1])[:size]]
        best.sort(key=lambda pair: -pair[1])
        ended = found.finished_BN[kind]
        ids = [tuple(ids[:length]) for ids, length in zip(found.ids_BNT[kind].tolist(), found.lengths_BN[kind])]
        assert [i for i, end in zip(ids, ended) if end] == [ids for ids, _ in best]
        np.testing.assert_allclose(found.score_BN[kind][ended], [score for _, score in best], rtol=1e-5)


def test_without_a_penalty_groups_are_alike_and_one_group_is_plain():
    logits = table(2)
    plain = search(logits, beam_size=2, num_best=2)
    alike = search(logits, beam_size=4, num_best=4, num_groups=2, diversity_penalty=0.0)
    assert answers(plain) == answers(alike)
    np.testing.assert_array_equal(alike.ids_BNT[:, ::2], alike.ids_BNT[:, 1::2])
    np.testing.assert_array_equal(alike.score_BN[:, ::2], plain.score_BN)


def test_a_larger_penalty_gives_more_different_answers():
    logits = table(3)
    logits[..., END] -= 3

    def first_tokens(penalty):
        found = search(logits, beam_size=3, num_best=3, num_groups=3, diversity_penalty=penalty)
        return np.mean([len(set(row)) for row in found.ids_BNT[:, :, 0].tolist()])

    assert first_tokens(0.0) == 1 and first_tokens(50.0) == 3


def test_log_probabilities_are_the_models_own():
    # Reddens where the diversity penalty is in them.
    logits = table(4)
    found = search(logits, beam_size=4, num_best=4, num_groups=2, diversity_penalty=1.0)
    for kind in range(KINDS):
        for ids, length, given in zip(found.ids_BNT[kind], found.lengths_BN[kind], found.log_probability_BN[kind]):
            ids = ids[:length].tolist()
            own = sum(next_log_probabilities(logits, kind, ids[:i])[token] for i, token in enumerate(ids))
            np.testing.assert_allclose(given, own, rtol=1e-5)
