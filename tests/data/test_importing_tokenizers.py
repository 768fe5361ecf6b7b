"""Which of a checkpoint's files are read, what stands around texts, and what is said of files that will not do."""

from __future__ import annotations

import json

import published_tokenizers as published
import pytest

from purelm.data.tokenizers.importing import import_tokenizer
from purelm.data.tokenizers.special import SpecialIds
from purelm.errors import UserError


def test_an_encoders_row(tmp_path):
    ours = import_tokenizer(published.bert(tmp_path), "classification", "bert", {"type_vocab_size": 2})
    assert ours.special == SpecialIds(start=(2,), between=(3,), end=(3,), source_start=(2,), source_end=(3,), mask=4,
                                      pair_type=1)
    assert ours.end_of_text_id == 3 and ours.chat_template is None
    distilled = import_tokenizer(tmp_path, "classification", "distilbert", {})
    assert distilled.special.pair_type == 0


def test_xlm_roberta_has_two_marks_between_texts_and_one_type(tmp_path):
    ours = import_tokenizer(published.xlm_roberta(tmp_path), "masked_language_modeling", "xlm-roberta",
                            {"type_vocab_size": 1, "eos_token_id": 2})
    special = ours.special
    assert (special.start, special.between, special.end, special.mask) == ((0,), (2, 2), (2,), 4)
    assert special.pair_type == 0 and special.stop == ()


def test_a_decoder_starts_with_its_post_processors_token_and_ends_with_any_of_its_ends(tmp_path):
    ours = import_tokenizer(published.llama3(tmp_path), "language_modeling", "llama", {"eos_token_id": [501, 504, 7]})
    names = ours.settings.special_tokens
    assert ours.special.start == (names["<|begin_of_text|>"],) and ours.special.end == ()
    # The tokenizer's own end comes first: it closes an answer.
    assert ours.special.stop == (names["<|eot_id|>"], *(n for n in (501, 504, 7) if n != names["<|eot_id|>"]))
    assert ours.end_of_text_id == names["<|end_of_text|>"]
    assert ours.named_tokens["bos_token"] == "<|begin_of_text|>"


def test_tokenizer_config_overrules_the_post_processor(tmp_path):
    """As transformers has it. Reddens where add_bos_token is not read."""
    ours = import_tokenizer(published.llama3(tmp_path, add_bos_token=False, add_eos_token=True), "language_modeling",
                            "llama", {})
    assert ours.special.start == () and ours.special.end == (ours.settings.special_tokens["<|eot_id|>"],)


def test_gpt2_has_nothing_around(tmp_path):
    ours = import_tokenizer(published.gpt2(tmp_path), "language_modeling", "gpt2", {"eos_token_id": 500})
    assert ours.special.start == ours.special.end == () and ours.special.stop == (500,) == ours.special.between
    assert ours.special.pair_type == 0


def test_opts_text_starts_with_the_end_of_another(tmp_path):
    folder = published.merges(tmp_path, ["<s>", "<pad>", "</s>", "<unk>"], add_bos_token=True, bos_token="</s>",
                              eos_token="</s>")
    assert import_tokenizer(folder, "language_modeling", "opt", {}).special.start == (2,)


