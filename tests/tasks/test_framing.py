"""How texts are framed with the special ids of published tokenizers, in every task."""

from __future__ import annotations

import collections
import dataclasses
import itertools

import numpy as np
import pytest
from streams import byte_stream

from purelm import data
from purelm.config import Config, DataConfig, DecodingConfig, ModelConfig, TaskConfig, TrainingConfig
from purelm.data.packing import TokenSplit
from purelm.data.preparation import PreparedData
from purelm.data.tokenizers import ByteTokenizer, SpecialIds
from purelm.data.tokenizers.special import around, document_marks, text_start
from purelm.errors import UserError
from purelm.tasks import (
    classification,
    code_generation,
    dialogue,
    extractive_qa,
    masked_language_modeling,
    sequence_to_sequence,
    span_corruption,
    tagging,
)
from purelm.tasks.noised_windows import NoisedWindows

START, END, MASK, PAD, MORE = 256, 257, 258, 259, 260
BERT = SpecialIds(start=(START,), between=(END,), end=(END,), mask=MASK, pair_type=1)
ROBERTA = SpecialIds(start=(START,), between=(END, END), end=(END,), mask=MASK, pair_type=0)
LLAMA = SpecialIds(start=(START,), stop=(END, MORE), pair_type=0)
GPT2 = SpecialIds(stop=(END,), pair_type=0)
T5 = SpecialIds(between=(END,), end=(END,), source_end=(END,), target_start=(PAD,), stop=(END,),
                sentinels=tuple(range(279, 260, -1)), pair_type=0)
MARIAN = SpecialIds(source_end=(END,), target_start=(PAD,), stop=(END,))
BART = SpecialIds(start=(START,), between=(END, END), end=(END,), source_start=(START,), source_end=(END,),
                  target_start=(END, START), stop=(END,))


class Published(ByteTokenizer):
    """Bytes, and special tokens of their own among 24 ids after them."""

    def __init__(self, special: SpecialIds, end_of_text_id: int | None = None):
        super().__init__(end_of_text=False)
        self._special, self._end_of_text_id = special, end_of_text_id
        self.base_size = 280

    end_of_text_id = property(lambda self: self._end_of_text_id)
    special = property(lambda self: self._special)
    special_ids = property(lambda self: frozenset(range(256, 280)))

    def payload(self):
        return {"special": dataclasses.asdict(self._special), "end_of_text_id": self._end_of_text_id}

    def _base_bytes(self):
        return [*super()._base_bytes(), *(f"<{number}>".encode() for number in range(256, 280))]


def config_of(task, context_length=16, **model):
    model = {"num_layers": 1, "width": 16, "num_heads": 2, "vocabulary_size": 280} | model
    return Config(model=ModelConfig(context_length=context_length, **model), task=TaskConfig(name=task),
                  data=DataConfig(), decoding=DecodingConfig(max_new_tokens=8),
                  training=TrainingConfig(num_steps=1, batch_size=4))


def ids(*parts):
    """Letters as their bytes, ids as they are."""
    return [number for part in parts for number in (part.encode() if isinstance(part, str) else [part])]


@pytest.mark.parametrize("special, tokens, types", [
    # transformers: token_type_ids are 0 to the first [SEP], that one included, and 1 after it.
    (BERT, ids(START, "ab", END, "cd", END), [0, 0, 0, 0, 1, 1, 1]),
    (ROBERTA, ids(START, "ab", END, END, "cd", END), [0] * 8),
    (GPT2, ids("abcd"), [0] * 4),
    (around(START), ids(START, "ab", START, "cd"), [0, 0, 0, 1, 1, 1]),
])
def test_pairs_of_texts(special, tokens, types):
    config = config_of("classification", token_types=2)
    config = dataclasses.replace(config, data=DataConfig(text_pair_field="pair"))
    example = {"text": "ab", "pair": "cd", "label": None}
    (record,), = classification.encode(config, Published(special), (), [example], collections.Counter())
    batch = classification.collate(config, [record, None], 12)
    rest = [0] * (12 - len(tokens))
    assert batch["tokens"].tolist() == [tokens + rest, [0] * 12]
    assert batch["token_types"].tolist() == [types + rest, [0] * 12]
    assert batch["segments"][0].sum() == len(tokens) == classification.length(record)


