"""Encoders and encoder-decoders with the same numbers as PyTorch and Hugging Face transformers, weights copied across.

The models are random and tiny: nothing is downloaded.
"""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from small_models import SOURCE_SEGMENTS, any_params, small, source, tokens, translated
from torch_weights import assert_same_model, by_layer, flat, renamed, tensor, torch

from purelm.config import presets
from purelm.models import Transformer
from purelm.models.positions import sinusoidal

TINY = {"vocabulary_size": 29, "context_length": 16, "num_layers": 2, "width": 16, "num_heads": 4,
        "feed_forward_width": 24, "scan_layers": True}
SCALE = 0.2  # of the noise on initial values
# Hugging Face's BERT and BART give the embedding of padding, 0, no gradient.
WORDS_BS, WORDS_BT = jnp.maximum(source(), 1), jnp.maximum(tokens(), 1)


def ids(array):
    return tensor(array).long()


def torch_layer(prefix, layer, attentions, norms):
    """One of torch.nn's layers, whose attention has its three matrices in one."""
    weights = renamed(prefix, layer, {"feed_forward/up": "linear1", "feed_forward/down": "linear2", **norms})
    for ours, theirs in attentions.items():
        parts = [layer[ours][name] for name in ("query", "key", "value")]
        weights[f"{prefix}.{theirs}.in_proj_weight"] = jnp.concatenate([part["kernel"].T for part in parts])
        weights[f"{prefix}.{theirs}.in_proj_bias"] = jnp.concatenate([part["bias"] for part in parts])
        weights |= flat(f"{prefix}.{theirs}.out_proj", layer[ours]["output"], transpose=True)
    return weights


class Vaswani(torch.nn.Module):
    """torch.nn's layers between the embedding and output layer of the paper."""

    def __init__(self, norm_first):
        super().__init__()
        options = {"dim_feedforward": 24, "dropout": 0.0, "activation": "relu", "batch_first": True,
                   "norm_first": norm_first, "layer_norm_eps": 1e-5}
        norms = [torch.nn.LayerNorm(16, eps=1e-5) if norm_first else None for _ in range(2)]
        self.embedding = torch.nn.Embedding(29, 16)
        self.encoder = torch.nn.TransformerEncoder(
            torch.nn.TransformerEncoderLayer(16, 4, **options), 2, norms[0], enable_nested_tensor=False)
        self.decoder = torch.nn.TransformerDecoder(torch.nn.TransformerDecoderLayer(16, 4, **options), 2, norms[1])

    def embed(self, tokens_BT):
        positions = tensor(sinusoidal(jnp.arange(tokens_BT.shape[1])[None], 16))
        return 4.0 * self.embedding(tokens_BT) + positions

    def forward(self, source_BS, padding_BS, tokens_BT):
        memory = self.encoder(self.embed(source_BS), src_key_padding_mask=padding_BS)
        causal = torch.ones(2 * tokens_BT.shape[1:], dtype=torch.bool).triu(1)
        x = self.decoder(self.embed(tokens_BT), memory, tgt_mask=causal, memory_key_padding_mask=padding_BS)
        return x @ self.embedding.weight.T


@pytest.mark.parametrize("norm_place", ["post", "pre"])
def test_vaswani_equals_torch_transformer(norm_place):
    config = presets.vaswani("tiny", **TINY, norm_place=norm_place)

    def weights(params):
        found = {"embedding.weight": params["embedding"]["embedding"]}
        for stack, part in (("encoder", params["encoder"]), ("decoder", params)):
            attentions, norms = {"attention": "self_attn"}, ["attention_norm", "feed_forward_norm"]
            if stack == "decoder":
                attentions["cross_attention"] = "multihead_attn"
                norms.insert(1, "cross_attention_norm")
            for i, layer in enumerate(by_layer(part)):
                names = {norm: f"norm{number + 1}" for number, norm in enumerate(norms)}
                found |= torch_layer(f"{stack}.layers.{i}", layer, attentions, names)
            if norm_place == "pre":
                found |= flat(f"{stack}.norm", part["final_norm"], transpose=False)
        return found

    oracle = Vaswani(norm_first=norm_place == "pre")
    assert_same_model(
        lambda params: translated(config, params, source(), SOURCE_SEGMENTS, tokens()).logits_BTV,
        lambda: oracle(ids(source()), tensor(SOURCE_SEGMENTS == 0), ids(tokens())),
        oracle, any_params(config, scale=SCALE), weights)


