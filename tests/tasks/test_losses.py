"""Losses against PyTorch, and the chunked form against the whole one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.tasks import losses

B, T, D, V = 3, 5, 8, 32


def arrays(seed=0, vocabulary=V):
    random = np.random.default_rng(seed)
    x_BTD = jnp.asarray(random.standard_normal((B, T, D)), jnp.float32)
    kernel_DV = jnp.asarray(random.standard_normal((D, vocabulary)), jnp.float32)
    bias_V = jnp.asarray(random.standard_normal(vocabulary), jnp.float32)
    targets_BT = jnp.asarray(random.integers(0, vocabulary, (B, T)), jnp.int32)
    weights_BT = jnp.asarray(random.integers(0, 3, (B, T)), jnp.float32)
    return x_BTD, kernel_DV, bias_V, targets_BT, weights_BT


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradient_are_torchs(smoothing):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    logits = random.standard_normal((B, T, V)).astype(np.float32) * 3
    *_, targets_BT, weights_BT = arrays()

    def loss(logits_BTV):
        return losses.loss_sums(losses.statistics(logits_BTV, targets_BT), weights_BT, label_smoothing=smoothing,
                                z_loss=0.0)["loss"]

    value, gradient = jax.value_and_grad(loss)(jnp.asarray(logits))
    theirs = torch.tensor(logits, requires_grad=True)
    labels = torch.tensor(np.asarray(targets_BT).reshape(-1)).long()
    each = torch.nn.functional.cross_entropy(theirs.reshape(-1, V), labels, label_smoothing=smoothing, reduction="none")
    total = (each * torch.tensor(np.asarray(weights_BT).reshape(-1))).sum()
    total.backward()
    np.testing.assert_allclose(value, total.item(), rtol=1e-6)
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=1e-6)


def test_sums_by_their_definitions():
    # Reddens where a sum is a mean, the weights are left out, or z-loss or smoothing leaks into the cross-entropy.
    random = np.random.default_rng(1)
    logits_BTV = random.standard_normal((B, T, V)).astype(np.float32)
    *_, targets_BT, weights_BT = arrays()
    sums = losses.loss_sums(losses.statistics(jnp.asarray(logits_BTV), targets_BT), weights_BT, label_smoothing=0.2,
                            z_loss=0.01)
    log_z_BT = np.log(np.exp(logits_BTV.astype(np.float64)).sum(-1))
    target_BT = np.take_along_axis(logits_BTV, np.asarray(targets_BT)[..., None], -1)[..., 0]
    weights_BT = np.asarray(weights_BT)
    smooth_BT = 0.8 * (log_z_BT - target_BT) + 0.2 * (log_z_BT[..., None] - logits_BTV).mean(-1)
    np.testing.assert_allclose(sums["cross_entropy"], ((log_z_BT - target_BT) * weights_BT).sum(), rtol=1e-6)
    np.testing.assert_allclose(sums["loss"], ((smooth_BT + 0.01 * log_z_BT**2) * weights_BT).sum(), rtol=1e-6)
    assert sums["weight"] == weights_BT.sum()
    assert sums["correct"] == ((logits_BTV.argmax(-1) == np.asarray(targets_BT)) * weights_BT).sum()


@pytest.mark.parametrize("chunk", [1, 7, 16, 32, 100])  # 7: the last chunk overlaps the one before; 100: one chunk
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_chunked_equals_whole(chunk, softcap):
    x_BTD, kernel_DV, bias_V, targets_BT, weights_BT = arrays()

    def whole(x_BTD, kernel_DV, bias_V):
        logits_BTV = x_BTD @ kernel_DV + bias_V
        if softcap is not None:
            logits_BTV = softcap * jnp.tanh(logits_BTV / softcap)
        return reduce(losses.statistics(logits_BTV, targets_BT))

    def chunked(x_BTD, kernel_DV, bias_V):
        return reduce(losses.chunked_statistics(x_BTD, kernel_DV, bias_V, targets_BT, chunk, softcap))

    def reduce(statistics):
        sums = losses.loss_sums(statistics, weights_BT, label_smoothing=0.1, z_loss=0.01)
        return sums["loss"], sums

    forms = [jax.jit(jax.value_and_grad(form, argnums=(0, 1, 2), has_aux=True)) for form in (whole, chunked)]
    expected, actual = (form(x_BTD, kernel_DV, bias_V) for form in forms)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), expected, actual)


def test_chunked_without_bias_and_in_bfloat16():
    x_BTD, kernel_DV, _, targets_BT, weights_BT = arrays()

    def loss(x_BTD, kernel_DV):
        return jnp.sum(losses.chunked_statistics(x_BTD, kernel_DV, None, targets_BT, 7, None).logsumexp)

    gradients = jax.grad(loss, argnums=(0, 1))(x_BTD.astype(jnp.bfloat16), kernel_DV.astype(jnp.bfloat16))
    assert all(gradient.dtype == jnp.bfloat16 for gradient in gradients)
    for gradient, exact in zip(gradients, jax.grad(loss, argnums=(0, 1))(x_BTD, kernel_DV)):
        np.testing.assert_allclose(gradient.astype(jnp.float32), exact, atol=0.1)


@pytest.mark.parametrize("chunk", [7, 32])
def test_ties_go_to_the_first_entry(chunk):
    # All logits equal, as with a zero head: the argmax is entry 0, in whichever chunk the target is.
    x_BTD, kernel_DV, _, _, _ = arrays()
    targets_BT = jnp.arange(B * T, dtype=jnp.int32).reshape(B, T)
    zeros_DV = jnp.zeros_like(kernel_DV)
    expected = (np.arange(B * T) == 0).reshape(B, T)
    np.testing.assert_array_equal(losses.statistics(x_BTD @ zeros_DV, targets_BT).hit, expected)
    np.testing.assert_array_equal(
        losses.chunked_statistics(x_BTD, zeros_DV, None, targets_BT, chunk, None).hit, expected)


def test_chunked_never_holds_all_logits():
    vocabulary = 20_000
    x_BTD, kernel_DV, _, targets_BT, _ = arrays(vocabulary=vocabulary)
    x_BTD, targets_BT = jnp.tile(x_BTD, (8, 1, 1)), jnp.tile(targets_BT, (8, 1))
    all_logits = 4 * targets_BT.size * vocabulary

    def memory(form):
        gradient = jax.jit(jax.grad(lambda x, kernel: jnp.sum(form(x, kernel).logsumexp), argnums=(0, 1)))
        return gradient.lower(x_BTD, kernel_DV).compile().memory_analysis().temp_size_in_bytes

    assert memory(lambda x, kernel: losses.statistics(x @ kernel, targets_BT)) >= all_logits
    assert memory(lambda x, kernel: losses.chunked_statistics(x, kernel, None, targets_BT, 500, None)) < all_logits / 4
