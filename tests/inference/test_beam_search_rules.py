"""What a Sampler and a constraint do in beam search, against exhaustive search by the same rules."""

import itertools

import numpy as np
import pytest
from markov_model import END, FUNCTIONS, KINDS, LENGTH, VOCABULARY, log_probability, search, table

from purelm.inference import beam_search
from purelm.inference.automata import TokenAutomaton
from purelm.inference.sampling import Sampler


@pytest.fixture(autouse=True)
def markov(monkeypatch):
    monkeypatch.setattr(beam_search, "hypotheses", FUNCTIONS)


def normalized(logits):
    return logits - np.log(np.exp(logits).sum())


def exhaustive(logits, kind, edit=lambda ids, logits: logits, keep=lambda ids: True, number=5):
    """The best texts that `keep` keeps, by the probabilities that edit(ids before, logits) leaves."""
    scores = {}
    for length in range(LENGTH):
        for ids in itertools.product(range(END), repeat=length):
            ids = (*ids, END)
            if keep(ids):
                total = 0.0
                for i, token in enumerate(ids):
                    before, last = (END, END, *ids[:i])[-2:]
                    total += normalized(edit(ids[:i], logits[kind, before, last].astype(np.float64)))[token]
                scores[ids] = total / ((5 + len(ids)) / 6) ** 0.6
    best = sorted(scores, key=scores.get, reverse=True)[:number]
    return best, [scores[ids] for ids in best]


def assert_exhaustive(sampler=None, constraint=None, **rules):
    logits = table(21)
    found = search(logits, beam_size=400, num_best=5, sampler=sampler, constraint=constraint)
    for kind in range(KINDS):
        best, scores = exhaustive(logits, kind, **rules)
        there = np.flatnonzero(found.score_BN[kind] > -np.inf)
        got = [tuple(found.ids_BNT[kind, i, :found.lengths_BN[kind, i]].tolist()) for i in there]
        assert got == best
        np.testing.assert_allclose(found.score_BN[kind, there], scores, rtol=1e-4)
        # The model's own, whatever they were compared by.
        own = [log_probability(logits, kind, ids) for ids in best]
        np.testing.assert_allclose(found.log_probability_BN[kind, there], own, rtol=1e-4)


def test_what_is_banned_is_in_no_hypothesis_and_the_others_keep_their_probabilities():
    assert_exhaustive(Sampler(banned=(1,)), keep=lambda ids: 1 not in ids)


def test_biases_change_the_distribution():
    bias = np.array([0, 2.0, 0, -1.5])
    assert_exhaustive(Sampler(logit_bias=((1, 2.0), (END, -1.5))), edit=lambda ids, logits: logits + bias)


def test_the_end_waits_for_min_new_tokens():
    assert_exhaustive(Sampler(min_new_tokens=3), keep=lambda ids: len(ids) > 3)


def test_forced_tokens_are_in_their_places():
    assert_exhaustive(Sampler(forced=((0, 2), (2, 0))),
                      keep=lambda ids: ids[0] == 2 and (len(ids) <= 2 or ids[2] == 0))


def test_penalties_are_of_each_hypothesis_own_tokens():
    # Reddens where the penalty reads the tokens of the hypothesis that was in this place a step before.
    def repetition(ids, logits):
        logits = logits.copy()
        for token in set(ids):
            logits[token] = logits[token] * 1.7 if logits[token] < 0 else logits[token] / 1.7
        return logits

    def frequency(ids, logits):
        return logits - np.bincount(ids, minlength=VOCABULARY) * 0.8 if ids else logits

    assert_exhaustive(Sampler(repetition_penalty=1.7), edit=repetition)
    assert_exhaustive(Sampler(frequency_penalty=0.8), edit=frequency)


# 0 any number of times, then 1, then 2 any number of times: state 1 may end. Tokens 0, 1 and 2 have classes of their
# own, the end a class that nothing allows.
ORDERED = TokenAutomaton(
    classes_V=np.array([0, 1, 2, 3], np.int32), next_QC=np.array([[0, 1, -1, -1], [-1, -1, 1, -1]], np.int32),
    final_Q=np.array([False, True]))


def is_ordered(ids):
    text = "".join(map(str, ids[:-1]))
    return text.count("1") == 1 and set(text.split("1")[0]) <= {"0"} and set(text.split("1")[1]) <= {"2"}


def test_hypotheses_respect_the_constraint():
    # Reddens where the automaton's state stays behind when hypotheses move.
    assert_exhaustive(constraint=ORDERED, keep=is_ordered)


def test_a_narrow_beam_respects_the_constraint_too():
    found = search(table(22), beam_size=3, num_best=3, constraint=ORDERED)
    for ids, length, finished in zip(found.ids_BNT.reshape(-1, LENGTH), found.lengths_BN.ravel(),
                                     found.finished_BN.ravel()):
        assert length and (not finished or is_ordered(ids[:length].tolist()))
    assert found.finished_BN.any()


def test_a_constraint_that_ends_leaves_the_end_alone():
    # 1 and no more: the end is forced, and no other hypothesis is there.
    one = TokenAutomaton(np.array([0, 1, 0, 0], np.int32), np.array([[-1, 1], [-1, -1]], np.int32),
                         np.array([False, True]))
    found = search(table(23), beam_size=3, num_best=3, constraint=one)
    assert (found.ids_BNT[:, 0, :2] == [1, END]).all() and (found.lengths_BN == [2, 0, 0]).all()


def test_rules_hold_in_groups_too():
    found = search(table(24), beam_size=4, num_best=4, num_groups=2, diversity_penalty=0.5,
                   sampler=Sampler(banned=(0,)), constraint=ORDERED)
    for ids, length in zip(found.ids_BNT.reshape(-1, LENGTH), found.lengths_BN.ravel()):
        assert 0 not in ids[:length].tolist()