@pytest.mark.parametrize("special, paired, kept", [
    (BERT, False, 8), (BERT, True, 7), (ROBERTA, True, 6), (GPT2, False, 10), (around(START), True, 8)])
def test_a_row_that_is_cut_keeps_its_frame(special, paired, kept):
    config = config_of("classification", context_length=10)
    config = dataclasses.replace(config, data=DataConfig(text_pair_field="pair" if paired else None))
    example = {"text": "a" * 30, "pair": "b" * 30, "label": None}
    (record,), = classification.encode(config, Published(special), (), [example], collections.Counter())
    row = classification.collate(config, [record], 10)["tokens"][0]
    assert (row < 256).sum() == kept and tuple(row[10 - len(special.end):]) == special.end


def test_words_and_their_tags():
    config, words = config_of("tagging", context_length=8), ["ab", "c", "de", "f"]
    record = tagging.encode(config, Published(BERT), ("O",), [{"tokens": words, "tags": ["O"] * 4}],
                            collections.Counter())[0][0]
    assert record["tokens"].tolist() == ids(START, "ab", " c", " d", END)
    assert record["words"].tolist() == [-1, 0, -1, 1, -1, 2, -1, -1]


@pytest.mark.parametrize("special, tokens", [
    (BERT, ids(START, "who", END, "Al Bo", END)), (ROBERTA, ids(START, "who", END, END, "Al Bo", END)),
    (T5, ids("who", END, "Al Bo", END)), (GPT2, ids("whoAl Bo")),
    (around(START), ids(START, "who", START, "Al Bo", START)),
])
def test_questions_and_paragraphs(special, tokens):
    config = config_of("extractive_qa", token_types=2)
    config = dataclasses.replace(config, task=dataclasses.replace(config.task, window_overlap=2))
    example = {"id": "0", "question": "who", "context": "Al Bo", "where": "",
               "answers": [{"text": "Bo", "start": 3}]}
    record, = extractive_qa.encode(config, Published(special), None, [example], collections.Counter())[0]
    assert record["tokens"].tolist() == tokens
    assert bytes(record["tokens"][record["start"]:record["end"] + 1].tolist()) == b"Bo"
    paragraph = len(tokens) - 5 - len(special.paragraph_end)
    types = [0] * paragraph + [int(special.pair_type)] * (len(tokens) - paragraph)
    assert record["token_types"].tolist() == types


def test_windows_of_a_paragraph_fill_the_context():
    config = config_of("extractive_qa")
    config = dataclasses.replace(config, task=dataclasses.replace(config.task, window_overlap=2))
    example = {"id": "0", "question": "q", "context": "x" * 40, "where": "", "answers": None}
    for special, room in ((ROBERTA, 11), (GPT2, 15)):
        (windows, _), = extractive_qa.encode_windows(config, Published(special), [example])
        assert [window.stop - window.begin for window in windows[:-1]] == [room] * (len(windows) - 1)
        assert all(len(window.record["tokens"]) == 16 for window in windows[:-1])


