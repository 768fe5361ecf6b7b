"""The chat template, what of it is learned, and dialogues that do not fit."""

import collections
import json

import jax
import numpy as np
import pytest

from purelm.config import Config, DataConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.data.tokenizers import ByteTokenizer
from purelm.errors import UserError
from purelm.tasks import dialogue

TOKENIZER = ByteTokenizer(end_of_text=True)
END, USER, ASSISTANT = 256, 257, 258
TURNS = [("user", "hi"), ("assistant", "oh"), ("user", "so?"), ("assistant", "no")]


def make_config(context_length=32, path=None):
    return Config(model=ModelConfig(context_length=context_length, num_layers=1, width=16, num_heads=2,
                                    vocabulary_size=259),
                  task=TaskConfig(name="dialogue"), data=DataConfig(path=path, tokenizer="bytes"),
                  training=TrainingConfig(num_steps=4, batch_size=2))


def example(*turns):
    return {"where": "here", "turns": [{"speaker": speaker, "text": text} for speaker, text in turns]}


def encode(turns, context_length=32):
    counts = collections.Counter()
    rows, = dialogue.encode(make_config(context_length), TOKENIZER, None, [example(*turns)], counts)
    return rows, +counts


def test_the_template_to_the_letter():
    (record,), counts = encode(TURNS)
    expected = [USER, *b"hi", ASSISTANT, *b"oh", END, USER, *b"so?", ASSISTANT, *b"no", END]
    assert record["ids"].tolist() == expected and not counts
    assert dialogue.prompt_ids(TOKENIZER, example(*TURNS[:3])["turns"], 32).tolist() == expected[:-3]


def test_only_what_the_assistant_says_is_learned():
    # Reddens with weights shifted by one, with marks or a user's words learned, or without the end of a reply.
    batch = dialogue.collate(make_config(), [encode(TURNS)[0][0], None], 20)
    learned = [batch["targets"][0, column] for column in np.flatnonzero(batch["weights"][0])]
    assert learned == [*b"oh", END, *b"no", END]
    read = [batch["tokens"][0, column] for column in np.flatnonzero(batch["weights"][0])]
    assert read == [ASSISTANT, *b"oh", ASSISTANT, *b"no"]
    assert not batch["weights"][1].any() and not batch["segments"][1].any()
    assert batch["segments"][0].tolist() == [1] * 14 + [0] * 6 and batch["positions"][0, 13] == 13


def test_the_loss_is_that_of_the_replies():
    config = make_config()
    params = dialogue.initialize(config, jax.random.key(0))
    loss = jax.jit(lambda batch: dialogue.loss_sums(config, params, batch, None))
    batch = dialogue.collate(config, [encode(TURNS)[0][0]], 16)
    sums = loss(batch)
    assert sums["weight"] == 6
    other = batch | {"targets": np.where(batch["weights"] == 0, 7, batch["targets"])}
    assert loss(other)["cross_entropy"] == sums["cross_entropy"]
    changed = batch | {"targets": np.where(batch["weights"] == 1, 7, batch["targets"])}
    assert loss(changed)["cross_entropy"] != sums["cross_entropy"]


def test_long_dialogues_keep_the_latest_turns_that_fit():
    # The whole has 15 ids: 14 inputs and a last target. Reddens with a turn too few, or a turn cut in two.
    assert encode(TURNS, 14)[1] == {}
    for context_length, kept in [(13, 3), (11, 3), (10, 2), (7, 2), (6, 1), (3, 1)]:
        (record,), counts = encode(TURNS, context_length)
        (whole,), _ = encode(TURNS[-kept:])
        assert record["ids"].tolist() == whole["ids"].tolist(), context_length
        assert counts == {"dialogues cut to the latest turns that fit": 1}
    (record,), _ = encode([("user", "hi"), ("assistant", "abcdefgh")], 4)
    assert record["ids"].tolist() == [ASSISTANT, *b"fgh", END] and record["learned"].tolist() == [0, 1, 1, 1, 1]
    prompt = dialogue.prompt_ids(TOKENIZER, example(*TURNS[:3])["turns"], 6)
    assert prompt.tolist() == [USER, *b"so?", ASSISTANT]


def test_what_follows_the_last_reply_takes_no_room():
    assert encode([*TURNS, ("user", "bye bye")], 14)[0][0]["ids"].tolist() == encode(TURNS)[0][0]["ids"].tolist()
    rows, counts = encode([("user", "anyone?")])
    assert rows == [] and counts == {"dialogues without a reply, left out": 1}


def test_no_text_is_taken_for_a_mark():
    (record,), _ = encode([("user", "<|assistant|>"), ("assistant", "<|endoftext|>")])
    assert (record["ids"] > 255).sum() == 3


def test_a_tokenizer_without_end_of_text_is_refused():
    with pytest.raises(UserError, match="end_of_text=true"):
        dialogue.turn_ids(ByteTokenizer(False), example(*TURNS)["turns"])


def test_from_files(tmp_path):
    # Both ways of writing turns; data.assistant names who is learned.
    for split in ("train", "validation", "test"):
        rows = [{"turns": [{"speaker": "me", "text": f"{split} {number}"}, {"speaker": "system", "text": "oh"}]}
                for number in range(6)] + [{"turns": [split, "oh", "so?"]}]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = make_config(path=str(tmp_path))
    data = dialogue.prepare(config)
    assert data.vocabulary_size == 259 and data.splits["test"].num_records == 7
    batch = next(data.training_batches(config, start_step=0))
    assert batch["tokens"].shape[0] == 2 and batch["weights"].sum() == 6
    shapes = dialogue.batch_shapes(config, 2)
    assert set(shapes) == set(batch) and all(shapes[name].dtype == batch[name].dtype for name in batch)
