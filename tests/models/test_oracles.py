"""The same numbers as PyTorch and Hugging Face transformers, weights copied across."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from small_models import logits, loss_and_gradient, random_params, small, tokens
from torch_weights import assert_close, by_layer, flat, set_weights, tensor

from purelm.models.attention import Attention
from purelm.models.attention_forms import naive_attention
from purelm.models.context import AttentionContext, attention_mask
from purelm.models.feed_forward import ACTIVATIONS, GATES
from purelm.models.norms import layer_norm, rms_norm
from purelm.models.positions import alibi_slopes, relative_bucket, sinusoidal

torch = pytest.importorskip("torch")
functional = torch.nn.functional


def assert_same_function(function, oracle, *inputs):
    """Outputs and gradients of sum(sin(output)) agree to 1e-5."""
    wrt = tuple(range(len(inputs)))
    _, gradients = jax.value_and_grad(lambda *x: jnp.sum(jnp.sin(function(*x))), wrt)(*inputs)
    tensors = [tensor(x, gradient=True) for x in inputs]
    expected = oracle(*tensors)
    torch.sin(expected).sum().backward()
    assert_close(function(*inputs), expected)
    for gradient, t in zip(gradients, tensors):
        assert_close(gradient, t.grad)


def normal(*shape, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize(("function", "oracle"), [
    (lambda x: layer_norm(x, 1e-5), lambda x: functional.layer_norm(x, (8,), eps=1e-5)),
    (lambda x: rms_norm(x, 1e-5), lambda x: functional.rms_norm(x, (8,), eps=1e-5)),
    (ACTIVATIONS["relu"], functional.relu),
    (ACTIVATIONS["gelu"], functional.gelu),
    (ACTIVATIONS["gelu_tanh"], lambda x: functional.gelu(x, approximate="tanh")),
    (ACTIVATIONS["silu"], functional.silu),
    (ACTIVATIONS["squared_relu"], lambda x: functional.relu(x) ** 2),
    (GATES["glu"], torch.sigmoid), (GATES["geglu"], functional.gelu),
    (GATES["geglu_tanh"], lambda x: functional.gelu(x, approximate="tanh")), (GATES["swiglu"], functional.silu),
    (GATES["reglu"], functional.relu), (GATES["bilinear"], lambda x: x),
], ids=["layer_norm", "rms_norm", *ACTIVATIONS, *GATES])
def test_pointwise_functions_and_norms(function, oracle):
    assert_same_function(function, oracle, 3 * normal(5, 8) + 0.5)


def test_closed_form_derivatives_of_norms_and_gelu():
    # Forward mode and second derivatives too: reddens when a rule is right in reverse alone.
    for function in (lambda x: layer_norm(x, 1e-5), lambda x: rms_norm(x, 1e-5), ACTIVATIONS["gelu"]):
        check_grads(function, (normal(3, 8),), order=2, modes=("fwd", "rev"), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_attention_formula(num_kv_heads):
    config = small(head_size=6, num_kv_heads=num_kv_heads)
    context = AttentionContext(mask_BTS=attention_mask(config, jnp.arange(7), 7, None))

    def ours(query, key, value):
        y_BTNH, _ = naive_attention(config, jnp.swapaxes(query, 1, 2), key, value, context, None, None)
        return jnp.swapaxes(y_BTNH, 1, 2)

    def oracle(query, key, value):
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)

    shape = (2, num_kv_heads, 7, 6)
    assert_same_function(ours, oracle, normal(2, 4, 7, 6), normal(*shape, seed=1), normal(*shape, seed=2))


def test_attention_sublayer_equals_torch_multihead_attention():
    config = small()
    x = normal(2, 7, 16)
    oracle = torch.nn.MultiheadAttention(16, 4, batch_first=True)
    names, biases = ("query", "key", "value"), normal(3, 16, seed=1)
    parts = {name: {"kernel": jnp.asarray(kernel.detach().numpy().T), "bias": bias}
             for name, kernel, bias in zip(names, oracle.in_proj_weight.chunk(3), biases)}
    parts["output"] = {"kernel": jnp.asarray(oracle.out_proj.weight.detach().numpy().T), "bias": normal(16, seed=2)}
    with torch.no_grad():
        oracle.in_proj_bias.copy_(tensor(biases.reshape(-1)))
        oracle.out_proj.bias.copy_(tensor(parts["output"]["bias"]))
    context = AttentionContext(mask_BTS=attention_mask(config, jnp.arange(7), 7, None))

    def ours(x, params):
        return Attention(config).apply({"params": params}, x, context, None, deterministic=True)[0]

    causal = torch.nn.Transformer.generate_square_subsequent_mask(7)
    x_tensor = tensor(x, gradient=True)
    expected = oracle(x_tensor, x_tensor, x_tensor, attn_mask=causal, need_weights=False)[0]
    torch.sin(expected).sum().backward()
    assert_close(ours(x, parts), expected)
    x_gradient, gradients = jax.grad(lambda x, p: jnp.sum(jnp.sin(ours(x, p))), (0, 1))(x, parts)
    assert_close(x_gradient, x_tensor.grad)
    assert_close(jnp.concatenate([gradients[name]["kernel"].T for name in names]), oracle.in_proj_weight.grad)
    assert_close(gradients["output"]["kernel"].T, oracle.out_proj.weight.grad)


def test_sinusoids_are_those_of_the_paper():
    table = sinusoidal(jnp.arange(50)[None], 8)[0]
    for place, i in ((0, 0), (7, 1), (49, 3)):
        assert_close(table[place, 2 * i], np.sin(place / 10_000 ** (2 * i / 8)), 2e-5)
        assert_close(table[place, 2 * i + 1], np.cos(place / 10_000 ** (2 * i / 8)), 2e-5)


@pytest.mark.parametrize("num_heads", [1, 4, 6, 12, 16, 25])
def test_alibi_slopes_equal_bloom(num_heads):
    bloom = pytest.importorskip("transformers.models.bloom.modeling_bloom")
    bias = bloom.build_alibi_tensor(torch.ones(1, 2), num_heads, torch.float32)
    assert_close(np.array(alibi_slopes(num_heads)), bias[:, 0, 1])


@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 20), (16, 1000)])
def test_relative_buckets_equal_t5(num_buckets, max_distance):
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    distance = np.arange(-5, 1100)
    expected = t5.T5Attention._relative_position_bucket(
        torch.from_numpy(-distance), bidirectional=False, num_buckets=num_buckets, max_distance=max_distance)
    np.testing.assert_array_equal(relative_bucket(jnp.asarray(distance), num_buckets, max_distance), expected.numpy())
    distance = np.arange(-1100, 1100)
    expected = t5.T5Attention._relative_position_bucket(
        torch.from_numpy(-distance), bidirectional=True, num_buckets=num_buckets, max_distance=max_distance)
    both_ways = relative_bucket(jnp.asarray(distance), num_buckets, max_distance, both_ways=True)
    np.testing.assert_array_equal(both_ways, expected.numpy())


def gpt2_weights(params):
    weights = {"transformer.wte.weight": params["embedding"]["embedding"],
               "transformer.wpe.weight": params["positions"]["embedding"],
               **flat("transformer.ln_f", params["final_norm"], transpose=False)}
    for i, layer in enumerate(by_layer(params)):
        prefix, attention = f"transformer.h.{i}", layer["attention"]
        weights |= flat(f"{prefix}.ln_1", layer["attention_norm"], transpose=False)
        weights |= flat(f"{prefix}.ln_2", layer["feed_forward_norm"], transpose=False)
        for kind in ("weight", "bias"):
            ours = {"weight": "kernel", "bias": "bias"}[kind]
            fused = [attention[name][ours] for name in ("query", "key", "value")]
            weights[f"{prefix}.attn.c_attn.{kind}"] = jnp.concatenate(fused, axis=-1)
        weights |= flat(f"{prefix}.attn.c_proj", attention["output"], transpose=False)
        weights |= flat(f"{prefix}.mlp.c_fc", layer["feed_forward"]["up"], transpose=False)
        weights |= flat(f"{prefix}.mlp.c_proj", layer["feed_forward"]["down"], transpose=False)
    return weights


def test_gpt2_equals_hugging_face_in_logits_loss_and_gradients():
    transformers = pytest.importorskip("transformers")
    config = small(feed_forward="gelu_tanh")
    oracle = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=29, n_positions=16, n_embd=16, n_layer=2, n_head=4, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0))
    params, tokens_BT = random_params(config), tokens()
    set_weights(oracle, gpt2_weights(params))
    ids = tensor(tokens_BT).long()
    output = oracle(ids, labels=ids)
    output.loss.backward()
    assert_close(logits(config, params, tokens_BT), output.logits, 1e-4)
    loss, gradients = loss_and_gradient(config, params, tokens_BT)
    assert_close(loss, output.loss, 1e-5)
    expected = {name: parameter.grad.numpy() for name, parameter in oracle.named_parameters()}
    for name, gradient in gpt2_weights(gradients).items():
        assert_close(gradient, expected[name], 1e-4)


def test_llama_equals_hugging_face():
    transformers = pytest.importorskip("transformers")
    config = small(feed_forward="swiglu", feed_forward_width=24, positions="rope", norm="rms_norm", bias=False,
                   tied_embeddings=False, num_kv_heads=2, rope_base=500.0)
    oracle = transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=29, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, rms_norm_eps=1e-5, max_position_embeddings=16,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0}, rope_theta=500.0))
    params = random_params(config)
    weights = {"model.embed_tokens.weight": params["embedding"]["embedding"],
               "lm_head.weight": params["head"]["kernel"].T,
               **flat("model.norm", params["final_norm"], transpose=True)}
    for i, layer in enumerate(by_layer(params)):
        prefix = f"model.layers.{i}"
        weights |= flat(f"{prefix}.input_layernorm", layer["attention_norm"], transpose=True)
        weights |= flat(f"{prefix}.post_attention_layernorm", layer["feed_forward_norm"], transpose=True)
        for theirs, ours in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "output")):
            weights |= flat(f"{prefix}.self_attn.{theirs}_proj", layer["attention"][ours], transpose=True)
        for name in ("up", "gate", "down"):
            weights |= flat(f"{prefix}.mlp.{name}_proj", layer["feed_forward"][name], transpose=True)
    set_weights(oracle, weights)
    assert_close(logits(config, params, tokens()), oracle(tensor(tokens()).long()).logits, 1e-4)


def test_gpt_neox_equals_hugging_face_with_half_of_each_head_rotated():
    transformers = pytest.importorskip("transformers")
    config = small(positions="rope", rope_fraction=0.5, tied_embeddings=False, head_size=4)
    oracle = transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(
        vocab_size=29, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        use_parallel_residual=False, attention_bias=True, hidden_act="gelu", layer_norm_eps=1e-5,
        max_position_embeddings=16, rotary_pct=0.5,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.5}))
    params = random_params(config)
    weights = {"gpt_neox.embed_in.weight": params["embedding"]["embedding"],
               ("lm_head" if hasattr(oracle, "lm_head") else "embed_out") + ".weight": params["head"]["kernel"].T,
               **flat("gpt_neox.final_layer_norm", params["final_norm"], transpose=True)}
    for i, layer in enumerate(by_layer(params)):
        prefix = f"gpt_neox.layers.{i}"
        weights |= flat(f"{prefix}.input_layernorm", layer["attention_norm"], transpose=True)
        weights |= flat(f"{prefix}.post_attention_layernorm", layer["feed_forward_norm"], transpose=True)
        parts = [layer["attention"][name] for name in ("query", "key", "value")]
        kernels = jnp.stack([part["kernel"].T.reshape(4, 4, 16) for part in parts], axis=1)
        weights[f"{prefix}.attention.query_key_value.weight"] = kernels.reshape(48, 16)
        biases = jnp.stack([part["bias"].reshape(4, 4) for part in parts], axis=1)
        weights[f"{prefix}.attention.query_key_value.bias"] = biases.reshape(48)
        weights |= flat(f"{prefix}.attention.dense", layer["attention"]["output"], transpose=True)
        weights |= flat(f"{prefix}.mlp.dense_h_to_4h", layer["feed_forward"]["up"], transpose=True)
        weights |= flat(f"{prefix}.mlp.dense_4h_to_h", layer["feed_forward"]["down"], transpose=True)
    set_weights(oracle, weights)
    assert_close(logits(config, params, tokens()), oracle(tensor(tokens()).long()).logits, 1e-4)