@pytest.mark.parametrize("special, source, tokens, targets", [
    # transformers' labels are the targets, and shift_tokens_right makes the tokens of them.
    (BART, ids(START, "ab", END), ids(END, START, "xy"), ids(START, "xy", END)),
    (T5, ids("ab", END), ids(PAD, "xy"), ids("xy", END)),
    (MARIAN, ids("ab", END), ids(PAD, "xy"), ids("xy", END)),
    (around(END), ids("ab", END), ids(END, "xy"), ids("xy", END)),
])
def test_sources_and_targets(special, source, tokens, targets):
    config = config_of("sequence_to_sequence", architecture="encoder_decoder")
    example = {"source": "ab", "targets": ["xy"], "where": ""}
    (record,), = sequence_to_sequence.encode(config, Published(special), None, [example], collections.Counter())
    batch = sequence_to_sequence.collate(config, [record], 8)
    for name, row in (("source", source), ("tokens", tokens), ("targets", targets)):
        assert batch[name][0].tolist() == row + [0] * (8 - len(row))
    assert batch["weights"][0].sum() == len(targets) and batch["source_segments"][0].sum() == len(source)
    assert sequence_to_sequence.record_length(config, record) == max(len(source), len(targets))


def test_long_sources_and_targets_keep_to_their_rooms():
    config = config_of("sequence_to_sequence", architecture="encoder_decoder")
    example = {"source": "a" * 40, "targets": ["x" * 40], "where": ""}
    (record,), = sequence_to_sequence.encode(config, Published(BART), None, [example], collections.Counter())
    batch = sequence_to_sequence.collate(config, [record], 16)
    assert batch["source"][0].tolist() == ids(START, "a" * 14, END)
    assert batch["targets"][0].tolist() == ids(START, "x" * 7)


@pytest.mark.parametrize("special, start, end", [
    (dataclasses.replace(LLAMA, source_start=(START,), source_end=(MORE,)), [START], MORE), (GPT2, [], END)])
def test_a_decoder_reads_the_source_and_goes_on(special, start, end):
    config = config_of("sequence_to_sequence")
    example = {"source": "ab", "targets": ["xy"], "where": ""}
    (record,), = sequence_to_sequence.encode(config, Published(special), None, [example], collections.Counter())
    batch = sequence_to_sequence.collate(config, [record], 8)
    tokens, before = ids(*start, "ab", end, "xy"), len(start) + 2
    assert batch["tokens"][0].tolist() == tokens + [0] * (8 - len(tokens))
    assert batch["weights"][0].tolist() == [0] * before + [1] * 3 + [0] * (5 - before)


def stream_of(tokenizer):
    """Windows of random letters, each document as it stands in a stream."""
    before, after = document_marks(tokenizer)
    rng = np.random.default_rng(0)
    tokens = [number for _ in range(40) for number in (*before, *rng.integers(97, 123, 20).tolist(), *after)]
    size = len(tokens) // 40
    split = TokenSplit("train", np.array(tokens, np.uint16), np.arange(40) * size, 800, 40)
    return PreparedData(tokenizer, {"train": split}, {}, 16)


def test_masks_are_the_tokenizers_own():
    config, tokenizer = config_of("masked_language_modeling", architecture="encoder"), Published(BERT)
    windows = NoisedWindows(stream_of(tokenizer), masked_language_modeling.masked, num_specials=0, purpose=1,
                            window_length=lambda config: config.model.context_length)
    assert masked_language_modeling.mask_id(tokenizer) == MASK and windows.vocabulary_size == 280
    for batch in itertools.islice(windows.training_batches(config, start_step=0), 8):
        assert (batch["targets"][batch["weights"] > 0] < 256).all() and (batch["tokens"] == MASK).any()
        assert (batch["tokens"] == START).any() and (batch["tokens"] == END).any()


