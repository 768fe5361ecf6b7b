"""Losses against plain loops, the order of batches, a planted structure, and what comes out of a run."""

from __future__ import annotations

import dataclasses
import functools
import itertools

import jax
import numpy as np
import pytest

from purelm.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainingConfig
from purelm.config.schema import TaskConfig, WordVectorsConfig
from purelm.data.tokenizers import train_tokenizer
from purelm.data.vectors_file import read_vectors, write_vectors
from purelm.errors import UserError
from purelm.evaluation.word_vectors import analogies, make_vectors, nearest, predict, score_file
from purelm.models.word_vectors import is_trained
from purelm.models.word_vectors import word_vectors as vectors_of
from purelm.tasks import word_vectors
from purelm.training.load import LoadedRun
from purelm.training.parallel.single import SingleEngine
from purelm.training.vectors import initial_embeddings, save_vectors, trained_vectors

PLACES, COLORS = ["oslo", "rome", "paris", "cairo"], ["red", "blue", "green", "black"]
TRAVEL, PAINT = ["travel", "visit", "train"], ["paint", "brush", "wall"]
TOPICS = (PLACES + TRAVEL, COLORS + PAINT)


def corpus() -> list[str]:
    """Places stand with travel words, colors with paint words; "once" is rare."""
    random = np.random.default_rng(0)
    lines = ["once upon"]
    for _ in range(400):
        words, others = (PLACES, TRAVEL) if random.random() < 0.5 else (COLORS, PAINT)
        lines.append(" ".join(random.permutation([*random.choice(words, 2, False), *others])))
    return lines


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("corpus") / "text.txt"
    file.write_text("\n".join(corpus()) + "\n", encoding="utf-8")
    return str(file)


def make_config(path: str, method: str = "skip_gram", *, data=None, training=None, **settings) -> Config:
    data = {"path": path, "document": "line", "tokenizer": "words", "tokenizer_vocabulary_size": 100, "cleaning": (),
            "validation_fraction": 0.1, "test_fraction": 0.0} | (data or {})
    settings = {"method": method, "window": 3, "negatives": 4, "minimum_count": 3, "subsample": 1e-2} | settings
    return Config(
        model=ModelConfig(architecture="word_vectors", vocabulary_size=20, context_length=8, width=12),
        task=TaskConfig(name="word_vectors"), data=DataConfig(**data), word_vectors=WordVectorsConfig(**settings),
        optimizer=OptimizerConfig(name="adam", learning_rate=0.02, schedule="constant", warmup="0"),
        training=TrainingConfig(**({"num_steps": 150, "batch_size": 16} | (training or {}))))


@pytest.fixture(scope="module", params=["skip_gram", "cbow", "glove"])
def prepared(request, path):
    config = make_config(path, request.param)
    return config, word_vectors.prepare(config)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def plain_loss(config, params, batch):
    """The formulas, pair by pair."""
    x, y = (np.asarray(params[name]["embedding"], np.float64) for name in ("input", "output"))
    settings, total, weight = config.word_vectors, 0.0, 0
    if settings.method == "glove":
        for i, j, count in zip(*(batch[name].ravel() for name in ("rows", "columns", "counts"))):
            if count:
                error = x[i] @ y[j] + params["input"]["bias"][i] + params["output"]["bias"][j] - np.log(count)
                total += min(count / settings.glove_maximum, 1) ** settings.glove_power * error ** 2
                weight += 1
        return total, weight
    window = settings.window
    for words, left, right, negatives in zip(*(batch[n] for n in ("words", "left", "right", "negatives"))):
        for t in range(len(left)):
            near = [s for s in range(window + t - left[t], window + t + right[t] + 1) if s != window + t]
            center = words[window + t]
            pairs = ([(x[center], words[s]) for s in near] if settings.method == "skip_gram" else
                     [(x[words[near]].mean(0), center)] if near else [])
            for hidden, target in pairs:
                total -= np.log(sigmoid(hidden @ y[target]))
                total -= settings.negatives * np.mean(np.log(sigmoid(-(y[negatives] @ hidden))))
                weight += 1
    return total, weight


@functools.partial(jax.jit, static_argnums=0)
def loss_sums(config, params, batch):
    return word_vectors.loss_sums(config, params, batch, None)


def random_params(config):
    params = word_vectors.initialize(config, jax.random.key(0))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape).astype(np.float32), params)


def test_loss_is_the_formulas(prepared):
    config, data = prepared
    batch, params = next(data.training_batches(config, start_step=0)), random_params(config)
    sums = loss_sums(config, params, batch)
    loss, weight = plain_loss(config, params, batch)
    assert float(sums["weight"]) == weight > 0
    np.testing.assert_allclose([sums["loss"], sums["cross_entropy"]], loss, rtol=1e-4)
    shapes = word_vectors.batch_shapes(config, config.training.batch_size)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == {k: (v.shape, v.dtype) for k, v in shapes.items()}


