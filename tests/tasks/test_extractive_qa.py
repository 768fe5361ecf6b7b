"""Windows, places of answers in any script, the mark on shared words, the loss."""

import collections
import dataclasses

import jax
import numpy as np
import pytest

from purelm.config import Config, DataConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.data.tokenizers import ByteTokenizer, CharacterTokenizer, train_tokenizer
from purelm.data.tokenizers.words import WordTokenizer
from purelm.errors import UserError
from purelm.tasks import extractive_qa as task

ENGLISH = "The tower, built in 1889 by Gustave Eiffel, is 330 metres tall. It stands in Paris near the river."
CHINESE = "埃菲尔铁塔建于1889年，🗼高330米，位于巴黎。设计师是古斯塔夫·埃菲尔。"


def example(context, question, *answers):
    found = [{"text": text, "start": start} for text, start in answers]
    return {"where": "here", "id": "1", "context": context, "question": question, "answers": found}


EXAMPLES = [example(ENGLISH, "Who built the tower?", ("Gustave Eiffel", ENGLISH.index("Gustave"))),
            example(CHINESE, "铁塔位于哪里？", ("巴黎", CHINESE.index("巴黎"))),
            example(CHINESE, "塔🗼有多高？", ("🗼高330米", CHINESE.index("🗼")))]


def make_config(token_types=3, context_length=64, overlap=8):
    model = ModelConfig(architecture="encoder", context_length=context_length, num_layers=1, width=16, num_heads=2,
                        vocabulary_size=300, token_types=token_types)
    return Config(model=model, task=TaskConfig(name="extractive_qa", window_overlap=overlap), data=DataConfig(),
                  training=TrainingConfig(num_steps=2, batch_size=4))


def tokenizers():
    texts = [text for one in EXAMPLES for text in (one["context"], one["question"])]
    trained = [train_tokenizer(kind, texts, size, end_of_text=True)
               for kind, size in (("bpe", 300), ("wordpiece", 520), ("unigram", 280))]
    return [ByteTokenizer(True), CharacterTokenizer.train(texts, True), *trained]


@pytest.mark.parametrize("tokenizer", tokenizers(), ids=lambda tokenizer: tokenizer.kind)
def test_answers_come_back_from_their_tokens_in_any_script(tokenizer):
    # Reddens where offsets count bytes, or half a character is left out.
    config, counts = make_config(overlap=20), collections.Counter()
    rows = task.encode(config, tokenizer, None, EXAMPLES, counts)
    encoded = task.encode_windows(config, tokenizer, EXAMPLES)
    for one, records, (windows, spans) in zip(EXAMPLES, rows, encoded, strict=True):
        answers = 0
        for record, window in zip(records, windows, strict=True):
            if record["start"]:
                answers += 1
                first, last = (record[name] - window.begin + window.first for name in ("start", "end"))
                text = one["context"][spans[first, 0]:spans[last, 1]]
                assert one["answers"][0]["text"] in text and len(text) <= len(one["answers"][0]["text"]) + 3
                if tokenizer.kind in ("bytes", "characters"):
                    assert text == one["answers"][0]["text"]
        assert answers >= 1
    assert counts["windows"] == sum(map(len, rows))


@pytest.mark.parametrize("context_length, overlap", [(64, 8), (40, 0), (256, 64)])
def test_windows_cover_every_token_of_the_paragraph(context_length, overlap):
    # Reddens where the last tokens of a paragraph, or those between windows, are left out.
    config, tokenizer = make_config(context_length=context_length, overlap=overlap), ByteTokenizer(True)
    for one, (windows, spans) in zip(EXAMPLES, task.encode_windows(config, tokenizer, EXAMPLES), strict=True):
        data = one["context"].encode()
        seen = np.zeros(len(spans), int)
        for window in windows:
            tokens = window.record["tokens"]
            assert len(tokens) <= context_length
            part = tokens[window.begin:-1]
            assert bytes(part.astype(np.uint8)) == data[window.first:window.first + len(part)]
            assert tokens[0] == tokens[-1] == tokens[window.begin - 1] == 256
            seen[window.first:window.first + len(part)] += 1
        assert seen.min() == 1 and (len(windows) == 1 or (seen == 2).sum() == overlap * (len(windows) - 1))


def test_a_short_paragraph_is_one_window():
    windows, _ = task.encode_windows(make_config(), ByteTokenizer(True), [example("No.", "Is it?")])[0]
    assert len(windows) == 1


