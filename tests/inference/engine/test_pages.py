"""Pages: nobody's page is given twice, nothing is lost, and what was promised can be had."""

from __future__ import annotations

import numpy as np
import pytest

from purelm.inference.engine.pages import Pages

A, B, C = (1, 1), (2, 2), (3, 3)


def write(pages, lease, chunks):
    """As a prefill does: chunk after chunk, taken where known and else computed."""
    computed = 0
    for number, tokens in enumerate(chunks):
        if number < len(lease.path) or pages.take(lease, number, tokens):
            continue
        computed += 1
        pages.keep(lease, number, tokens)
    return computed


def test_a_known_beginning_is_shared_and_the_rest_is_not():
    pages = Pages(20, 2, reuse=True)
    first = pages.lease(7, [A, B], renewed=False)
    assert write(pages, first, [A, B]) == 2
    second = pages.lease(7, [A, C], renewed=False)
    assert second.pages()[:2] == first.pages()[:2]
    assert not set(second.pages()[2:]) & set(first.pages())
    assert pages.used == 12 and pages.free == 7
    pages.end(first)
    pages.end(second)
    assert (pages.used, pages.cached, pages.free) == (0, 4, 15)


def test_siblings_admitted_together_share_once_the_first_has_written():
    pages = Pages(20, 2, reuse=True)
    first, second = (pages.lease(7, [A, B], renewed=False) for _ in range(2))
    assert write(pages, first, [A, B]) == 2
    assert write(pages, second, [A, B]) == 0
    assert second.pages()[:4] == first.pages()[:4]
    assert pages.used == 10


def test_the_least_lately_used_goes_first_and_a_child_before_its_parent():
    pages = Pages(7, 2, reuse=True)
    for chunks in ([A, B], [C]):
        lease = pages.lease(2 * len(chunks), chunks, renewed=False)
        write(pages, lease, chunks)
        pages.end(lease)
    assert pages.free == 0
    other = pages.lease(2, [(9, 9)], renewed=False)
    known = pages.lease(4, [A, B], renewed=False)
    # B had to go, C and A are still there; the page of B's that is needed again is taken from C.
    assert len(known.path) == 1 and pages.cached == 0
    assert pages.used == 6
    pages.end(other)


def test_without_reuse_nothing_is_kept():
    pages = Pages(9, 2, reuse=False)
    lease = pages.lease(4, [A, B], renewed=False)
    assert write(pages, lease, [A, B]) == 2
    pages.end(lease)
    assert (pages.cached, pages.free) == (0, 8)


@pytest.mark.parametrize("seed", range(6))
def test_a_storm_of_leases_keeps_the_books(seed):
    """Reddens where a promise is forgotten (renew fails), a page is lost, or one is given twice."""
    rng = np.random.default_rng(seed)
    pages, leases, counts = Pages(30, 2, reuse=True), [], {"renewed": 0, "refused": 0, "shared": 0}
    for _ in range(800):
        action = rng.integers(4)
        if action == 0:
            renewed = bool(rng.integers(2))
            chunks = [tuple(rng.integers(0, 2, 2).tolist()) for _ in range(rng.integers(1, 5))]
            size = 2 * len(chunks) + int(rng.integers(1, 4))
            lease = pages.lease(size, chunks, renewed=renewed)
            counts["refused"] += lease is None
            if lease is not None:
                counts["shared"] += bool(lease.path)
                leases.append((lease, chunks))
        elif leases:
            number = int(rng.integers(len(leases)))
            lease, chunks = leases[number]
            if action == 1:
                write(pages, lease, chunks)
            elif action == 2:
                pages.end(lease)
                leases.pop(number)
            elif lease.renewed:
                counts["renewed"] += 1
                chunks = [tuple(rng.integers(0, 2, 2).tolist()) for _ in chunks]
                pages.renew(lease, chunks)
                leases[number] = (lease, chunks)
        held = {}
        for lease, chunks in leases:
            assert len(lease.pages()) == len(set(lease.pages())) == lease.size
            assert [node.tokens for node in lease.path] == chunks[:len(lease.path)]
            for page in lease.own:
                assert held.setdefault(page, lease) is lease
            for node in lease.path:
                for page in node.pages:
                    assert held.setdefault(page, node) is node
        assert pages.used == len(held)
        assert not set(pages.unused()) & set(held) and 0 not in held
        assert pages.free + pages.cached >= pages._promised >= 0
    assert all(counts.values()), counts
    for lease, _ in leases:
        pages.end(lease)
    assert pages._promised == 0 and pages.used == 0
    pages.forget()
    assert sorted(pages.unused()) == list(range(1, 30))
