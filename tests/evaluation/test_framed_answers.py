"""What models answer where texts are framed with the special ids of published tokenizers."""

from __future__ import annotations

import dataclasses
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.config import Config, DataConfig, DecodingConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.data.tokenizers import ByteTokenizer, SpecialIds
from purelm.errors import UserError
from purelm.evaluation import masked_language_modeling, span_corruption
from purelm.inference import encode_prompt
from purelm.inference.chat_prompts import chat_prompt
from purelm.inference.prompts import plain_text, text_begins
from purelm.inference.sequence_to_sequence import answer
from purelm.inference.writing import Wish, automata_of
from purelm.models import make_model
from purelm.tasks import sequence_to_sequence
from purelm.tasks.span_corruption import sizes

START, END, MASK, PAD = 256, 257, 258, 259
BERT = SpecialIds(start=(START,), between=(END,), end=(END,), mask=MASK)
BART = SpecialIds(source_start=(START,), source_end=(END,), target_start=(END, START), stop=(END, 97))
T5 = SpecialIds(source_end=(END,), target_start=(PAD,), stop=(END,), sentinels=(263, 262, 261, 260))


class Published(ByteTokenizer):
    """Bytes, and 8 special tokens, "<256>" and so on; a chat template that takes no system message."""

    vocabulary_size = base_size = 264
    special_ids = frozenset(range(256, 264))
    chat_template = ("{% for message in messages %}{% if message.role == 'tool' %}{{ raise_exception('no tools') }}"
                     "{% endif %}<256>{{ message.content }}{% endfor %}<258>")

    def __init__(self, special):
        super().__init__(end_of_text=False)
        self._special = special

    special = property(lambda self: self._special)

    def _base_bytes(self):
        return [*super()._base_bytes(), *(f"<{number}>".encode() for number in range(256, 264))]

    def encode_with_specials(self, text):
        parts = re.split(r"<(\d+)>", text)
        return np.concatenate([np.array([int(part)]) if place % 2 else self.encode(part)
                               for place, part in enumerate(parts)]).astype(np.int32)


def run_of(task, special, **model):
    model = {"context_length": 16, "num_layers": 1, "width": 8, "num_heads": 2, "vocabulary_size": 264} | model
    config = Config(model=ModelConfig(**model), task=TaskConfig(name=task), data=DataConfig(),
                    decoding=DecodingConfig(max_new_tokens=6), training=TrainingConfig(num_steps=1, batch_size=2))
    return types.SimpleNamespace(config=config, tokenizer=Published(special))


def test_masked_texts_are_framed_and_either_mark_is_understood():
    # Reddens where the frame is left out, hidden itself, or the mark is an id of ours.
    run = run_of("masked_language_modeling", BERT, architecture="encoder")
    frame = masked_language_modeling._frame(run)
    for text in ("a [MASK]b", "a <258>b"):
        row = masked_language_modeling._row(run, {"text": text, "where": ""})
        assert row.tolist() == [START, 97, 32, MASK, 98, END] and frame.places(row).tolist() == [1, 2, 3, 4]
    logs = np.log(np.arange(1, 265) / (132.5 * 264))
    found = masked_language_modeling._filled(run, row, np.array([3]), [logs[::-1]], frame)
    assert found["text"] == "a \0b" and found["fills"][0][0][0] == "\0"
    with pytest.raises(UserError, match="do not fit"):
        masked_language_modeling._row(run, {"text": "a" * 15, "where": ""})


def test_gaps_are_t5s_sentinels(monkeypatch):
    # Reddens where sentinels are ours, or go up.
    run = run_of("span_corruption", T5, architecture="encoder_decoder", context_length=40)
    assert sizes(run.config).spans == 2
    asked = {}

    def given(config, params, sources, **options):
        asked.update(options, sources=sources)
        return [types.SimpleNamespace(ids_T=np.array([263, 120, 262, 121, 122]), log_probability=0.0)]

    monkeypatch.setattr(span_corruption, "answer", given)
    run.params = None
    found = span_corruption.predict(run, [{"text": "a[MASK]b[MASK]", "where": ""}], batch_size=1)[0]
    assert asked["sources"][0].tolist() == [97, 263, 98, 262] and asked["vocabulary_size"] == 264
    assert asked["special"] is T5 and found["fills"] == ["x", "yz"] and found["text"] == "axbyz"