BERT_LAYER = {"attention/query": "attention.self.query", "attention/key": "attention.self.key",
              "attention/value": "attention.self.value", "attention/output": "attention.output.dense",
              "attention_norm": "attention.output.LayerNorm", "feed_forward/up": "intermediate.dense",
              "feed_forward/down": "output.dense", "feed_forward_norm": "output.LayerNorm"}


def bert_weights(params):
    embeddings = {"embedding": "word_embeddings", "positions": "position_embeddings",
                  "token_types": "token_type_embeddings"}
    weights = {f"bert.embeddings.{theirs}.weight": params[ours]["embedding"] for ours, theirs in embeddings.items()}
    weights |= flat("bert.embeddings.LayerNorm", params["embedding_norm"], transpose=False)
    for i, layer in enumerate(by_layer(params)):
        weights |= renamed(f"bert.encoder.layer.{i}", layer, BERT_LAYER)
    weights |= renamed("cls.predictions.transform", params,
                       {"head_transform": "dense", "head_transform_norm": "LayerNorm"})
    return weights | {"cls.predictions.bias": params["head"]["bias"]}


def test_bert_equals_hugging_face():
    transformers = pytest.importorskip("transformers")
    config = presets.bert("tiny", **TINY)
    oracle = transformers.BertForMaskedLM(transformers.BertConfig(
        vocab_size=29, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=16, type_vocab_size=2, hidden_dropout_prob=0, attention_probs_dropout_prob=0))
    types = jnp.array([[0] * 5 + [1] * 7] * 2)
    mask = jnp.array([[1] * 12, [1] * 9 + [0] * 3])

    def ours(params):
        output = Transformer(config).apply({"params": params}, WORDS_BT, segments_BT=mask, token_types_BT=types)
        return output.logits_BTV * mask[..., None]

    # Padding sees padding here, and all there: compared where it counts.
    assert_same_model(
        ours,
        lambda: oracle(ids(WORDS_BT), attention_mask=ids(mask), token_type_ids=ids(types)).logits
        * tensor(mask[..., None]),
        oracle, any_params(config, scale=SCALE), bert_weights)


T5_ATTENTION = {"query": "q", "key": "k", "value": "v", "output": "o"}


def t5_stack_weights(prefix, params, *, decoder, gated):
    weights = {f"{prefix}.block.0.layer.0.SelfAttention.relative_attention_bias.weight":
               params["relative_bias"]["embedding"], **flat(f"{prefix}.final_layer_norm", params["final_norm"],
                                                            transpose=False)}
    up = {"feed_forward/gate": "wi_0", "feed_forward/up": "wi_1"} if gated else {"feed_forward/up": "wi"}
    last = 2 if decoder else 1
    names = {f"attention/{ours}": f"layer.0.SelfAttention.{theirs}" for ours, theirs in T5_ATTENTION.items()}
    if decoder:
        names |= {f"cross_attention/{ours}": f"layer.1.EncDecAttention.{theirs}"
                  for ours, theirs in T5_ATTENTION.items()}
        names["cross_attention_norm"] = "layer.1.layer_norm"
    names |= {"attention_norm": "layer.0.layer_norm", "feed_forward_norm": f"layer.{last}.layer_norm",
              "feed_forward/down": f"layer.{last}.DenseReluDense.wo"}
    names |= {ours: f"layer.{last}.DenseReluDense.{theirs}" for ours, theirs in up.items()}
    for i, layer in enumerate(by_layer(params)):
        weights |= renamed(f"{prefix}.block.{i}", layer, names)
    return weights


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_t5_equals_hugging_face(version):
    transformers = pytest.importorskip("transformers")
    gated = version == "1.1"
    # Few buckets and a short distance, so that both halves and the shared last bucket are used.
    config = presets.t5("tiny", version=version, **{**TINY, "head_size": 6}, attention_scale=1.0, relative_buckets=8,
                        relative_max_distance=10)
    theirs = transformers.T5Config(
        vocab_size=29, d_model=16, d_kv=6, d_ff=24, num_layers=2, num_heads=4, relative_attention_num_buckets=8,
        relative_attention_max_distance=10, dropout_rate=0, feed_forward_proj="gated-gelu" if gated else "relu")
    if gated:
        theirs.scale_decoder_outputs = False
    oracle = transformers.T5ForConditionalGeneration(theirs)
    if gated:
        oracle.lm_head.weight = torch.nn.Parameter(torch.zeros(29, 16))

    def weights(params):
        found = {"shared.weight": params["embedding"]["embedding"],
                 **t5_stack_weights("encoder", params["encoder"], decoder=False, gated=gated),
                 **t5_stack_weights("decoder", params, decoder=True, gated=gated)}
        return found | ({"lm_head.weight": params["head"]["kernel"].T} if gated else {})

    assert_same_model(
        lambda params: translated(config, params, source(), SOURCE_SEGMENTS, tokens()).logits_BTV,
        lambda: oracle(ids(source()), attention_mask=ids(SOURCE_SEGMENTS), decoder_input_ids=ids(tokens())).logits,
        oracle, any_params(config, scale=SCALE), weights)


