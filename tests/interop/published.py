"""Checkpoints as save_pretrained writes them, small and random, with a tokenizer trained on a line or two."""

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

TEXTS = ["To be, or not to be, that is the question.", "def f(x):\n    return x + 1", "时间就是金钱", "a 🙂 b"] * 5


def byte_tokenizer(special=("<|endoftext|>",), frame=None, **names):
    """A byte-level BPE of 300 ids, the special ones first; frame: (single, pair) of the post-processor."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(special), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    if frame is not None:
        ids = [(token, tokenizer.token_to_id(token)) for token in special]
        tokenizer.post_processor = processors.TemplateProcessing(single=frame[0], pair=frame[1], special_tokens=ids)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def gpt2(folder, seed=0, **fields):
    """A GPT-2 with 300 tokens; returns (model, tokenizer)."""
    transformers.set_seed(seed)
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**{
        "vocab_size": 300, "n_embd": 36, "n_layer": 2, "n_head": 3, "n_positions": 48, "bos_token_id": 0,
        "eos_token_id": 0, **fields})).eval()
    tokenizer = byte_tokenizer(bos_token="<|endoftext|>", eos_token="<|endoftext|>")
    return _save(folder, model, tokenizer)


def qwen3(folder, seed=0, **fields):
    """A Qwen 3 in bfloat16, in several files."""
    import torch

    transformers.set_seed(seed)
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**{
        "vocab_size": 304, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64,
        "bos_token_id": None, "eos_token_id": [0, 1], **fields})).to(torch.bfloat16).eval()
    tokenizer = byte_tokenizer(("<|endoftext|>", "<|im_end|>"), eos_token="<|im_end|>")
    return _save(folder, model, tokenizer, max_shard_size="40KB")


def bert_classifier(folder, seed=0, **fields):
    """A BERT with three classes and a byte-level tokenizer that frames texts as BERT's does."""
    transformers.set_seed(seed)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**{
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 40, "num_labels": 3, "id2label": {0: "bad", 1: "fair", 2: "good"},
        "label2id": {"bad": 0, "fair": 1, "good": 2}, **fields})).eval()
    frame = ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1")
    tokenizer = byte_tokenizer(("[PAD]", "[CLS]", "[SEP]", "[MASK]"), frame, pad_token="[PAD]", cls_token="[CLS]",
                               sep_token="[SEP]", mask_token="[MASK]", model_max_length=40)
    return _save(folder, model, tokenizer)


def bart(folder, seed=0, **fields):
    """A BART that begins what it writes with <s>."""
    transformers.set_seed(seed)
    model = transformers.BartForConditionalGeneration(transformers.BartConfig(**{
        "vocab_size": 300, "d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "encoder_layers": 2,
        "decoder_layers": 3, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 48,
        "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, **fields})).eval()
    model.generation_config.forced_bos_token_id = 0
    tokenizer = byte_tokenizer(("<s>", "<pad>", "</s>"), ("<s> $A </s>", "<s> $A </s> </s> $B </s>"), bos_token="<s>",
                               pad_token="<pad>", eos_token="</s>")
    return _save(folder, model, tokenizer)


def _save(folder, model, tokenizer, **options):
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return model, tokenizer
