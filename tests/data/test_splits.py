from __future__ import annotations

import pytest

from purelm.data.splits import contiguous_split, hash_split
from purelm.data.store import DocumentStore, assign_pieces


def test_hash_split_depends_on_text_alone_and_has_the_fractions():
    names = [hash_split(f"document {i}", 0.1, 0.2) for i in range(5000)]
    assert names == [hash_split(f"document {i}", 0.1, 0.2) for i in range(5000)]
    assert abs(names.count("validation") / 5000 - 0.1) < 0.02
    assert abs(names.count("test") / 5000 - 0.2) < 0.02
    # Golden: a change of hash would silently move documents between splits of published runs.
    assert [hash_split(f"document {i}", 0.3, 0.3) for i in range(6)] == GOLDEN


GOLDEN = ["train", "train", "test", "test", "train", "validation"]


def test_contiguous_is_nanogpts_cut():  # reddens with round() or ceil() in place of int()
    for total in (1_115_394, 11, 1_000_003):
        pieces = contiguous_split([total], 0.1, 0.0)
        assert pieces["train"] == [(0, 0, int(0.9 * total))]
        assert pieces["validation"] == [(0, int(0.9 * total), total)]
        assert pieces["test"] == []


@pytest.mark.parametrize("fractions", [(0.0, 0.0), (0.3, 0.0), (0.0, 0.3), (0.2, 0.3)])
def test_contiguous_covers_every_character_once_and_in_order(fractions):
    texts = ["abcdefg", "h", "ijklmnopq", "rstuvwxyz"]
    pieces = contiguous_split([len(text) for text in texts], *fractions)
    joined = {name: "".join(texts[p.document][p.start:p.stop] for p in found) for name, found in pieces.items()}
    assert joined["train"] + joined["validation"] + joined["test"] == "".join(texts)
    assert bool(joined["validation"]) == bool(fractions[0]) and bool(joined["test"]) == bool(fractions[1])


@pytest.fixture
def store(tmp_path):
    store = DocumentStore(tmp_path / "documents")
    for number in range(200):
        store.append(f"text {number} \u6c49\U0001f600")
    yield store
    store.close()


def test_store_returns_text_and_slices_by_character(store):
    from purelm.data.splits import Piece
    assert store.text(Piece(7, 0, None)) == "text 7 \u6c49\U0001f600"
    assert store.text(Piece(7, 7, 8)) == "\u6c49"
    assert store.num_characters[7] == 9


def test_files_that_split_are_kept_and_a_missing_validation_is_cut_from_train(store):
    given = ["test"] * 20 + ["train"] * 180
    pieces = assign_pieces(store, given, "hash", 0.2, 0.5)
    assert sorted(piece.document for piece in pieces["test"]) == list(range(20))  # test_fraction takes none of train
    assert 10 < len(pieces["validation"]) < 70
    assert len(pieces["train"]) + len(pieces["validation"]) == 180
    whole = assign_pieces(store, ["validation"] * 20 + ["train"] * 180, "hash", 0.2, 0.5)
    assert len(whole["train"]) == 180 and not whole["test"]


def test_auto_is_contiguous_for_one_document_only(tmp_path, store):
    one = DocumentStore(tmp_path / "one")
    one.append("x" * 100)
    assert assign_pieces(one, [None], "auto", 0.1, 0.1)["validation"] == [(0, 80, 90)]
    assert all(piece.stop is None for piece in assign_pieces(store, [None] * 200, "auto", 0.1, 0.1)["train"])
    one.close()
