"""How often words stand near each other, for GloVe (Pennington, Socher & Manning 2014, EMNLP, section 4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from purelm.data.word_pairs import WordText

if TYPE_CHECKING:
    import scipy.sparse

# Words whose pairs are counted at once: bounds the memory besides the counts themselves.
_CHUNK = 1 << 20


def count_pairs(text: WordText, vocabulary_size: int, window: int) -> scipy.sparse.csr_matrix:
    """X [V, V] float32: X[i, j] sums 1/d over the times that words i and j stand d <= window words apart.

    Both orders count, so X is symmetric; pairs do not reach over the end of a document.
    """
    import scipy.sparse

    total = scipy.sparse.csr_matrix((vocabulary_size, vocabulary_size), dtype=np.float64)
    document = np.repeat(np.arange(len(text.starts) - 1), np.diff(text.starts))
    for first in range(0, len(text.words), _CHUNK):
        rows, columns, values = [], [], []
        for distance in range(1, window + 1):
            last = min(first + _CHUNK, len(text.words) - distance)
            if last <= first:
                break
            same = document[first:last] == document[first + distance:last + distance]
            rows.append(text.words[first:last][same])
            columns.append(text.words[first + distance:last + distance][same])
            values.append(np.full(int(same.sum()), 1 / distance))
        if rows:
            pairs = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
            total = total + scipy.sparse.coo_matrix(pairs, shape=total.shape).tocsr()
    return (total + total.T).astype(np.float32).tocsr()
