"""Imported tokenizers against the libraries that they come from: ids and text must be the same, byte for byte."""

from __future__ import annotations

import functools
import pathlib
import unicodedata

import numpy as np
import published_tokenizers as published
import pytest
from published_tokenizers import TEXTS

from purelm.data.tokenizers import load_tokenizer
from purelm.data.tokenizers.importing import import_tokenizer
from purelm.errors import UserError

# Each: what makes the folder, model type, task.
JSON = {
    "gpt2": (published.gpt2, "gpt2", "language_modeling"),
    "llama3": (published.llama3, "llama", "language_modeling"),
    "llama2": (published.llama2, "llama", "language_modeling"),
    "xlm_roberta": (published.xlm_roberta, "xlm-roberta", "classification"),
    "bert": (published.bert, "bert", "classification"),
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """(folder, tokenizer) by the design's name, made once."""
    @functools.cache
    def get(name):
        make, model_type, task = JSON[name]
        folder = make(tmp_path_factory.mktemp(name))
        return folder, import_tokenizer(folder, task, model_type, {})

    return get


def original(folder: pathlib.Path):
    import transformers
    return transformers.AutoTokenizer.from_pretrained(folder, tokenizer_class="PreTrainedTokenizerFast")


def check_as_original(ours, theirs, seed=0):
    """Ids with and without special tokens, text of ids from a text and of any ids."""
    for text in TEXTS:
        expected = theirs.encode(text, add_special_tokens=False)
        assert ours.encode_with_specials(text).tolist() == expected, text
        assert ours.decode(expected) == theirs.decode(expected), text
    random = np.random.default_rng(seed)
    for _ in range(30):
        ids = random.integers(0, ours.vocabulary_size, 12)
        assert ours.decode(ids) == theirs.decode(ids.tolist())


@pytest.mark.parametrize("name", JSON)
def test_ids_and_text_are_transformers(opened, name):
    folder, ours = opened(name)
    theirs = original(folder)
    check_as_original(ours, theirs)
    assert ours.vocabulary_size == len(theirs)
    for text in TEXTS:
        plain = ours.encode(text).tolist()
        # Unigram would take "</s>" for its piece even so; SentencePiece, and we, do not.
        if not (name == "xlm_roberta" and "</s>" in text):
            assert plain == theirs.encode(text, add_special_tokens=False, split_special_tokens=True), text
        assert not (set(plain) - {theirs.unk_token_id}) & ours.special_ids, text


@pytest.mark.parametrize("name", JSON)
def test_token_bytes_put_together_are_the_text(opened, name):
    """What streaming, stop strings and constraints see. Reddens where a decoder's rule is left out."""
    _, ours = opened(name)
    for text in (text for text in TEXTS if text.strip()):
        ids = ours.encode(text).tolist()
        together = b"".join(ours.token_bytes[number] for number in ids).decode("utf-8")
        assert ours.decode(ids) in (together, together[1:] if together.startswith(" ") else together), text
    if name in ("gpt2", "llama3"):
        assert b"".join(ours.token_bytes[number] for number in ours.encode(TEXTS[4])) == TEXTS[4].encode()
    if name == "llama2":
        assert b"\xf0" in [ours.token_bytes[number] for number in ours.encode("\U0001f600").tolist()]


def test_spans_are_places_in_the_text(opened):
    for name in JSON:
        _, ours = opened(name)
        text = "The 世界 return the value"
        spans = ours.spans(text)
        assert spans.shape == (len(ours.encode(text)), 2)
        assert text[spans[-1, 0]:spans[-1, 1]].strip() and spans[-1, 1] == len(text), name
        assert all(start <= stop for start, stop in spans.tolist())


@pytest.mark.parametrize("name", JSON)
def test_a_saved_one_opens_as_it_was(opened, name, tmp_path):
    folder, ours = opened(name)
    ours.save(tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    assert (again.fingerprint, again.settings, type(again)) == (ours.fingerprint, ours.settings, type(ours))
    assert [again.encode(text).tolist() for text in TEXTS] == [ours.encode(text).tolist() for text in TEXTS]
    assert {again.file(name) for name in again.file_names} == {path.read_bytes() for path in folder.iterdir()}


def test_a_changed_file_is_told(opened, tmp_path):
    _, ours = opened("gpt2")
    ours.save(tmp_path / "tokenizer.json")
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace('"end_of_text_id": 500', '"end_of_text_id": 7'))
    with pytest.raises(UserError, match="does not match its own fingerprint"):
        load_tokenizer(tmp_path / "tokenizer.json")


def test_half_a_surrogate_pair_is_refused(opened):
    for name in JSON:
        for encode in (opened(name)[1].encode, opened(name)[1].encode_with_specials, opened(name)[1].spans):
            with pytest.raises(UserError, match="no valid Unicode at character 1"):
                encode("a\ud83d")


def test_an_id_out_of_the_vocabulary_is_refused(opened):
    with pytest.raises(UserError, match="not in the vocabulary"):
        opened("bert")[1].decode([100000])


@pytest.mark.parametrize("lower_case", [True, False])
def test_vocab_txt_is_berts(tmp_path, lower_case):
    import transformers

    folder = published.bert(tmp_path, lower_case=lower_case, json_file=False)
    with (folder / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("\u2028\n##\u2028\n")  # As Chinese BERT has them: reddens where a line keeps its white space.
    ours = import_tokenizer(folder, "classification", "bert", {})
    theirs = transformers.BertTokenizer.from_pretrained(folder, do_lower_case=lower_case)
    check_as_original(ours, theirs)
    spaces = [6, len(theirs) - 2, 7, len(theirs) - 1]
    assert ours.decode(spaces) == theirs.decode(spaces)
    assert (ours.decode(ours.encode("THE")) == "the") == lower_case


@pytest.mark.parametrize("model_type", ["gpt2", "roberta", "qwen2"])
def test_vocab_json_and_merges_are_transformers(tmp_path, model_type):
    import transformers

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if model_type == "roberta" else ["<|endoftext|>"]
    folder = published.merges(tmp_path, special)
    kind = {"gpt2": transformers.GPT2Tokenizer, "roberta": transformers.RobertaTokenizer,
            "qwen2": transformers.Qwen2Tokenizer}[model_type]
    ours = import_tokenizer(folder, "language_modeling", model_type, {})
    theirs = kind.from_pretrained(folder)
    for text in TEXTS:
        expected = theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        assert ours.encode(text).tolist() == expected
        assert ours.decode(expected) == theirs.decode(expected)
    frame = theirs.encode("a"), theirs.encode("a", "b")
    a, b = ours.encode("a").tolist(), ours.encode("b").tolist()
    assert [*ours.special.start, *a, *ours.special.end] == frame[0]
    if model_type == "roberta":
        # The mask takes the space before it.
        assert ours.encode_with_specials("a <mask>").tolist() == [*a, ours.special.mask]
        assert [*ours.special.start, *a, *ours.special.between, *b, *ours.special.end] == frame[1]


def test_sentencepiece_is_its_library(tmp_path):
    """T5's spiece.model: the library's ids, and the sentinels at the top of the vocabulary, the first one last."""
    import sentencepiece
    import transformers

    folder = published.t5(tmp_path)
    ours = import_tokenizer(folder, "span_corruption", "t5", {"decoder_start_token_id": 0})
    library = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    theirs = transformers.T5Tokenizer.from_pretrained(folder)
    size = library.get_piece_size()
    assert ours.vocabulary_size == len(theirs) == size + 100
    for text in TEXTS:
        ids = ours.encode(text).tolist()
        assert ids == library.encode(text)
        assert ours.decode(ids) == theirs.decode(ids)
        if library.unk_id() not in ids:  # The library has a sign of its own for it, transformers its name.
            assert ours.decode(ids) == library.decode(ids)
    assert ours.special.sentinels == tuple(range(size + 99, size - 1, -1)) == tuple(
        theirs.convert_tokens_to_ids([f"<extra_id_{number}>" for number in range(100)]))
    sentence = "the cat <extra_id_0> on the <extra_id_1>"
    assert ours.encode_with_specials(sentence).tolist() == theirs.encode(sentence, add_special_tokens=False)
    assert (ours.special.source_end, ours.special.target_start, ours.special.stop) == ((1,), (0,), (1,))


@pytest.mark.parametrize("legacy", [True, False])
def test_llama_2s_own_model(tmp_path, legacy):
    import sentencepiece

    folder = published.llama2_model(tmp_path, legacy=legacy)
    ours = import_tokenizer(folder, "language_modeling", "llama", {})
    library = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for text in TEXTS:
        ids = ours.encode(text).tolist()
        assert ids == library.encode(text)
        assert ours.decode(ids) == library.decode(ids) == text.replace("▁", " ")
    after = ours.encode_with_specials("<s>quick").tolist()
    assert (library.id_to_piece(after[1])[0] == "▁") == legacy
    assert ours.special.start == (library.bos_id(),) and ours.special.stop == (library.eos_id(),)
    # Bytes that are no UTF-8, after a special token too: a sign for each.
    broken = [library.piece_to_id(f"<0x{byte:02X}>") for byte in (0xF0, 0x9F, 0x41, 0x98)]
    assert ours.decode(broken) == library.decode(broken)
    assert ours.decode([1, *broken]) == "<s>" + library.decode(broken)
    spans = ours.spans("the 世 value")
    assert spans[-1, 1] == len("the 世 value") and len(spans) == len(ours.encode("the 世 value"))


def test_a_piece_that_users_define_is_no_special_token_in_text(tmp_path):
    """Gemma's model has <start_of_turn> as such a piece."""
    (tmp_path / "tokenizer.model").write_bytes(published.sentencepiece_model(
        vocab_size=400, model_type="bpe", byte_fallback=True, user_defined_symbols=["<start_of_turn>"]))
    published.describe(tmp_path, additional_special_tokens=["<start_of_turn>"])
    ours = import_tokenizer(tmp_path, "language_modeling", "gemma", {})
    number = ours.settings.special_tokens["<start_of_turn>"]
    text = "hi <start_of_turn>user"
    assert number not in ours.encode(text) and ours.decode(ours.encode(text)) == text
    assert number in ours.encode_with_specials(text)
    assert len(ours.spans(text)) == len(ours.encode(text))


@pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
def test_marian_has_a_model_for_each_language(tmp_path):
    import transformers

    folder = published.marian(tmp_path)
    ours = import_tokenizer(folder, "sequence_to_sequence", "marian", {"decoder_start_token_id": 5})
    theirs = transformers.MarianTokenizer.from_pretrained(folder)
    different = 0
    for text in [*TEXTS, ">>fra<< return the value"]:
        source = theirs.encode(text, add_special_tokens=False, split_special_tokens=True)
        target = theirs(text_target=text, add_special_tokens=False, split_special_tokens=True).input_ids
        assert ours.encode(text).tolist() == source
        assert ours.encode_targets([text])[0].tolist() == target
        assert ours.encode_with_specials(text).tolist() == theirs.encode(text, add_special_tokens=False)
        assert ours.decode(target) == theirs.decode(target, use_source_tokenizer=False)
        different += source != target
    assert different > 5
    assert ours.decode([0, 7, 8, 0]) == theirs.decode([0, 7, 8, 0], use_source_tokenizer=False)
    assert ours.special.source_end == ours.special.stop == (0,) and ours.special.target_start == (5,)


def test_tiktoken_is_its_library(tmp_path):
    import tiktoken

    from purelm.data.tokenizers.imported_tiktoken import PATTERNS, read_ranks

    folder = published.tiktoken(tmp_path)
    ours = import_tokenizer(folder, "language_modeling", "llama", {"eos_token_id": [501, 509]})
    ranks = read_ranks((folder / "tokenizer.model").read_bytes(), "")
    theirs = tiktoken.Encoding("x", pat_str=PATTERNS["llama3"], mergeable_ranks=ranks,
                               special_tokens=dict(ours.settings.special_tokens))
    for text in TEXTS:
        assert ours.encode(text).tolist() == theirs.encode_ordinary(text)
        assert ours.encode_with_specials(text).tolist() == theirs.encode(text, allowed_special="all")
        assert ours.decode(ours.encode(text)) == text
        spans = ours.spans(text)
        assert len(spans) == len(ours.encode(text)) and (not text or spans[-1, 1] == len(text))
    broken = theirs._encode_bytes(b"ab\xff\xc3(\xe4\xbd")  # What is no UTF-8 has ids, and reads as tiktoken reads it.
    assert ours.decode(broken) == theirs.decode(broken)
    assert ours.special.start == (500,) and ours.special.stop == (501, 509) and ours.end_of_text_id == 501
    assert ours.vocabulary_size == theirs.n_vocab == 756


def test_qwens_tiktoken_composes_characters_first(tmp_path):
    """As its own tokenizer, and its tokenizer.json, has it. Reddens where "normal_form" is left out; the places are
    those of the text as it was given."""
    ours = import_tokenizer(published.tiktoken(tmp_path, "qwen.tiktoken"), "language_modeling", "qwen", {})
    text = "cafe\u0301 <\u0338 a\u0327\u0301b \u1112\u1161\u11ab \u212b \u0958! " + TEXTS[6]
    composed = unicodedata.normalize("NFC", text)
    theirs = ours._encoding.encode_ordinary
    assert ours.encode(text).tolist() == theirs(composed) != theirs(text)
    assert ours.encode_with_specials(text + "<|im_end|>").tolist() == [*ours.encode(text).tolist(), 502]
    assert ours.decode(ours.encode(text)) == composed
    spans, parts = ours.spans(text), [ours.token_bytes[number] for number in ours.encode(text).tolist()]
    assert len(spans) == len(parts) and spans[0, 0] == 0 and spans[-1, 1] == len(text)
    for (start, stop), part in zip(spans.tolist(), parts, strict=True):
        assert part in unicodedata.normalize("NFC", text[start:stop]).encode()
        assert not unicodedata.combining(text[start])


def test_long_texts_are_divided_alike_and_endless_space_is_refused(tmp_path):
    """tiktoken divides long texts in threads, and panics at white space without end, which no `except` catches."""
    ours = import_tokenizer(published.tiktoken(tmp_path), "language_modeling", "llama", {})
    long = " ".join(TEXTS) * 60
    assert [ids.tolist() for ids in ours.encode_batch([long, "a"])] == [ours.encode(long).tolist(), [64]]
    for encode in (ours.encode, ours.encode_with_specials):
        with pytest.raises(UserError, match="more than 900000 characters of white space in a row"):
            encode("a" + " " * 1_000_001 + "b")


def test_patterns_are_the_published_ones(monkeypatch):
    import inspect

    from tiktoken_ext import openai_public
    from transformers.convert_slow_tokenizer import TikTokenConverter
    from transformers.models.qwen2 import tokenization_qwen2

    from purelm.data.tokenizers.imported_tiktoken import PATTERNS, usual_special_tokens

    monkeypatch.setattr(openai_public, "load_tiktoken_bpe", lambda *arguments, **options: {})
    monkeypatch.setattr(openai_public, "data_gym_to_mergeable_bpe_ranks", lambda *arguments, **options: {})
    for name, size in (("gpt2", 50256), ("r50k_base", 50256), ("p50k_base", 50281), ("cl100k_base", 100256),
                       ("o200k_base", 199998)):
        found = getattr(openai_public, name)()
        ours = name.removesuffix("_base")
        assert PATTERNS[ours] == found["pat_str"] and usual_special_tokens(ours, size) == found["special_tokens"]
    assert PATTERNS["llama3"] == inspect.signature(TikTokenConverter).parameters["pattern"].default
    assert PATTERNS["qwen"] == tokenization_qwen2.PRETOKENIZE_REGEX


def test_padding_and_truncation_are_off(tmp_path):
    import tokenizers

    folder = published.gpt2(tmp_path)
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    whole = import_tokenizer(folder, "language_modeling", "gpt2", {}).encode(TEXTS[0]).tolist()
    backend.enable_truncation(5)
    backend.enable_padding(length=1000)
    backend.save(str(folder / "tokenizer.json"))
    ours = import_tokenizer(folder, "language_modeling", "gpt2", {})
    assert ours.encode(TEXTS[0]).tolist() == ours.encode_with_specials(TEXTS[0]).tolist() == whole


def test_words_of_a_sentence(opened):
    """Words have a space between them, which some tokenizers put there themselves, and never two."""
    words = ["the", "cat", "sat"]
    for name in JSON:
        _, ours = opened(name)
        together = [number for ids in ours.encode_words(words) for number in ids.tolist()]
        assert ours.decode(together).strip() == "the cat sat", name
