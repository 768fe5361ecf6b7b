"""Word vectors: nearest neighbors, analogies, and how their similarities agree with people's."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from purelm.config import Config
from purelm.data.files import decode_utf8, numbered_lines
from purelm.errors import UserError, did_you_mean
from purelm.evaluation.batches import Progress
from purelm.training.load import LoadedRun
from purelm.training.vectors import trained_vectors

NEIGHBORS = 10
_ROWS = 512


@dataclasses.dataclass(frozen=True, eq=False)
class Vectors:
    """Words, the most frequent first, and their vectors at length 1, float32 [N, D]."""

    words: tuple[str, ...]
    units: np.ndarray

    @functools.cached_property
    def row_of(self) -> dict[str, int]:
        return {word: row for row, word in enumerate(self.words)}

    @functools.cached_property
    def lower_case(self) -> Vectors:
        """The vocabulary in lower case; of several spellings of a word, the most frequent."""
        first: dict[str, int] = {}
        for row, word in enumerate(self.words):
            first.setdefault(word.lower(), row)
        return Vectors(tuple(first), self.units[list(first.values())])

    def row(self, word: str) -> int | None:
        """Of the word as it is, or else in lower case; None where it has no vector."""
        return next((self.row_of[found] for found in (word, word.lower()) if found in self.row_of), None)


def make_vectors(words: Sequence[str], vectors: np.ndarray) -> Vectors:
    """From vectors of any length, such as those of `data.vectors_file.read_vectors`; zero ones stay zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return Vectors(tuple(words), (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32))


def vectors_of(run: LoadedRun) -> Vectors:
    """The words that a run of task word_vectors learned."""
    return make_vectors(*trained_vectors(run.tokenizer, run.params))


def input_format(config: Config) -> str:
    """The format of new rows: a word each."""
    return "text"


def example_of_text(config: Config, text: str) -> dict[str, Any]:
    """What --text means: a word."""
    return {"where": "--text", "text": text}


def predict(run: LoadedRun, examples: Sequence[Mapping[str, Any]], *, batch_size: int,
            progress: Progress | None = None) -> list[dict[str, Any]]:
    """The nearest words of each example's word: `word` and `neighbors`, each with `word` and `similarity` (the cosine).

    Raises:
      UserError: a word that has no vector.
    """
    vectors = vectors_of(run)
    rows = []
    for example in examples:
        word = example["text"].strip()
        row = vectors.row(word)
        if row is None:
            raise UserError(f"{example['where']}: the word {word!r} has no vector{_near(word, vectors)}")
        rows.append(row)
    return [{"word": vectors.words[row], "neighbors": [{"word": word, "similarity": similarity}
                                                       for word, similarity in found]}
            for row, found in zip(rows, nearest(vectors, rows, NEIGHBORS))]


def _near(word: str, vectors: Vectors) -> str:
    near = did_you_mean(word, vectors.words)
    return near if "did you mean" in near else f"; it is none of the {len(vectors.words):,} words that were learned"