BART_ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "out_proj"}


def bart_stack_weights(prefix, params, *, decoder):
    names = {f"attention/{ours}": f"self_attn.{theirs}" for ours, theirs in BART_ATTENTION.items()}
    names |= {"attention_norm": "self_attn_layer_norm", "feed_forward/up": "fc1", "feed_forward/down": "fc2",
              "feed_forward_norm": "final_layer_norm"}
    if decoder:
        names |= {f"cross_attention/{ours}": f"encoder_attn.{theirs}" for ours, theirs in BART_ATTENTION.items()}
        names["cross_attention_norm"] = "encoder_attn_layer_norm"
    # Two rows more, from a time when they were those of padding.
    positions = jnp.concatenate([jnp.zeros((2, 16)), params["positions"]["embedding"]])
    weights = {f"{prefix}.embed_positions.weight": positions,
               **flat(f"{prefix}.layernorm_embedding", params["embedding_norm"], transpose=False)}
    for i, layer in enumerate(by_layer(params)):
        weights |= renamed(f"{prefix}.layers.{i}", layer, names)
    return weights


def test_bart_equals_hugging_face():
    transformers = pytest.importorskip("transformers")
    config = presets.bart("base", **TINY)
    oracle = transformers.BartForConditionalGeneration(transformers.BartConfig(
        vocab_size=29, max_position_embeddings=16, d_model=16, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=24, decoder_ffn_dim=24, dropout=0.0,
        attention_dropout=0.0, activation_dropout=0.0, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        forced_eos_token_id=2, decoder_start_token_id=2))
    params = any_params(config, scale=SCALE)
    with torch.no_grad():
        oracle.final_logits_bias.copy_(tensor(params["head"]["bias"][None]))  # a buffer, not a parameter

    def weights(params):
        return {"model.shared.weight": params["embedding"]["embedding"],
                **bart_stack_weights("model.encoder", params["encoder"], decoder=False),
                **bart_stack_weights("model.decoder", params, decoder=True)}

    assert_same_model(
        lambda params: translated(config, params, WORDS_BS, SOURCE_SEGMENTS, WORDS_BT).logits_BTV,
        lambda: oracle(ids(WORDS_BS), attention_mask=ids(SOURCE_SEGMENTS), decoder_input_ids=ids(WORDS_BT)).logits,
        oracle, params, weights)


def test_decoder_of_another_depth_than_its_encoder():
    # Reddens when a stack takes its number of layers from the other.
    config = small(architecture="encoder_decoder", num_layers=1, encoder_layers=3)
    params = any_params(config)
    assert params["encoder"]["layers"]["attention_norm"]["scale"].shape == (3, 16)
    assert params["layers"]["attention_norm"]["scale"].shape == (1, 16)
