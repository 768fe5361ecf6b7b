"""Published shapes, as functions that return a ModelConfig."""

from __future__ import annotations

import dataclasses

from purelm.config.schema import ModelConfig
from purelm.errors import UserError, did_you_mean

GPT2_SIZES = {
    "124m": {"num_layers": 12, "num_heads": 12, "width": 768},
    "355m": {"num_layers": 24, "num_heads": 16, "width": 1024},
    "774m": {"num_layers": 36, "num_heads": 20, "width": 1280},
    "1.5b": {"num_layers": 48, "num_heads": 25, "width": 1600},
}
GPT2_NAMES = {"small": "124m", "medium": "355m", "large": "774m", "xl": "1.5b"}

LLAMA_SIZES = {
    # llama2.c's stories15M; a 160M-parameter shape of GPT-2 small's size; TinyLlama 1.1B; Llama 3 8B.
    "tiny": {"vocabulary_size": 32_000, "context_length": 256, "num_layers": 6, "width": 288, "num_heads": 6,
             "feed_forward_width": 768, "tied_embeddings": True},
    "160m": {"vocabulary_size": 32_000, "context_length": 2048, "num_layers": 12, "width": 768, "num_heads": 12,
             "feed_forward_width": 3072},
    "1b": {"vocabulary_size": 32_000, "context_length": 2048, "num_layers": 22, "width": 2048, "num_heads": 32,
           "num_kv_heads": 4, "feed_forward_width": 5632},
    "8b": {"vocabulary_size": 128_256, "context_length": 8192, "num_layers": 32, "width": 4096, "num_heads": 32,
           "num_kv_heads": 8, "feed_forward_width": 14_336, "rope_base": 500_000.0},
}

VASWANI_SIZES = {
    "tiny": {"num_layers": 4, "num_heads": 4, "width": 128, "feed_forward_width": 256, "embedding_dropout": 0.3,
             "residual_dropout": 0.3},
    "base": {"num_layers": 6, "num_heads": 8, "width": 512, "feed_forward_width": 2048, "embedding_dropout": 0.1,
             "residual_dropout": 0.1},
    "big": {"num_layers": 6, "num_heads": 16, "width": 1024, "feed_forward_width": 4096, "embedding_dropout": 0.3,
            "residual_dropout": 0.3},
}

BERT_SIZES = {
    "tiny": {"num_layers": 2, "num_heads": 2, "width": 128, "feed_forward_width": 512},
    "base": {"num_layers": 12, "num_heads": 12, "width": 768, "feed_forward_width": 3072},
}

T5_SIZES = {
    "1.0": {
        "tiny": {"num_layers": 4, "num_heads": 4, "head_size": 64, "width": 256, "feed_forward_width": 1024},
        "small": {"num_layers": 6, "num_heads": 8, "head_size": 64, "width": 512, "feed_forward_width": 2048},
        "base": {"num_layers": 12, "num_heads": 12, "head_size": 64, "width": 768, "feed_forward_width": 3072},
    },
    "1.1": {
        # The shape of version 1.0's tiny; there is none of this version's own.
        "tiny": {"num_layers": 4, "num_heads": 4, "head_size": 64, "width": 256, "feed_forward_width": 1024},
        "small": {"num_layers": 8, "num_heads": 6, "head_size": 64, "width": 512, "feed_forward_width": 1024},
        "base": {"num_layers": 12, "num_heads": 12, "head_size": 64, "width": 768, "feed_forward_width": 2048},
    },
}

BART_SIZES = {"base": {"num_layers": 6, "num_heads": 12, "width": 768, "feed_forward_width": 3072}}


def _pick(sizes: dict[str, dict], size: str, preset: str) -> dict:
    if size not in sizes:
        raise UserError(f"{preset}(size='{size}') is no size of it{did_you_mean(size, sizes)}")
    return sizes[size]