def test_answers_are_repaired_or_left_out_and_counted():
    # Reddens where a wrong offset is believed: cmrc2018 has 205 of them.
    counts = collections.Counter()
    examples = [example("a red fox", "What?", ("red", 5)), example("red, red", "What?", ("red", 1)),
                example("a cat", "What?", ("dog", 0), ("cat", 2))]
    rows = task.encode(make_config(0), ByteTokenizer(True), None, examples, counts)
    record = rows[0][0]
    assert bytes(record["tokens"][record["start"]:record["end"] + 1].astype(np.uint8)) == b"red"
    assert rows[1] == [] and rows[2][0]["start"] > 0
    assert counts["answers moved to where they stand"] == 1
    assert counts["questions left out of training: no answer stands in the paragraph, or not only once"] == 1


def test_an_empty_answer_is_left_out():
    # Reddens where no tokens, or the token around its place, are taken for it.
    empty, counts = [example("ab cd", "q", ("", start)) for start in range(6)], collections.Counter()
    assert not any(task.encode(make_config(), ByteTokenizer(True), None, empty, counts))
    assert counts["questions left out of training: no answer stands in the paragraph, or not only once"] == 6


def test_windows_without_the_whole_answer_point_to_the_start():
    config = make_config(context_length=40, overlap=0)
    one = example("x" * 30 + "answer" + "y" * 30, "?", ("answer", 30))
    for record in task.encode(config, ByteTokenizer(True), None, [one], collections.Counter())[0]:
        inside = bytes(record["tokens"][record["start"]:record["end"] + 1].astype(np.uint8 if record["start"] else int))
        assert (record["start"] == record["end"] == 0) or inside == b"answer"


@pytest.mark.parametrize("question, context, words", [
    ("Who invented the telephone?", "Bell's invention, the Telephone, was inventive.",
     ["invention", "the", "Telephone"]),
    ("When were cities founded?", "The city was founding others; a founder of it.", ["founding", "founder"]),
    ("铁塔在哪里", "塔上有铁，铁塔在巴黎", ["铁塔在"]),
])
def test_shared_words_are_marked(question, context, words):
    # Reddens where parts of words match, capitals do not, or a lone Chinese character does.
    spans = ByteTokenizer(True).spans(context)
    marked = task.shared_tokens(question, context, spans)
    found = b"".join(bytes([byte]) if mark else b" " for byte, mark in zip(context.encode(), marked)).decode()
    assert found.split() == words


@pytest.mark.parametrize("token_types, most", [(0, 0), (2, 1), (3, 2)])
def test_types_of_tokens(token_types, most):
    config = make_config(token_types)
    rows = task.encode(config, ByteTokenizer(True), None, EXAMPLES[:1], collections.Counter())
    types = rows[0][0]["token_types"]
    assert types.max() == most and types[0] == 0
    batch = task.collate(config, [rows[0][0], None], 64)
    assert ("token_types" in batch) == bool(token_types) and list(batch["weights"]) == [1, 0]


def test_tokenizers_that_lose_places_are_refused():
    with pytest.raises(UserError, match="words"):
        task.encode(make_config(), WordTokenizer.train(["a b"], 10, end_of_text=True), None, [], collections.Counter())
    with pytest.raises(UserError, match="end_of_text"):
        task.encode(make_config(), ByteTokenizer(False), None, [], collections.Counter())
    with pytest.raises(UserError, match="window_overlap"):
        task.encode_windows(make_config(overlap=64), ByteTokenizer(True), EXAMPLES)


@pytest.fixture(scope="module")
def batch():
    config = make_config()
    rows = [record for records in task.encode(config, ByteTokenizer(True), None, EXAMPLES, collections.Counter())
            for record in records]
    return task.collate(config, [*rows[:5], None], 64)


def test_loss_is_the_mean_of_pytorchs_at_both_ends(batch):
    # Reddens where padding has probability, the row of padding counts, or start and end are exchanged.
    torch = pytest.importorskip("torch")
    config = make_config()
    params = jax.tree.map(lambda leaf: 5 * leaf, task.initialize(config, jax.random.key(0)))
    sums = task.loss_sums(config, params, batch, None)
    logits = np.asarray(task.logits_of(config, params, batch))
    expected = 0.0
    for row in range(5):
        size = int(batch["segments"][row].sum())
        for kind, name in enumerate(("start", "end")):
            expected += torch.nn.functional.cross_entropy(
                torch.tensor(logits[row, kind, :size]), torch.tensor(int(batch[name][row]))).item() / 2
    np.testing.assert_allclose(sums["loss"], expected, rtol=1e-5)
    assert sums["weight"] == 5
    smoothed = dataclasses.replace(config, training=dataclasses.replace(config.training, label_smoothing=0.1))
    changed = task.loss_sums(smoothed, params, batch, None)
    assert np.isfinite(changed["loss"]) and changed["loss"] != sums["loss"]
    np.testing.assert_allclose(changed["cross_entropy"], sums["loss"], rtol=1e-6)


def test_batches_have_the_announced_shapes(batch):
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == {
        name: (shape.shape, shape.dtype) for name, shape in task.batch_shapes(make_config(), 6).items()}