def score(run: LoadedRun, examples: Sequence[Mapping[str, Any]],
          predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`words` that have a vector, and `mean_similarity` of the predicted words' nearest neighbors."""
    nearest_similarities = [prediction["neighbors"][0]["similarity"] for prediction in predictions
                            if prediction["neighbors"]]
    mean = float(np.mean(nearest_similarities)) if nearest_similarities else None
    return {"words": len(vectors_of(run).words), "mean_similarity": mean}


def nearest(vectors: Vectors, rows: Sequence[int], count: int) -> list[list[tuple[str, float]]]:
    """For each row the `count` words of highest cosine, itself left out, the highest first."""
    answers = []
    for first in range(0, len(rows), _ROWS):
        some = np.asarray(rows[first:first + _ROWS])
        cosines = vectors.units[some] @ vectors.units.T
        cosines[np.arange(len(some)), some] = -np.inf
        for row in cosines:
            best = np.argpartition(-row, min(count, len(row) - 1))[:count]
            best = best[np.argsort(-row[best], kind="stable")]
            answers.append([(vectors.words[i], float(row[i])) for i in best if np.isfinite(row[i])])
    return answers


def score_file(vectors: Vectors, path: str | os.PathLike[str]) -> dict[str, Any]:
    """`analogies` of a file of four words a line and ": section" lines, or `similarity` of "word word number" lines.

    Raises UserError for a file that is neither, with the line.
    """
    for _, _, data in numbered_lines(os.fspath(path)):
        fields = data.split()
        if fields and not data.startswith(b"#"):
            four = data.startswith(b":") or len(fields) == 4
            return {"analogies": analogies(vectors, path)} if four else {"similarity": similarity(vectors, path)}
    raise UserError(f"{path}: has no question in it; give lines of four words, or of two words and a number")


def score_file_of(run: LoadedRun, path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `score_file` finds for the words of a run, without the name of its kind."""
    (result,) = score_file(vectors_of(run), path).values()
    return result


def analogies(vectors: Vectors, path: str | os.PathLike[str]) -> dict[str, Any]:
    """How often the fourth word is the nearest to b - a + c, of all words but a, b and c (3CosAdd: Mikolov, Yih &
    Zweig 2013, NAACL), over the whole vocabulary, in lower case.

    Args:
      path: word2vec's question file: "a b c d" a line, sections begun by ": name" lines.

    Returns:
      `accuracy`, `correct`, `questions`, `left_out` (questions with a word that has no vector) and the same for each of
      `sections`; an accuracy of no question is None.

    Raises:
      UserError: a line that is not four words; names the line.
    """
    vectors = vectors.lower_case
    sections: dict[str, list[list[int]]] = {}
    left_out: dict[str, int] = {}
    section = "all"
    for number, fields in _fields(path):
        if fields[0].startswith(":"):
            section = " ".join(fields)[1:].strip()
            continue
        if len(fields) != 4:
            raise UserError(f"{path}, line {number}: wants four words, such as 'Athens Greece Oslo Norway', or "
                            f"': section', not {len(fields)}")
        rows = [vectors.row_of[word.lower()] for word in fields if word.lower() in vectors.row_of]
        sections.setdefault(section, [])
        left_out.setdefault(section, 0)
        if len(rows) == 4:
            sections[section].append(rows)
        else:
            left_out[section] += 1
    results = {name: _result(_correct(vectors, np.asarray(rows, np.int64).reshape(-1, 4)), len(rows), left_out[name])
               for name, rows in sections.items()}
    total = _result(*(sum(result[key] for result in results.values()) for key in ("correct", "questions", "left_out")))
    return {**total, "sections": results}


def _result(correct: int, questions: int, left_out: int) -> dict[str, Any]:
    return {"accuracy": correct / questions if questions else None, "correct": correct, "questions": questions,
            "left_out": left_out}


def _correct(vectors: Vectors, questions_Q4: np.ndarray) -> int:
    correct, units = 0, vectors.units
    for first in range(0, len(questions_Q4), _ROWS):
        some = questions_Q4[first:first + _ROWS]
        targets = units[some[:, 1]] - units[some[:, 0]] + units[some[:, 2]]
        cosines = targets @ units.T
        cosines[np.arange(len(some))[:, None], some[:, :3]] = -np.inf
        correct += int((cosines.argmax(-1) == some[:, 3]).sum())
    return correct


def similarity(vectors: Vectors, path: str | os.PathLike[str]) -> dict[str, Any]:
    """Spearman's rank correlation between cosines and people's scores.

    Args:
      path: "word1 word2 score" a line, between spaces, tabs or commas; lines that begin with # are left out.

    Returns:
      `spearman`, `pairs`, and `left_out` (pairs with a word that has no vector); None where fewer than two are left.

    Raises:
      UserError: a line that is not two words and a number; names the line.
    """
    import scipy.stats

    vectors = vectors.lower_case
    cosines, scores, left_out = [], [], 0
    for number, fields in _fields(path, commas=True):
        try:
            first, second, people = fields[0].lower(), fields[1].lower(), float(fields[2])
        except (IndexError, ValueError) as error:
            raise UserError(f"{path}, line {number}: wants two words and a number, such as 'tiger cat 7.35'") from error
        if first in vectors.row_of and second in vectors.row_of:
            cosines.append(float(vectors.units[vectors.row_of[first]] @ vectors.units[vectors.row_of[second]]))
            scores.append(people)
        else:
            left_out += 1
    correlation = float(scipy.stats.spearmanr(cosines, scores).statistic) if len(scores) > 1 else None
    return {"spearman": correlation, "pairs": len(scores), "left_out": left_out}


def _fields(path: str | os.PathLike[str], commas: bool = False) -> Any:
    """(line number, fields) of each line that is neither empty nor a comment."""
    path = os.fspath(path)
    for number, offset, data in numbered_lines(path):
        text = decode_utf8(data, path, line=number, offset=offset)
        fields = (text.replace(",", " ") if commas else text).split()
        if fields and not fields[0].startswith("#"):
            yield number, fields