def test_gradient_is_that_of_the_formulas(prepared):  # finite differences of the plain loops
    config, data = prepared
    batch, params = next(data.training_batches(config, start_step=0)), random_params(config)
    batch = {name: leaf[:2] for name, leaf in batch.items()}
    gradient = jax.jit(jax.grad(lambda p: loss_sums(config, p, batch)["loss"]))(params)
    random = np.random.default_rng(1)
    direction = jax.tree.map(lambda leaf: random.normal(size=leaf.shape), params)

    def end(step):
        moved = jax.tree.map(lambda leaf, way: leaf.astype(np.float64) + step * way, params, direction)
        return plain_loss(config, moved, batch)[0]

    slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: float((np.asarray(g, np.float64) * d).sum()), gradient,
                                             direction)))
    assert slope == pytest.approx((end(1e-5) - end(-1e-5)) / 2e-5, rel=2e-3)


def equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


def test_batches_do_not_depend_on_where_a_run_resumes_nor_on_processes(prepared):
    config, data = prepared
    per_epoch = data.tokens_per_epoch(config) // (config.training.batch_size * config.model.context_length)
    straight = list(itertools.islice(data.training_batches(config, start_step=0), per_epoch + 2))
    resumed = list(itertools.islice(data.training_batches(config, start_step=per_epoch - 1), 3))
    for a, b in zip(straight[per_epoch - 1:], resumed):
        equal(a, b)
    halves = [next(data.training_batches(config, start_step=per_epoch, process_index=i, process_count=2))
              for i in range(2)]
    for name, whole in straight[per_epoch].items():
        np.testing.assert_array_equal(whole[0::2], halves[0][name])
        np.testing.assert_array_equal(whole[1::2], halves[1][name])
    assert any((straight[0][name] != straight[per_epoch][name]).any() for name in straight[0])
    assert "epoch 1 of the training split" in data.locate(config, per_epoch)


def test_an_epoch_of_glove_reads_every_count_once(path):
    config = make_config(path, "glove")
    data = word_vectors.prepare(config)
    per_epoch = data.tokens_per_epoch(config) // (config.training.batch_size * config.model.context_length)
    for start in (0, per_epoch):
        batches = list(itertools.islice(data.training_batches(config, start_step=start), per_epoch))
        real = np.concatenate([batch["counts"].ravel() > 0 for batch in batches])
        pairs = np.concatenate([(batch["rows"] * 100 + batch["columns"]).ravel() for batch in batches])[real]
        assert len(set(pairs.tolist())) == len(pairs) == len(data.rows._entries[2])
    assert set(data.splits) == {"train"}


@pytest.mark.parametrize("method", ["skip_gram", "cbow"])
def test_validation_is_the_same_every_time_and_in_any_batches(path, method):
    config = make_config(path, method)
    data, params = word_vectors.prepare(config), random_params(config)
    sums = []
    for size in (4, 7):
        batches = list(data.evaluation_batches("validation", config, batch_size=size))
        total = [loss_sums(config, params, batch) for batch in batches]
        sums.append([sum(float(part[name]) for part in total) for name in ("loss", "weight")])
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-5)
    assert len(list(data.evaluation_batches("validation", config, batch_size=4, limit=1))) == 1


@pytest.fixture(scope="module")
def trained(prepared):
    config, data = prepared
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocabulary_size=data.vocabulary_size))
    engine = SingleEngine(config, jax.devices())
    state = engine.init(0)
    for _, batch in zip(range(config.training.num_steps), data.training_batches(config, start_step=0)):
        state, sums = engine.train_step(state, batch)
    return config, data, jax.device_get(state.params)


def test_related_words_are_neighbors(trained):  # reddens where negatives or the mask of neighbors are lost
    _, data, params = trained
    vectors = make_vectors(*trained_vectors(data.tokenizer, params))
    for group in TOPICS:
        for word, found in zip(group, nearest(vectors, [vectors.row_of[word] for word in group], 4)):
            assert {other for other, _ in found} <= set(group) - {word}


def test_words_left_out_are_not_written(trained, tmp_path):
    _, data, params = trained
    path = save_vectors(tmp_path, data.tokenizer, params)
    words, vectors = read_vectors(path)
    assert set(words) == {*TOPICS[0], *TOPICS[1]}
    assert "once" in data.tokenizer.words and int(np.asarray(is_trained(params)).sum()) == len(words) == 14
    ids = [int(data.tokenizer.encode(word)[0]) for word in words]
    np.testing.assert_array_equal(vectors, np.asarray(vectors_of(params))[ids])