def gpt2(size: str = "124m", **changes: object) -> ModelConfig:
    """GPT-2 (Radford et al. 2019): 124m (small), 355m (medium), 774m (large) or 1.5b (xl), vocabulary 50,257.

    Dropout is 0; the released models were trained with 0.1 (give it in `changes`). Raises UserError for another size.
    """
    config = ModelConfig(
        vocabulary_size=50_257, context_length=1024, feed_forward="gelu_tanh", positions="learned", norm="layer_norm",
        norm_place="pre", norm_epsilon=1e-5, bias=True, tied_embeddings=True, initialization="gpt2",
        initialization_stddev=0.02, **_pick(GPT2_SIZES, GPT2_NAMES.get(size, size), "gpt2"))
    return dataclasses.replace(config, **changes)


def llama(size: str = "tiny", **changes: object) -> ModelConfig:
    """Llama-shaped (Touvron et al. 2023, arXiv 2302.13971 and 2307.09288; Llama 3, 2024, arXiv 2407.21783): tiny,
    160m, 1b (TinyLlama: Zhang et al. 2024, arXiv 2401.02385) or 8b (Llama 3 8B).

    Pre-RMSNorm, RoPE, SwiGLU, no biases. Raises UserError for another size.
    """
    config = ModelConfig(
        feed_forward="swiglu", positions="rope", norm="rms_norm", norm_place="pre", norm_epsilon=1e-5, bias=False,
        tied_embeddings=False, initialization="gpt2", initialization_stddev=0.02)
    return dataclasses.replace(config, **{**_pick(LLAMA_SIZES, size, "llama"), **changes})


def vaswani(size: str = "base", **changes: object) -> ModelConfig:
    """The encoder-decoder of "Attention is all you need" (Vaswani et al. 2017, arXiv 1706.03762, table 3): base, big,
    or tiny, that of Multi30k (Wu et al. 2021, arXiv 2105.14462, Transformer-Tiny).

    Post-norm, sinusoidal positions, ReLU, one table for source, target and output, and the papers' dropout: 0.1 in
    base, 0.3 in big and tiny, on embeddings and sublayers. Embeddings start as in the authors' tensor2tensor, normal
    with variance 1 / width, and are read times sqrt(width). The paper gives no epsilon of the norms: 1e-5 is fairseq's
    and Marian's. Vocabulary: the tokenizer's (the paper's is about 37,000). Raises UserError for another size.
    """
    shape = _pick(VASWANI_SIZES, size, "vaswani")
    config = ModelConfig(
        architecture="encoder_decoder", feed_forward="relu", positions="sinusoidal", norm="layer_norm",
        norm_place="post", norm_epsilon=1e-5, bias=True, tied_embeddings=True, shared_embeddings=True,
        embedding_scale="sqrt_width", initialization="xavier", initialization_stddev=shape["width"] ** -0.5, **shape)
    return dataclasses.replace(config, **changes)


def bert(size: str = "base", **changes: object) -> ModelConfig:
    """BERT (Devlin et al. 2019, arXiv 1810.04805), uncased: base, or tiny (Turc et al. 2019, arXiv 1908.08962).

    Two token types, and the output layer of masked language modeling. Matrices start as in GPT-2: BERT does not divide
    the last one of a sublayer by sqrt(2 x layers). Dropout is 0; the released models were trained with 0.1 (embedding,
    attention and residual). Raises UserError for another size.
    """
    config = ModelConfig(
        architecture="encoder", vocabulary_size=30_522, context_length=512, feed_forward="gelu", positions="learned",
        norm="layer_norm", norm_place="post", norm_epsilon=1e-12, embedding_norm=True, bias=True, tied_embeddings=True,
        token_types=2, head_transform=True, head_bias=True, initialization="gpt2", initialization_stddev=0.02,
        **_pick(BERT_SIZES, size, "bert"))
    return dataclasses.replace(config, **changes)


