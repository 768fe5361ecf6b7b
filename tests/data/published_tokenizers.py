"""Small tokenizers of the published designs, trained here, as the folders of checkpoints."""

from __future__ import annotations

import base64
import io
import json
import pathlib

import sentencepiece
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from purelm.data.tokenizers.imported_tiktoken import PATTERNS

TEXTS = [
    "The quick brown fox doesn't jump over 1234567 lazy dogs, does it?",
    " leading and  double   spaces, trailing ",
    "你好，世界！今天天气很好，我们去公园散步吧。",
    "def f(x: int) -> str:\n    return f\"{x:>10}\"  # comment\n\n\n\tif not x:\n        pass\n",
    "emoji \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f mixed 汉字abc",
    "control \x00\x01\x1b[0m\x7f\r\nnext\u2028line\u00a0no-break\ufeff",
    "Ünïcödé café e\u0301 ﬁne ＡＢＣ ½ مرحبا हिन्दी Ἀθῆναι \u1e9b\u0323",
    "</s><s><unk><pad>[CLS][SEP][MASK]<|endoftext|> <|begin_of_text|><extra_id_0> is text",
    "▁ already ▁here ##x <0x41>",
    "apart , from . the words ' s ! do n't",
    "word" * 60, "", " ", "\n",
]
CORPUS = [*TEXTS[:7], "the cat sat on the mat and the dog ran over the hill", "return the value of the function",
          "天气很好 我们 世界", "a b c d e f g h i j k l m n o p q r s t u v w x y z A B C"] * 4


def write(folder: pathlib.Path, backend: tokenizers.Tokenizer, **config) -> pathlib.Path:
    backend.save(str(folder / "tokenizer.json"))
    return describe(folder, **config)


def describe(folder: pathlib.Path, **config) -> pathlib.Path:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def gpt2(folder: pathlib.Path) -> pathlib.Path:
    backend = byte_level(models.BPE(), pre_tokenizers.ByteLevel(add_prefix_space=False))
    backend.add_special_tokens(["<|endoftext|>"])
    return write(folder, backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def byte_level(model, pre_tokenizer, size=500) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    return backend


def llama3(folder: pathlib.Path, **config) -> pathlib.Path:
    """Whole words before merges, and special tokens after the vocabulary."""
    backend = byte_level(models.BPE(ignore_merges=True), pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERNS["llama3"]), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    backend.add_special_tokens([tokenizers.AddedToken(name, normalized=False) for name in names])
    start = names[0]
    backend.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single=f"{start}:0 $A:0", pair=f"{start}:0 $A:0 {start}:1 $B:1",
                                      special_tokens=[(start, backend.token_to_id(start))])])
    return write(folder, backend, **{"bos_token": start, "eos_token": "<|eot_id|>",
                                     "clean_up_tokenization_spaces": True, **config})


