"""Tokenizers as transformers loads them: our own give text the same ids there, imported ones' files come back."""

from __future__ import annotations

import published_tokenizers as published
import pytest
from published_tokenizers import TEXTS

from purelm.data.tokenizers import ByteTokenizer, CharacterTokenizer, WordTokenizer, train_tokenizer
from purelm.data.tokenizers.exporting import write_tokenizer_files
from purelm.data.tokenizers.importing import import_tokenizer
from purelm.errors import UserError

# The last text of ours is one where transformers finds the end-of-text token.
PLAIN = [text for text in TEXTS if "<|endoftext|>" not in text]


def made(kind, end_of_text=True):
    if kind == "bytes":
        return ByteTokenizer(end_of_text)
    if kind == "characters":
        return CharacterTokenizer("".join(TEXTS), end_of_text)
    return train_tokenizer(kind, published.CORPUS, 600, end_of_text=end_of_text)


def loaded(folder):
    import transformers
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["bytes", "characters", "bpe", "wordpiece", "unigram"])
def test_ids_and_text_are_ours(tmp_path, kind):
    """Reddens where a pre-tokenizer, decoder or the order of the vocabulary is another."""
    ours = made(kind)
    paths = write_tokenizer_files(ours, tmp_path)
    assert [path.name for path in paths] == ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"]
    theirs = loaded(tmp_path)
    for text in PLAIN:
        ids = theirs.encode(text, add_special_tokens=False)
        assert ids == ours.encode(text).tolist() and theirs.decode(ids) == text
    for text in TEXTS:
        assert theirs.encode(text, add_special_tokens=False, split_special_tokens=True) == ours.encode(text).tolist()
    assert theirs.eos_token_id == theirs.bos_token_id == ours.end_of_text_id and len(theirs) == ours.vocabulary_size
    a, b = ours.encode("a").tolist(), ours.encode("b").tolist()
    special = ours.special
    assert theirs.encode("a") == [*special.start, *a, *special.end]
    assert theirs.encode("a", "b") == [*special.start, *a, *special.between, *b, *special.end]


def test_frames_of_other_tasks(tmp_path):
    ours = made("bytes")
    write_tokenizer_files(ours, tmp_path, "sequence_to_sequence")
    assert loaded(tmp_path).encode("a") == [97, 256]
    write_tokenizer_files(ours, tmp_path, "masked_language_modeling")
    theirs = loaded(tmp_path)
    assert theirs.mask_token_id == ours.vocabulary_size == 257 and theirs.encode("a<mask>") == [256, 97, 257]


def test_without_end_of_text(tmp_path):
    write_tokenizer_files(made("bytes", end_of_text=False), tmp_path)
    theirs = loaded(tmp_path)
    assert theirs.eos_token_id is None and theirs.encode("é<|endoftext|>")[:3] == [195, 169, 60]


def test_words_are_refused(tmp_path):
    with pytest.raises(UserError, match="a words tokenizer cannot be exported exactly"):
        write_tokenizer_files(WordTokenizer(["a"], True), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("make, model_type", [(published.llama3, "llama"), (published.t5, "t5"),
                                              (published.marian, "marian"), (published.tiktoken, "llama")])
def test_imported_files_come_back_byte_for_byte(tmp_path, make, model_type):
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    folder = make(tmp_path / "from")
    paths = write_tokenizer_files(import_tokenizer(folder, "language_modeling", model_type, {}), tmp_path / "to")
    assert {path.name: path.read_bytes() for path in paths} == {
        path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(UserError, match="none/tokenizer.json: the tokenizer cannot be written"):
        write_tokenizer_files(made("bytes"), tmp_path / "none")


def test_exported_and_imported_again(tmp_path):
    """A run's tokenizer that goes out and comes back in gives the same ids and frames."""
    ours = made("bpe")
    write_tokenizer_files(ours, tmp_path)
    again = import_tokenizer(tmp_path, "language_modeling", "llama", {})
    assert [again.encode(text).tolist() for text in TEXTS] == [ours.encode(text).tolist() for text in TEXTS]
    assert again.token_bytes == ours.token_bytes and again.end_of_text_id == ours.end_of_text_id
    assert (again.special.start, again.special.between, again.special.stop) == (
        ours.special.start, ours.special.between, ours.special.stop)