def test_masked_data_needs_no_more_ids(tmp_path, monkeypatch):
    monkeypatch.setenv("PURELM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "text.txt").write_text("a text of some words\n" * 50, encoding="utf-8")
    config = config_of("masked_language_modeling", architecture="encoder")
    config = dataclasses.replace(config, data=DataConfig(path=str(tmp_path / "text.txt")))
    for special, count in ((BERT, 280), (around(START), 281)):
        prepared = masked_language_modeling.prepare(config, tokenizer=Published(special))
        assert prepared.vocabulary_size == count
        tokens = prepared.splits["train"].tokens
        assert tokens[0] == START and tokens[-1] == (END if special is BERT else START)


def test_spans_are_t5s():
    config, tokenizer = config_of("span_corruption", 24, architecture="encoder_decoder"), Published(T5)
    found = span_corruption.sizes(config)
    windows = NoisedWindows(stream_of(tokenizer), span_corruption.corrupted, num_specials=0, purpose=2,
                            window_length=lambda config: found.window)
    batch = next(iter(windows.training_batches(config, start_step=0)))
    sentinels = list(T5.sentinels[:found.spans])
    for source, tokens, targets in zip(batch["source"], batch["tokens"], batch["targets"]):
        assert [number for number in source if number > 260] == sentinels == [n for n in targets if n > 260]
        assert source[-1] == targets[-1] == END and tokens[0] == PAD
        assert tokens[1:].tolist() == targets[:-1].tolist() and targets[0] == sentinels[0]
    assert span_corruption.sentinel_ids(byte_stream().tokenizer, 2).tolist() == [257, 258]
    with pytest.raises(UserError, match="19 sentinels"):
        span_corruption.sentinel_ids(tokenizer, 20)
    with pytest.raises(UserError, match="1 before a source"):
        span_corruption.sentinel_ids(Published(BART), 2)


@pytest.mark.parametrize("special, end_of_text_id, marks, start", [
    (LLAMA, None, ((START,), ()), (START,)), (LLAMA, END, ((START,), (END,)), (START,)),
    (GPT2, END, ((END,), ()), (END,)), (BERT, END, ((START,), (END,)), (START,)), (T5, END, ((), (END,)), (END,)),
    (around(START), START, ((START,), ()), (START,)), (around(None), None, ((), ()), ())])
def test_documents(tmp_path, monkeypatch, special, end_of_text_id, marks, start):
    tokenizer = Published(special, end_of_text_id)
    assert document_marks(tokenizer) == marks and text_start(tokenizer) == start
    monkeypatch.setenv("PURELM_CACHE", str(tmp_path / "cache"))
    (tmp_path / "rows.jsonl").write_text('{"text": "abc"}\n{"text": "de"}\n' * 20, encoding="utf-8")
    config = config_of("language_modeling")
    config = dataclasses.replace(config, data=DataConfig(path=str(tmp_path / "rows.jsonl"), validation_fraction=0.0,
                                                         test_fraction=0.0, cleaning=()))
    if not any(marks):
        with pytest.raises(UserError, match="end_of_text"):
            data.prepare(config, tokenizer=tokenizer)
        return
    split = data.prepare(config, tokenizer=tokenizer).splits["train"]
    row = ids(*marks[0], "abc", *marks[1], *marks[0], "de", *marks[1])
    assert split.tokens.tolist() == row * 20 + ([] if marks[1] else list(marks[0]))


def test_prompts_of_programs_and_replies():
    assert code_generation.prompt_ids(Published(LLAMA), "ab ").tolist() == ids(START, "ab")
    assert code_generation.prompt_ids(Published(GPT2, END), "ab").tolist() == ids("ab")
    turns = [{"speaker": "user", "text": "ab"}, {"speaker": "assistant", "text": "c"}]
    assert [turn.tolist() for turn in dialogue.turn_ids(Published(LLAMA), turns)] == [ids(280, "ab"),
                                                                                      ids(281, "c", END)]


@pytest.mark.parametrize("encode, word", [
    (lambda: classification.encode(config_of("classification"), ByteTokenizer(False), (), [], None), "classification"),
    (lambda: tagging.encode(config_of("tagging"), ByteTokenizer(False), (), [], None), "tagging"),
    (lambda: dialogue.turn_ids(Published(BERT), []), "dialogue"),
    (lambda: sequence_to_sequence.encode_sources(config_of("sequence_to_sequence"), Published(BERT), []), "closes"),
])
def test_a_tokenizer_without_what_a_task_needs(encode, word):
    with pytest.raises(UserError, match=word):
        encode()