def llama2(folder: pathlib.Path) -> pathlib.Path:
    """SentencePiece's BPE with bytes for what is unknown, its spaces put in by normalizers."""
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    special = ["<unk>", "<s>", "</s>"]
    backend.train_from_iterator([" ".join(CORPUS[7:10])], trainers.BpeTrainer(
        vocab_size=400, special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))], show_progress=False))
    content = json.loads(backend.to_str())
    # Bytes are pieces, not special tokens.
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] in special]
    backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                         decoders.Strip(" ", 1, 0)])
    backend.post_processor = processors.TemplateProcessing(
        single="<s>:0 $A:0", pair="<s>:0 $A:0 <s>:1 $B:1", special_tokens=[("<s>", 1)])
    return write(folder, backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def xlm_roberta(folder: pathlib.Path) -> pathlib.Path:
    """Unigram with NFKC and spaces run together; special tokens before the pieces and the mask after them."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    backend.train_from_iterator(CORPUS, trainers.UnigramTrainer(
        vocab_size=420, special_tokens=special, unk_token="<unk>", show_progress=False))
    backend.post_processor = processors.TemplateProcessing(
        single="<s>:0 $A:0 </s>:0", pair="<s>:0 $A:0 </s>:0 </s>:0 $B:0 </s>:0",
        special_tokens=[("<s>", 0), ("</s>", 2)])
    return write(folder, backend, bos_token="<s>", cls_token="<s>", eos_token="</s>", sep_token="</s>",
                 pad_token="<pad>", unk_token="<unk>", mask_token="<mask>")


def bert(folder: pathlib.Path, *, lower_case: bool = True, json_file: bool = True) -> pathlib.Path:
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend.train_from_iterator(CORPUS, trainers.WordPieceTrainer(
        vocab_size=450, special_tokens=special, show_progress=False))
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    if not json_file:
        ids = sorted((number, token) for token, number in backend.get_vocab().items())
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for _, token in ids), encoding="utf-8")
        return describe(folder, do_lower_case=lower_case, clean_up_tokenization_spaces=True)
    return write(folder, backend, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]",
                 mask_token="[MASK]")


def merges(folder: pathlib.Path, special: list[str], **config) -> pathlib.Path:
    """vocab.json with the special tokens first, and merges.txt."""
    backend = byte_level(models.BPE(), pre_tokenizers.ByteLevel(add_prefix_space=False))
    model = json.loads(backend.to_str())["model"]
    vocabulary = {token: number for number, token in enumerate([*special, *model["vocab"]])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(" ".join(pair) + "\n" for pair in model["merges"]),
                                       encoding="utf-8")
    return describe(folder, **config)


def sentencepiece_model(texts=CORPUS, **options) -> bytes:
    found = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in texts for line in text.split("\n")]), model_writer=found,
        hard_vocab_limit=False, minloglevel=2, num_threads=1, **options)
    return found.getvalue()


def t5(folder: pathlib.Path) -> pathlib.Path:
    (folder / "spiece.model").write_bytes(sentencepiece_model(
        vocab_size=400, model_type="unigram", pad_id=0, eos_id=1, unk_id=2, bos_id=-1))
    return describe(folder, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", extra_ids=100)


def llama2_model(folder: pathlib.Path, **config) -> pathlib.Path:
    """Llama 2's own tokenizer.model: spaces stay, and bytes stand for what is unknown."""
    (folder / "tokenizer.model").write_bytes(sentencepiece_model(
        vocab_size=500, model_type="bpe", byte_fallback=True, normalization_rule_name="identity",
        remove_extra_whitespaces=False, split_digits=True, allow_whitespace_only_pieces=True))
    return describe(folder, bos_token="<s>", eos_token="</s>", unk_token="<unk>", **config)


def marian(folder: pathlib.Path) -> pathlib.Path:
    contents = {"source.spm": sentencepiece_model(CORPUS[:2], vocab_size=100, model_type="unigram"),
                "target.spm": sentencepiece_model(CORPUS[2:], vocab_size=300, model_type="unigram")}
    pieces = dict.fromkeys(["</s>", "<unk>", ">>fra<<"])
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        model = sentencepiece.SentencePieceProcessor(model_proto=content)
        pieces |= dict.fromkeys(model.id_to_piece(number) for number in range(3, model.get_piece_size()))
    vocabulary = {piece: number for number, piece in enumerate([*list(pieces)[:-5], "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    return describe(folder, source_lang="en", target_lang="fr")


def tiktoken(folder: pathlib.Path, name: str = "tokenizer.model") -> pathlib.Path:
    """Ranks of a byte-level BPE, in tiktoken's own format."""
    backend = byte_level(models.BPE(), pre_tokenizers.ByteLevel(add_prefix_space=False))
    from purelm.data.tokenizers.trained import byte_characters

    byte_of = {character: byte for byte, character in enumerate(byte_characters())}
    tokens = sorted((number, bytes(byte_of[c] for c in token)) for token, number in backend.get_vocab().items())
    (folder / name).write_bytes(b"".join(base64.b64encode(token) + b" %d\n" % number for number, token in tokens))
    return folder