def test_predictions_are_neighbors(trained):
    config, data, params = trained
    run = LoadedRun.__new__(LoadedRun)
    for name, value in {"config": config, "tokenizer": data.tokenizer, "params": params}.items():
        object.__setattr__(run, name, value)
    answer, = predict(run, [{"where": "x, line 1", "text": "Oslo"}], batch_size=4)
    assert answer["word"] == "oslo" and {n["word"] for n in answer["neighbors"][:4]} <= set(TOPICS[0]) - {"oslo"}
    similarities = [neighbor["similarity"] for neighbor in answer["neighbors"]]
    assert similarities == sorted(similarities, reverse=True) and len(similarities) == 10
    with pytest.raises(UserError, match="x, line 1: the word 'osl' has no vector; did you mean 'oslo'"):
        predict(run, [{"where": "x, line 1", "text": "osl"}], batch_size=4)


def test_what_cannot_be_learned_is_refused(path):
    for changes, message in [({"data": {"tokenizer": "characters"}}, "wants --config.data.tokenizer=words"),
                             ({"minimum_count": 10_000}, "minimum_count=10000: 0 words")]:
        with pytest.raises(UserError, match=message):
            word_vectors.prepare(make_config(path, **changes))


ANALOGY = make_vectors(["King", "man", "woman", "queen", "king", "x"],
                       np.array([[1, 1, 0], [0, 1, 0.1], [0, 0, 1.1], [1, 0, 1], [0, -1, 0], [-1, 0, 0]], np.float32))


def test_analogies(tmp_path):
    file = tmp_path / "questions.txt"
    file.write_text(": family\nman king woman queen\nMan King Woman x\n: none\nman king woman prince\n",
                    encoding="utf-8")
    result = score_file(ANALOGY, file)["analogies"]
    assert result["sections"]["family"] == {"accuracy": 0.5, "correct": 1, "questions": 2, "left_out": 0}
    assert result["sections"]["none"] == {"accuracy": None, "correct": 0, "questions": 0, "left_out": 1}
    assert (result["accuracy"], result["questions"], result["left_out"]) == (0.5, 2, 1)
    file.write_text(": family\nman king woman\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 2: wants four words"):
        analogies(ANALOGY, file)


def test_analogies_and_similarities_are_gensims(tmp_path):
    models = pytest.importorskip("gensim.models")
    random = np.random.default_rng(0)
    words, table = [f"w{i}" for i in range(40)], random.normal(size=(40, 3)).astype(np.float32)
    theirs = models.KeyedVectors(3)
    theirs.add_vectors(words, table)
    questions, pairs = tmp_path / "questions.txt", tmp_path / "pairs.tsv"
    rows = [random.permutation(40)[:3] for _ in range(100)]
    answers = [theirs.most_similar(positive=[words[b], words[c]], negative=[words[a]], topn=1)[0][0]
               if i % 3 else words[i % 40] for i, (a, b, c) in enumerate(rows)]
    questions.write_text(": s\n" + "".join(f"{words[a]} {words[b]} {words[c]} {d}\n"
                                            for (a, b, c), d in zip(rows, answers)), encoding="utf-8")
    pairs.write_text("# people\n" + "".join(f"{words[a]}\t{words[b]}\t{random.random():.3f}\n" for a, b, _ in rows),
                     encoding="utf-8")
    ours = make_vectors(words, table)
    assert analogies(ours, questions)["accuracy"] == pytest.approx(theirs.evaluate_word_analogies(str(questions))[0])
    result = score_file(ours, pairs)["similarity"]
    assert result["spearman"] == pytest.approx(theirs.evaluate_word_pairs(str(pairs))[1].statistic, abs=1e-6)
    pairs.write_text("a b c\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 1: wants two words and a number"):
        score_file(ours, pairs)


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_embeddings_start_from_a_file(tmp_path, kind):
    tokenizer = train_tokenizer(kind, ["the Cat sat on the mat with the Cat and the mat"] * 9, 300, end_of_text=True)
    write_vectors(tmp_path / "v.txt", ["the", "cat", "Cat", "zzz"], np.arange(8, dtype=np.float32).reshape(4, 2))
    config = Config(init_vectors=str(tmp_path / "v.txt"))
    before = np.full((tokenizer.vocabulary_size, 2), -1, np.float32)
    params = {"embedding": {"embedding": before}, "head": {"kernel": before}}
    params, note = initial_embeddings(config, tokenizer, params)
    table = params["embedding"]["embedding"]
    space = "" if kind == "words" else " "
    row = {tokenizer.token_bytes[i].decode("utf-8", "replace"): table[i] for i in range(tokenizer.vocabulary_size)}
    assert row[f"{space}the"].tolist() == [0, 1] and row[f"{space}Cat"].tolist() == [4, 5]
    assert (table == -1).all(-1).sum() == tokenizer.vocabulary_size - 2 and (params["head"]["kernel"] == -1).all()
    assert f"2 of {tokenizer.vocabulary_size} tokens" in note and (before == -1).all()
    for content, message in [("1 3\nthe 1 2 3\n", "config.model.width=3"), ("1 2\nqqq 1 2\n", "none of its 1 words")]:
        (tmp_path / "v.txt").write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=message):
            initial_embeddings(config, tokenizer, params)