def t5(size: str = "small", *, version: str = "1.0", **changes: object) -> ModelConfig:
    """T5 (Raffel et al. 2020, JMLR 21, arXiv 1910.10683): small, base, or tiny (Tay et al. 2021, arXiv 2109.10686).

    Version 1.0 has ReLU and an output layer tied to embeddings of variance 1, read times 1/sqrt(width); 1.1 (Roberts et
    al. 2023, arXiv 2203.17189; Shazeer 2020, arXiv 2002.05202) has GEGLU, by GELU's tanh approximation, and an output
    layer of its own. One thing is written otherwise and is the same at the start: T5 does not divide scores by
    sqrt(head_size), but starts its queries smaller by as much; attention_scale=1.0 reads released weights.
    Dropout is 0; version 1.0 was trained with 0.1 in all four places. Raises UserError for another size or version.
    """
    if version not in ("1.0", "1.1"):
        raise UserError(f"t5(version='{version}') is no version of it: choose '1.0' or '1.1'")
    own = {"feed_forward": "relu", "tied_embeddings": True, "head_scale": "inverse_sqrt_width"}
    if version == "1.1":
        own = {"feed_forward": "geglu_tanh", "tied_embeddings": False, "head_scale": "one"}
    shape = _pick(T5_SIZES[version], size, "t5")
    config = ModelConfig(
        architecture="encoder_decoder", vocabulary_size=32_128, context_length=512, positions="t5",
        relative_buckets=32, relative_max_distance=128, norm="rms_norm", norm_place="pre", norm_epsilon=1e-6,
        bias=False, shared_embeddings=True, initialization="lecun", initialization_stddev=1.0, **own, **shape)
    return dataclasses.replace(config, **changes)


def bart(size: str = "base", **changes: object) -> ModelConfig:
    """BART (Lewis et al. 2020, ACL, arXiv 1910.13461): base. Post-norm, learned positions, embeddings normalized.

    Dropout is 0; the released model was trained with 0.1. Raises UserError for another size.
    """
    config = ModelConfig(
        architecture="encoder_decoder", vocabulary_size=50_265, context_length=1024, feed_forward="gelu",
        positions="learned", norm="layer_norm", norm_place="post", norm_epsilon=1e-5, embedding_norm=True, bias=True,
        tied_embeddings=True, shared_embeddings=True, head_bias=True, initialization="gpt2",
        initialization_stddev=0.02, **_pick(BART_SIZES, size, "bart"))
    return dataclasses.replace(config, **changes)


def nanogpt_cpu(**changes: object) -> ModelConfig:
    """nanoGPT's recipe for a laptop's CPU on Shakespeare's characters (Karpathy 2022, train_shakespeare_char.py)."""
    config = ModelConfig(
        context_length=64, num_layers=4, num_heads=4, width=128, feed_forward="gelu",
        positions="learned", norm="layer_norm", bias=False, tied_embeddings=True, initialization="gpt2",
        initialization_stddev=0.02)
    return dataclasses.replace(config, **changes)


def nanogpt_gpu(**changes: object) -> ModelConfig:
    """nanoGPT's recipe for one GPU on Shakespeare's characters: 6 layers of 384, dropout 0.2 everywhere it has one."""
    config = nanogpt_cpu(
        context_length=256, num_layers=6, num_heads=6, width=384, embedding_dropout=0.2, attention_dropout=0.2,
        residual_dropout=0.2)
    return dataclasses.replace(config, **changes)


def purelm_fast(vocabulary_size: int | None = None, **changes: object) -> ModelConfig:
    """The quickest architecture we measured at nanoGPT's CPU size; meant for Muon.

    Pre-RMSNorm without scale, normalized embedding, RoPE with a short base, QK-norm (Henry et al. 2020, arXiv
    2010.04245), SwiGLU (Shazeer 2020, arXiv 2002.05202), two wide heads, outputs and head at
    zero, the other matrices at half of LeCun's scale (0.5 / sqrt(128)).
    """
    config = ModelConfig(
        vocabulary_size=vocabulary_size, context_length=64, num_layers=4, num_heads=2, width=128,
        feed_forward="swiglu", feed_forward_width=352, positions="rope", rope_base=1000.0, norm="rms_norm",
        norm_place="pre", norm_scale=False, norm_epsilon=1e-6, embedding_norm=True, qk_norm=True, bias=False,
        tied_embeddings=False, zero_outputs=True, zero_head=True, initialization="gpt2", initialization_stddev=0.044)
    return dataclasses.replace(config, **changes)
