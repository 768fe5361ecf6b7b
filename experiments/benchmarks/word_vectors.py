"""Word vectors: gensim's Word2Vec and ours on one text with the same settings: speed, and what the vectors know."""

from __future__ import annotations

import dataclasses
import pathlib
import statistics
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
METHODS = ("skip_gram", "cbow")
# Words whose neighbors are compared: every tenth of the most frequent, without the first, which stand with all words.
COMPARED = slice(200, 5200, 10)
NEIGHBORS = 10


def measure(path: str, seeds: int, workers: int, epochs: int = 5, questions: str | None = None,
            methods: tuple[str, ...] = METHODS) -> list[dict[str, object]]:
    """A row a program and method: words a second (of the text, over all epochs, no compilation), and over the seeds the
    means of: analogies right, Spearman with people's similarities, and neighbors shared with gensim's.

    Args:
      path: a text, one document a line, or .jsonl.
      seeds: runs of each program, 2 or more: gensim's runs differ from each other, and that is the noise.
      workers: gensim's threads.
      epochs: over the text.
      questions: word2vec's analogy file; None is the one that gensim's package holds.
    """
    from gensim.test.utils import datapath

    questions = questions or datapath("questions-words.txt")
    rows = []
    for method in methods:
        data, config = _prepare(path, method, epochs)
        theirs = [_gensim(data, config, epochs, workers, seed) for seed in range(1, seeds + 1)]
        ours = [_ours(data, config, seed) for seed in range(seeds)]
        peer = statistics.median(seconds for _, seconds in theirs)
        num_words = int(data.vocabulary.counts_V.sum()) * epochs
        for program, runs in (("gensim", theirs), ("purelm", ours)):
            seconds = statistics.median(seconds for _, seconds in runs)
            others = [(a, b) for i, (a, _) in enumerate(runs) for j, (b, _) in enumerate(theirs)
                      if program == "purelm" or i < j]
            rows.append({
                "method": method, "program": program, "words a second": f"{num_words / seconds:,.0f}",
                "over gensim": f"{peer / seconds:.2f}", **_scores([vectors for vectors, _ in runs], questions,
                                                                  datapath("wordsim353.tsv")),
                "neighbors shared with gensim": _spread([_overlap(a, b) for a, b in others])})
    return rows


def _prepare(path: str, method: str, epochs: int):
    """(prepared data, finalized config) of the recipe, on the whole text."""
    import importlib.util

    from purelm.config import finalize, from_flag
    from purelm.tasks import word_vectors

    spec = importlib.util.spec_from_file_location(method, ROOT / f"configs/word_vectors/{method}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = from_flag(module.get_config())
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, path=path, validation_fraction=0.0),
        training=dataclasses.replace(config.training, num_epochs=float(epochs)))
    data = word_vectors.prepare(config)
    return data, finalize(config, vocabulary_size=data.vocabulary_size, tokens_per_epoch=data.tokens_per_epoch(config))


def _gensim(data, config, epochs: int, workers: int, seed: int):
    """(vectors, seconds of training)."""
    from gensim.models import Word2Vec

    from purelm.data.word_pairs import word_text
    from purelm.evaluation.word_vectors import make_vectors

    text, settings = word_text(data.splits["train"], data.vocabulary), config.word_vectors
    words = np.array(data.tokenizer.words, object)
    sentences = [words[text.words[first:last]].tolist() for first, last in zip(text.starts, text.starts[1:])]
    model = Word2Vec(vector_size=config.model.width, window=settings.window, negative=settings.negatives,
                     ns_exponent=settings.negative_power, min_count=settings.minimum_count, sample=settings.subsample,
                     sg=int(settings.method == "skip_gram"), workers=workers, seed=seed)
    model.build_vocab(sentences)
    started = time.perf_counter()
    model.train(sentences, total_examples=len(sentences), epochs=epochs)
    seconds = time.perf_counter() - started
    return make_vectors(model.wv.index_to_key, model.wv.vectors), seconds


def _ours(data, config, seed: int):
    """(vectors, seconds of training, host's work included, after the first step's compilation)."""
    import jax

    from purelm.evaluation.word_vectors import make_vectors
    from purelm.training.parallel import make_engine
    from purelm.training.vectors import trained_vectors

    config = dataclasses.replace(config, seed=seed)
    engine = make_engine(config)
    engine.train_step(engine.init(0), next(data.training_batches(config, start_step=0)))
    state = engine.init(seed)
    jax.block_until_ready(state)
    started = time.perf_counter()
    for _, batch in zip(range(config.training.num_steps), data.training_batches(config, start_step=0)):
        state, _ = engine.train_step(state, batch)
    jax.block_until_ready(state)
    seconds = time.perf_counter() - started
    return make_vectors(*trained_vectors(data.tokenizer, jax.device_get(state.params))), seconds


def _scores(runs: list, questions: str, pairs: str) -> dict[str, str]:
    from purelm.evaluation.word_vectors import analogies, similarity

    return {"analogies right": _spread([analogies(vectors, questions)["accuracy"] for vectors in runs]),
            "WordSim-353 Spearman": _spread([similarity(vectors, pairs)["spearman"] for vectors in runs])}


def _overlap(a, b) -> float:
    """Mean part of the nearest words of the same word that two sets of vectors share."""
    from purelm.evaluation.word_vectors import nearest

    words = [word for word in a.words[COMPARED] if word in b.row_of]
    found = [[{word for word, _ in row} for row in nearest(x, [x.row_of[word] for word in words], NEIGHBORS)]
             for x in (a, b)]
    return float(np.mean([len(one & two) / NEIGHBORS for one, two in zip(*found)]))


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"
