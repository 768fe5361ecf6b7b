"""Every knob of a network, typed and documented where it is declared."""

from __future__ import annotations

import dataclasses
from typing import Literal

from purelm.config.knob import knob


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """One Transformer stack and the networks before it; each published variation is a switch (models/ has the papers).

    Fields that an architecture does not read are refused where they are set (config/architectures.py).
    """

    architecture: Literal["decoder", "encoder", "encoder_decoder", "recurrent", "recurrent_encoder_decoder",
                          "word_vectors"] = knob(
        "decoder", "Transformer decoder, encoder or both; a recurrent network, or two with attention; two tables")
    vocabulary_size: int | None = knob(None, "token types; none takes the tokenizer's, a larger number pads", minimum=2)
    num_classes: int | None = knob(None, "of a classifier, or tags of a tagger; none takes the data's", minimum=2)
    context_length: int = knob(256, "tokens of a training window, and rows of learned positions", minimum=1)
    num_layers: int = knob(4, "blocks, or recurrent layers; of the decoder where there are two stacks", minimum=1)
    encoder_layers: int | None = knob(None, "blocks of an encoder beside a decoder; none is num_layers", minimum=1)
    width: int = knob(128, "size of the residual stream (D)", minimum=1)
    num_heads: int = knob(4, "query heads (N)", minimum=1)
    num_kv_heads: int | None = knob(
        None, "key/value heads (K): none is one a query head (MHA), 1 is MQA, between is GQA", minimum=1)
    head_size: int | None = knob(None, "size of a head (H); none is width / num_heads", minimum=1)
    feed_forward: Literal["relu", "gelu", "gelu_tanh", "silu", "squared_relu", "glu", "geglu", "geglu_tanh", "swiglu",
                          "reglu", "bilinear"] = knob("gelu", "activation of the feed-forward; those with glu in their "
                                                      "names, and bilinear, are gated (Shazeer 2020)")
    feed_forward_width: int | None = knob(
        None, "hidden units (F); none is 4 x width, or 8/3 x width rounded up to a multiple of 8 where gated",
        minimum=1)
    positions: Literal["none", "learned", "sinusoidal", "rope", "alibi", "t5"] = knob("learned", "position scheme")
    position_offset: int = knob(0, "row of learned positions that a text's first token reads (OPT, BART, RoBERTa: 2)",
                                minimum=0)
    sinusoidal_halves: bool = knob(False, "sines in the first half of the width, cosines in the second (Marian)")
    rope_base: float = knob(10_000.0, "base of the rotary wavelengths", above=1)
    rope_local_base: float | None = knob(
        None, "that of layers with a window, whose wavelengths are not scaled (Gemma 3); none is rope_base", above=1)
    rope_scaling: Literal["none", "linear", "llama3", "yarn"] = knob("none", "longer rotary wavelengths, for contexts "
                                                                     "longer than those of pretraining")
    rope_scaling_factor: float = knob(1.0, "how much longer the longest wavelengths get", minimum=1)
    rope_original_length: int | None = knob(None, "context of pretraining, for llama3 and yarn", minimum=1)
    rope_low_frequency_factor: float = knob(1.0, "llama3: wavelengths above original length / this are scaled", above=0)
    rope_high_frequency_factor: float = knob(4.0, "llama3: those below original length / this are not", above=0)
    rope_beta_fast: float = knob(32.0, "yarn: dimensions that turn more often in the original length stay", above=0)
    rope_beta_slow: float = knob(1.0, "yarn: those that turn less often are scaled whole", above=0)
    rope_attention_factor: float | None = knob(
        None, "yarn: factor on cosines and sines; none is 0.1 ln(rope_scaling_factor) + 1", above=0)
    rope_fraction: float = knob(1.0, "part of each head that is rotated", above=0, maximum=1)
    relative_buckets: int = knob(32, "buckets of the T5 relative bias", minimum=2)
    relative_max_distance: int = knob(128, "distance from which T5 buckets are shared", minimum=2)
    norm: Literal["layer_norm", "rms_norm", "none"] = knob("layer_norm", "normalization")
    norm_place: Literal["pre", "post", "sandwich", "output"] = knob(
        "pre", "before each sublayer, after the sum, both before and after the sublayer, or after it alone (OLMo 2)")
    norm_scale: bool = knob(True, "learn a scale in each norm")
    norm_offset: bool = knob(False, "the scale is 1 + the parameter (Gemma)")
    norm_epsilon: float = knob(1e-5, "added to the variance", above=0)
    embedding_norm: bool = knob(False, "normalize the embedding too")
    qk_norm: bool = knob(False, "normalize queries and keys (RMS)")
    qk_norm_over: Literal["head", "all_heads"] = knob("head", "what qk_norm takes together: a head, or all (OLMo 2)")
    attention_scale: float | None = knob(None, "factor on the scores; none is 1 / sqrt(head_size)", above=0)
    attention_window: int | None = knob(None, "keys each query sees, itself included; none is all", minimum=1)
    attention_pattern: tuple[Literal["full", "window"], ...] = knob(
        (), "layers that have attention_window and that have none, repeated over all; () is all alike")
    attention_softcap: float | None = knob(None, "c in c tanh(scores / c)", above=0)
    attention_sink: bool = knob(False, "learn one extra logit a head in the softmax's denominator")
    attention_implementation: Literal["auto", "naive", "xla", "cudnn", "splash"] = knob(
        "auto", "auto is cudnn on GPU where it can, splash on TPU where it can, else the fastest form of this device")
    logits_softcap: float | None = knob(None, "c in c tanh(logits / c)", above=0)
    prefix_attention: bool = knob(False, "decoder: the tokens of a prompt see each other both ways (prefix LM)")
    bias: bool = knob(True, "biases in linear layers and LayerNorm")
    query_key_value_bias: bool | None = knob(None, "of attention's first layers (Qwen2); none is as bias")
    attention_output_bias: bool | None = knob(None, "of attention's last layer; none is as bias")
    feed_forward_bias: bool | None = knob(None, "of the feed-forward's layers; none is as bias")
    norm_bias: bool | None = knob(None, "of LayerNorm; none is as bias")
    tied_embeddings: bool = knob(True, "the output layer is the embedding, transposed")
    embedding_width: int | None = knob(
        None, "columns of the table of embeddings, with a matrix to width after it and back before a tied output layer "
        "(ALBERT, OPT-350m); none is width", minimum=1)
    shared_embeddings: bool = knob(True, "encoder and decoder read the same table of embeddings")
    token_types: int = knob(0, "kinds of token with an embedding each (BERT's sentence A and B); 0 is none", minimum=0)
    head_transform: bool = knob(False, "a layer, activation and norm before the output layer (BERT)")
    head_bias: bool = knob(False, "a bias on the output logits (BERT, BART)")
    head_scale: Literal["one", "inverse_sqrt_width"] = knob(
        "one", "factor on what a tied output layer reads (T5 v1.0: 1/sqrt(width))")
    pooling: Literal["first", "last", "mean", "max", "attention"] = knob(
        "mean", "how the features of tokens become one vector, for classification")
    pooling_transform: Literal["none", "tanh", "relu"] = knob(
        "none", "a layer and this activation on the pooled vector (BERT, RoBERTa: tanh; DistilBERT: relu)")
    embedding_scale: Literal["one", "sqrt_width"] = knob("one", "factor on the token embedding")
    residual_scale: Literal["one", "inverse_sqrt_depth", "rezero"] = knob(
        "one", "factor on each sublayer's output: 1, 1/sqrt(2 x layers), or learned from zero (ReZero)")
    initialization: Literal["gpt2", "xavier", "lecun"] = knob(
        "gpt2", "normal with outputs scaled by 1/sqrt(2 x layers), Xavier uniform, or LeCun normal")
    initialization_stddev: float = knob(0.02, "of the gpt2 scheme, and of embeddings in all", above=0)
    zero_outputs: bool = knob(False, "start the last matrix of every sublayer at zero")
    zero_head: bool = knob(False, "start an untied output layer at zero")
    embedding_dropout: float = knob(0.0, "after the embedding", minimum=0, maximum=0.99)
    attention_dropout: float = knob(0.0, "on attention weights", minimum=0, maximum=0.99)
    residual_dropout: float = knob(0.0, "on each sublayer's output", minimum=0, maximum=0.99)
    feed_forward_dropout: float = knob(0.0, "on the hidden units of the feed-forward", minimum=0, maximum=0.99)
    classifier_dropout: float = knob(0.0, "on what a classifier's output layer reads", minimum=0, maximum=0.99)
    cell: Literal["lstm", "gru"] = knob("lstm", "of recurrent layers")
    hidden_size: int | None = knob(None, "units of a recurrent layer, in each direction; none is width", minimum=1)
    bidirectional: bool = knob(False, "recurrent layers read both ways (of two networks, the encoder)")
    recurrent_attention: Literal["bahdanau", "luong"] = knob(
        "bahdanau", "how a recurrent decoder attends: additive, before the cell; or multiplicative, after it")
    recurrent_dropout: float = knob(
        0.0, "on the hidden state from step to step, one mask a sequence (Gal & Ghahramani 2016)", minimum=0,
        maximum=0.99)
    variational_dropout: bool = knob(
        False, "recurrent: embedding_dropout and residual_dropout draw one mask a sequence, not one a step")
    parallel_block: bool = knob(False, "attention and feed-forward read the same stream and are summed (GPT-J)")
    parallel_norms: Literal["shared", "separate"] = knob("shared", "of a parallel_block: one, or one each (GPT-NeoX)")
    layer_sharing: int = knob(1, "consecutive layers that share one set of parameters (ALBERT)", minimum=1)
    scan_layers: bool = knob(False, "lax.scan over layers: compiles faster; same parameters either way")
    remat: Literal["none", "dots", "full"] = knob(
        "none", "what the backward pass recomputes: nothing, all but matrix products, everything in a block")
    param_dtype: Literal["float32", "bfloat16"] = knob("float32", "type parameters are kept in")
    compute_dtype: Literal["float32", "bfloat16"] = knob(
        "float32", "type of activations; norms, softmax and loss stay float32")