@pytest.mark.parametrize("beam_size", [1, 2])
def test_targets_begin_as_barts(beam_size):
    # Against the full forward. Reddens where the forced start is written, left out, or one of two ends is not known.
    run = run_of("sequence_to_sequence", BART, architecture="encoder_decoder", positions="learned")
    config = dataclasses.replace(run.config, decoding=dataclasses.replace(run.config.decoding, beam_size=beam_size))
    params = sequence_to_sequence.initialize(config, jax.random.key(0))
    params = jax.tree.map(lambda leaf: leaf + 0.8 * jax.random.normal(jax.random.key(1), leaf.shape), params)
    sources = [np.array(list(text.encode()), np.int32) for text in ("abc", "z", "hello you", "9 of 10")]
    found = answer(config, params, sources, batch_size=4, special=BART, vocabulary_size=264)
    source_BS = np.zeros((4, 16), np.int32)
    for row, source in enumerate(sources):
        source_BS[row, :len(source) + 2] = [START, *source, END]

    @jax.jit
    def log_probabilities(source_BS, tokens_BT):
        model = make_model(config.model)
        encoded = model.apply({"params": params}, source_BS, source_segments_BS=(source_BS > 0).astype(jnp.int32),
                              method="encode")
        return jax.nn.log_softmax(model.apply({"params": params}, tokens_BT, encoded=encoded).logits_BTV)

    for row, one in enumerate(found):
        assert len(one.ids_T) == 5 or one.finished
        tokens = np.zeros((1, 8), np.int32)
        tokens[0, :2 + len(one.ids_T)] = [END, START, *one.ids_T]
        log_TV = np.asarray(log_probabilities(source_BS[row:row + 1], tokens))[0, 1:]
        total = sum(log_TV[place, token] for place, token in enumerate(one.ids_T.tolist()))
        ends = log_TV[len(one.ids_T)]
        if beam_size == 1:
            assert one.ids_T.tolist() == log_TV[:len(one.ids_T)].argmax(-1).tolist()
            total += ends.max() if one.finished else 0
            np.testing.assert_allclose(one.log_probability, total, atol=1e-3)
        else:
            assert any(abs(one.log_probability - total - end) < 1e-3 for end in (
                (ends[END], ends[97]) if one.finished else (0.0,)))


def test_prompts_begin_as_the_tokenizer_has_it():
    llama, gpt2 = Published(SpecialIds(start=(START,), stop=(END,))), Published(SpecialIds(stop=(END,)))
    assert encode_prompt(llama, "ab").tolist() == [START, 97, 98] and encode_prompt(gpt2, "ab").tolist() == [97, 98]
    assert encode_prompt(llama, "").tolist() == [START] and text_begins(llama, [START, 97]) == 1
    assert text_begins(gpt2, [97]) == 0 == text_begins(llama, [97])
    with pytest.raises(UserError, match="empty"):
        encode_prompt(gpt2, "")
    assert plain_text(llama, np.array([97, PAD, 98])) == "ab"
    # Reddens where the text of a special token would fulfill a pattern.
    _, constraint = automata_of(llama, Wish(1, regex="<256>"))
    assert constraint.next_QC[0, constraint.classes_V[256]] < 0 <= constraint.next_QC[0, constraint.classes_V[ord("<")]]


def test_chats_that_are_too_long_lose_their_earliest_turns():
    tokenizer = Published(SpecialIds(stop=(END,)))
    messages = [{"role": role, "content": content} for role, content in (
        ("system", "S"), ("user", "aaaa"), ("assistant", "bb"), ("user", "c"))]
    whole = [START, 83, START, 97, 97, 97, 97, START, 98, 98, START, 99, MASK]
    assert chat_prompt(tokenizer, messages, 13).tolist() == whole
    for room in (12, 1):
        assert chat_prompt(tokenizer, messages, room).tolist() == [START, 83, START, 99, MASK]
    with pytest.raises(UserError, match="no tools"):
        chat_prompt(tokenizer, [{"role": "tool", "content": ""}], 10)
