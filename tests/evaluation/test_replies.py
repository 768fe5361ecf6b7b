"""Replies: each after what was really said, as it would be alone; their scores and baselines; and texts continued."""

import functools
import json
import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from purelm.config import Config, DecodingConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.data.tokenizers import ByteTokenizer
from purelm.evaluation import dialogue, language_modeling
from purelm.evaluation.baselines.dialogue import baseline
from purelm.evaluation.continuations import continue_prompts
from purelm.inference import Sampler, generate
from purelm.tasks import dialogue as task

TOKENIZER = ByteTokenizer(end_of_text=True)


def example(*turns):
    return {"where": "here", "turns": [{"speaker": speaker, "text": text} for speaker, text in turns]}


EXAMPLES = [example(("user", "hi"), ("assistant", "oh"), ("user", "so?"), ("assistant", "no")),
            example(("user", "when?")), example(("assistant", "hello"), ("user", "bye"))]
ASKED = [(0, 1), (0, 3), (1, 1), (2, 0), (2, 2)]


@pytest.fixture(scope="module")
def run():
    config = Config(model=ModelConfig(context_length=32, num_layers=1, width=16, num_heads=2, vocabulary_size=259),
                    task=TaskConfig(name="dialogue"), decoding=DecodingConfig(max_new_tokens=8),
                    training=TrainingConfig(num_steps=4, batch_size=2))
    params = task.initialize(config, jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(1), leaf.shape), params)
    return SimpleNamespace(config=config, tokenizer=TOKENIZER, params=params, labels=None)


@pytest.fixture(scope="module")
def predictions(run):
    return dialogue.predict(run, EXAMPLES, batch_size=2)


def test_which_turns_are_answered():
    assert [dialogue.replies_wanted(one["turns"]) for one in EXAMPLES] == [[1, 3], [1], [0, 2]]


def test_every_reply_follows_what_was_really_said(run, predictions):
    # Reddens where a batch's rows are exchanged, or a written reply stands in the history of the next.
    found = [(number, reply["turn"]) for number, one in enumerate(predictions) for reply in one["replies"]]
    assert found == ASKED
    for number, turn in ASKED:
        prompt = task.prompt_ids(TOKENIZER, EXAMPLES[number]["turns"][:turn], 25)
        alone = generate(run.config.model, run.params, prompt[None], max_new_tokens=8, sampler=Sampler(0.0),
                         key=jax.random.key(0), stop_id=256)
        ids = alone.ids_BT[0, :alone.lengths_B[0] - alone.stopped_B[0]]
        reply = next(reply for reply in predictions[number]["replies"] if reply["turn"] == turn)
        assert reply["text"] == TOKENIZER.decode(ids[ids < 257]).strip() and reply["ended"] == alone.stopped_B[0]
        assert reply["log_probability"] == pytest.approx(float(alone.log_probabilities_B[0]), rel=1e-4)
    last = predictions[0]["replies"][-1]
    assert predictions[0]["text"] == last["text"]
    assert predictions[0]["probability"] == pytest.approx(math.exp(last["log_probability"]))
    json.dumps(predictions)
    assert dialogue.reply(run, EXAMPLES[1]["turns"], seed=3) == predictions[1]["text"]
    assert dialogue.example_of_text(run.config, "when?")["turns"] == EXAMPLES[1]["turns"]


def test_score_takes_the_replies_that_were_given(run, predictions):
    replies = [[dict(reply, text=text) for reply, text in zip(one["replies"], texts)]
               for one, texts in zip(predictions, [["oh", "yes"], ["x"], ["hello", "y"]])]
    result = dialogue.score(run, EXAMPLES, [{"replies": one} for one in replies])
    assert result["replies"] == 3 and result["exact"] == pytest.approx(2 / 3)
    from sacrebleu import corpus_bleu, corpus_chrf
    assert result["bleu"] == corpus_bleu(["oh", "yes", "hello"], [["oh", "no", "hello"]]).score
    assert result["chrf"] == corpus_chrf(["oh", "yes", "hello"], [["oh", "no", "hello"]]).score


def test_distinct_words_and_pairs():
    texts = [["a", "b", "a", "b"], ["a"], []]
    assert dialogue.distinct(texts, 1) == 2 / 5 and dialogue.distinct(texts, 2) == 2 / 3
    assert dialogue.distinct([[]], 1) == 0


def test_the_baselines(run):
    train = [example(("user", "where is it"), ("assistant", "in the town")),
             example(("user", "what is the time"), ("assistant", "it is late now")),
             example(("user", "good bye"), ("assistant", "have a nice day")),
             example(("user", "thanks a lot"), ("assistant", "have a nice day"))]
    test = [example(("user", "thanks"), ("assistant", "have a nice day")),
            example(("user", "say what time"), ("assistant", "it is late now"))]
    result = baseline({"train": train, "test": test}, run.config)
    assert result["most_frequent"]["reply"] == "have a nice day" and result["most_frequent"]["exact"] == 0.5
    assert result["nearest"]["exact"] == 1 and result["nearest"]["bleu"] == pytest.approx(100)


def test_many_prompts_come_back_in_order_whatever_the_batch(run):
    prompts = [np.arange(length) + 60 for length in (5, 1, 9, 3, 2)]
    options = {"max_new_tokens": 4, "sampler": Sampler(1.0), "seed": 5, "stop_id": 256, "vocabulary_size": 259}
    write = functools.partial(continue_prompts, run.config.model, run.params, prompts, **options)
    lines = []
    one, two = write(batch_size=1), write(batch_size=2, progress=lines.append)
    assert [row.ids_T.tolist() for row in one] == [row.ids_T.tolist() for row in two] and lines


def test_a_language_model_goes_on(run):
    texts = [language_modeling.example_of_text(run.config, text) for text in ("abc", "abcdef", "abc")]
    found = language_modeling.predict(run, texts, batch_size=2)
    assert found[0] == found[2] and found[0]["text"] != found[1]["text"]
    assert found[0]["probability"] == pytest.approx(math.exp(found[0]["log_probability"])) and "ended" in found[0]
    assert language_modeling.score(run, texts, found) == {}
