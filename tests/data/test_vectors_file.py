from __future__ import annotations

import gzip
import lzma

import numpy as np
import pytest

from purelm.data.vectors_file import read_vectors, write_vectors
from purelm.errors import UserError

WORDS = ["the", "naïve", "汉字", "don't"]
VECTORS = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32) * 10.0 ** np.arange(-8, 4).reshape(4, 3)


@pytest.mark.parametrize("name", ["v.txt", "v.txt.gz", "v.txt.xz"])
def test_round_trip_is_exact(tmp_path, name):  # reddens with %.6g
    write_vectors(tmp_path / name, WORDS, VECTORS)
    words, vectors = read_vectors(tmp_path / name)
    assert words == WORDS and vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, VECTORS.astype(np.float32))
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_gensim_reads_ours_and_we_read_gensims(tmp_path):
    models = pytest.importorskip("gensim.models")
    write_vectors(tmp_path / "ours.txt", WORDS, VECTORS)
    loaded = models.KeyedVectors.load_word2vec_format(str(tmp_path / "ours.txt"))
    assert loaded.index_to_key == WORDS
    np.testing.assert_array_equal(loaded.vectors, VECTORS.astype(np.float32))
    loaded.save_word2vec_format(str(tmp_path / "theirs.txt"))
    words, vectors = read_vectors(tmp_path / "theirs.txt")
    assert words == WORDS
    np.testing.assert_array_equal(vectors, VECTORS.astype(np.float32))


@pytest.mark.parametrize("content,message", [
    ("", "line 1: wants the number of words"),
    ("the 1 2\ncat 3 4\n", "line 1: wants .* GloVe"),
    ("2 2\nthe 1 2\n", "line 2: the file ends after 1 of 2"),
    ("1 2\nthe 1 2\ncat 3 4\n", "line 3: .*one more"),
    ("2 2\nthe 1 2\ncat 3\n", "line 3: 'cat' has 1 numbers, and the first line says 2"),
    ("1 2\nNew York 1 2\n", "line 2: 'New' has 3 numbers.*no spaces"),
    ("1 2\nthe 1 x2\n", "line 2: 'x2' is no finite number"),
    ("1 2\nthe 1 nan\n", "line 2: 'nan' is no finite number"),
    ("1 2\nthe 1 2e999\n", "line 2: '2e999' is no finite number"),
    (b"1 2\nthe\xff 1 2\n", "line 2"),
    (b"1 2\nthe\x00\x01\n", "binary"),
    (gzip.compress(b"1 2\nthe 1 2\n", mtime=0)[:-9], "truncated"),
    (lzma.compress(b"1 2\nthe 1 2\n")[:-9], "truncated|damaged"),
])
def test_bad_files_are_named_by_line(tmp_path, content, message):
    ending = ".gz" if content[:2] == b"\x1f\x8b" else ".xz" if content[:2] == b"\xfd7" else ""
    path = tmp_path / f"v.txt{ending}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(UserError, match=message) as caught:
        read_vectors(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_of_a_word_twice_the_first_counts_and_trailing_spaces_do_not(tmp_path):
    (tmp_path / "v").write_text("3 2\na 1 2 \nb 3 4\na 5 6\n\n", encoding="utf-8")
    words, vectors = read_vectors(tmp_path / "v")
    assert words == ["a", "b"] and vectors.tolist() == [[1, 2], [3, 4]]


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "v.txt"
    write_vectors(path, WORDS, VECTORS)
    before = path.read_bytes()
    for words, vectors, message in [(["a b"], [[1.0]], "no spaces"), ([""], [[1.0]], "no spaces"),
                                    (["a"], [[np.nan]], "'a' is not finite")]:
        with pytest.raises(UserError, match=message):
            write_vectors(path, words, np.array(vectors))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(UserError, match="cannot be written"):
        write_vectors(tmp_path / "none" / "v.txt", WORDS, VECTORS)