@pytest.mark.parametrize("forced", [{}, {"forced_bos_token_id": 0}])
def test_barts_target_starts_with_two(tmp_path, forced):
    folder = published.merges(tmp_path, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    special = import_tokenizer(folder, "sequence_to_sequence", "bart", forced).special
    assert special.target_start == (2, 0) and (special.source_start, special.source_end) == ((0,), (2,))
    assert special.stop == (2,)


def test_tokens_that_the_configuration_adds(tmp_path):
    """Reddens where added_tokens_decoder is not read, and where a gap before its ids goes unnoticed."""
    folder = published.gpt2(tmp_path)
    added = {"content": "<|im_start|>", "special": True, "normalized": False, "lstrip": False, "rstrip": False,
             "single_word": False}
    published.describe(folder, added_tokens_decoder={"501": added})
    ours = import_tokenizer(folder, "language_modeling", "gpt2", {})
    assert ours.encode_with_specials("<|im_start|>").tolist() == [501] and ours.vocabulary_size == 502
    assert ours.token_bytes[501] == b"<|im_start|>" and 501 in ours.special_ids
    published.describe(folder, added_tokens_decoder={"510": added})
    with pytest.raises(UserError, match="has '<|im_start|>' as id 510, but it comes out as 501"):
        import_tokenizer(folder, "language_modeling", "gpt2", {})


@pytest.mark.parametrize("source", ["string", "list", "jinja", "json"])
def test_where_a_chat_template_stands(tmp_path, source):
    named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    value = {"string": "yes", "list": named}.get(source)
    folder = published.llama3(tmp_path, **({} if value is None else {"chat_template": value}))
    if source == "jinja":
        (folder / "chat_template.jinja").write_text("yes")
    if source == "json":
        (folder / "chat_template.json").write_text(json.dumps({"chat_template": "yes"}))
    assert import_tokenizer(folder, "language_modeling", "llama", {}).chat_template == "yes"


def test_extra_ids_among_the_pieces_are_not_added_again(tmp_path):
    """As T5X publishes T5's model. Reddens where a model of type t5 gets 100 more without a look."""
    (tmp_path / "spiece.model").write_bytes(published.sentencepiece_model(
        vocab_size=300, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, user_defined_symbols=["\u2581<extra_id_0>"]))
    ours = import_tokenizer(tmp_path, "sequence_to_sequence", "t5", {})
    assert ours.vocabulary_size == ours._model.get_piece_size() and ours.encode("a <extra_id_0>").tolist()[-1] == 3


def test_an_empty_folder_has_no_tokenizer(tmp_path):
    assert import_tokenizer(tmp_path, "language_modeling", "gpt2", {}) is None


def test_a_pattern_is_named_where_the_model_does_not_say_it(tmp_path):
    folder = published.tiktoken(tmp_path, "cl100k.tiktoken")
    with pytest.raises(UserError, match="name its pattern, one of gpt2, cl100k, o200k, llama3, qwen, r50k, p50k"):
        import_tokenizer(folder, "language_modeling", "other", {})
    with pytest.raises(UserError, match="no pattern is called 'cl100'; did you mean 'cl100k'"):
        import_tokenizer(folder, "language_modeling", "other", {}, pattern="cl100")
    ours = import_tokenizer(folder, "language_modeling", "other", {}, pattern="cl100k")
    assert ours.end_of_text_id == 501 and ours.special.start == ()


@pytest.mark.parametrize("name, content, message", [
    ("tokenizer.json", b"{}", "tokenizer.json: cannot be read"),
    ("tokenizer.json", b'{"model": ', "tokenizer.json: cannot be read"),
    ("tokenizer.json", b"\xff", "tokenizer.json: cannot be read as UTF-8"),
    ("tokenizer_config.json", b"[1]", "must be a JSON object, not a list"),
    ("tokenizer_config.json", b"{", "cannot be read as JSON"),
    ("tokenizer_config.json", b'{"bos_token": 3}', "bos_token must be a token's text, not 3"),
    ("tokenizer_config.json", b'{"chat_template": [{"name": "rag", "template": ""}]}', "called default; there are rag"),
    ("tokenizer_config.json", b"[" * 100_000, "cannot be read as JSON"),
    ("tokenizer_config.json", b'{"chat_template": [{"name": [], "template": ""}]}', "must be a text, or a list"),
    ("tokenizer_config.json", b'{"added_tokens_decoder": [1]}', "must be an object of tokens by their ids"),
    ("tokenizer_config.json", b'{"added_tokens_decoder": {"x": {"content": "a"}}}', "must be an object of tokens by"),
    ("tokenizer_config.json", b'{"extra_special_tokens": true}', "extra_special_tokens must be a list of tokens"),
    ("vocab.json", b'{"a": 1000000000}', "vocab.json: must be an object of tokens and their ids"),
    ("added_tokens.json", b'{"<x>": []}', "'<x>' must have an id"),
    ("special_tokens_map.json", b'{"additional_special_tokens": "<x>"}', "must be a list of tokens"),
    ("spiece.model", b"\x00\x01nonsense", "not a SentencePiece model"),
    ("spiece.model", b"", "not a SentencePiece model"),
    ("llama.model", b"IQ== 0\nIg== 1\n", "the byte 0 has no token"),
    ("llama.model", b"IQ== 0\nIg==\n", "line 2 is no token in base64 and its rank"),
    ("vocab.txt", b"a\nb\n", "vocab.txt: has no unk_token"),
])
def test_files_that_will_not_do_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "merges.txt").touch()
    model_type = {"vocab.txt": "bert", "spiece.model": "t5", "vocab.json": "gpt2"}.get(name, "llama")
    with pytest.raises(UserError, match=message) as caught:
        import_tokenizer(tmp_path, "language_modeling", model_type, {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fields, message", [
    ({"eos_token_id": [[1]]}, r"eos_token_id=\[\[1\]\]: wants the id of a token"),
    ({"eos_token_id": "x"}, "eos_token_id=x"), ({"eos_token_id": -1}, "eos_token_id=-1"),
    ({"eos_token_id": True}, "eos_token_id=True")])
def test_ids_that_are_none_are_named(tmp_path, fields, message):
    with pytest.raises(UserError, match=message):
        import_tokenizer(published.llama3(tmp_path), "language_modeling", "llama", fields)


def test_a_flag_that_is_neither_true_nor_false_is_named(tmp_path):
    # bool("false") is true.
    folder = published.llama3(tmp_path)
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"add_bos_token": "false"}))
    with pytest.raises(UserError, match="add_bos_token=false: wants true or false"):
        import_tokenizer(folder, "language_modeling", "llama", {})


def test_a_prefix_that_merges_have_not_never_reaches_the_library(tmp_path):
    """It would end the whole process: no exception, no test that fails."""
    model = {"type": "BPE", "continuing_subword_prefix": "x", "vocab": {"a": 0, "\u0120": 1, "a\u0120": 2},
             "merges": [["a", "\u0120"]]}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": [], "model": model}))
    with pytest.raises(UserError, match="continuing_subword_prefix='x' is not that of its merges"):
        import_tokenizer(tmp_path, "language_modeling", "gpt2", {})


def test_older_files_of_other_families_are_refused(tmp_path):
    folder = published.merges(tmp_path, ["<s>"])
    with pytest.raises(UserError, match="of model type 'deberta' do not say how text is divided"):
        import_tokenizer(folder, "language_modeling", "deberta", {})
    with pytest.raises(UserError, match="number the pieces in a way of their own"):
        (tmp_path / "vocab.json").unlink()
        (tmp_path / "sentencepiece.bpe.model").write_bytes(b"")
        import_tokenizer(tmp_path, "classification", "xlm-roberta", {})


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    import sys

    folder = published.t5(tmp_path)
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(UserError, match=r"needs sentencepiece: pip install -e '.\[interop\]'"):
        import_tokenizer(folder, "sequence_to_sequence", "t5", {})
