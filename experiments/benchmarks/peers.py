"""The peers that are measured beside purelm, run from their own public code where the user keeps it."""

from __future__ import annotations

import importlib.util
import pathlib
import sys
import time
from typing import Any

from purelm.errors import UserError

CPU_RECIPE = {"block_size": 64, "n_layer": 4, "n_head": 4, "n_embd": 128, "dropout": 0.0, "bias": False}
GPT2_124M = {"block_size": 1024, "n_layer": 12, "n_head": 12, "n_embd": 768, "dropout": 0.0, "bias": False,
             "vocab_size": 50304}


def nanogpt_module(folder: str) -> Any:
    """nanoGPT's model.py, imported from a checkout of it (github.com/karpathy/nanoGPT).

    Raises:
      UserError: it is not there.
    """
    path = pathlib.Path(folder) / "model.py"
    if not path.is_file():
        raise UserError(f"--nanogpt={folder}: no model.py there; give a checkout of github.com/karpathy/nanoGPT")
    spec = importlib.util.spec_from_file_location("nanogpt_model", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["nanogpt_model"] = module
    spec.loader.exec_module(module)
    return module


class NanoGPT:
    """nanoGPT's model and optimizer under the loop of its train.py, on any array of token ids."""

    def __init__(self, folder: str, shape: dict[str, Any], *, learning_rate: float, device: str = "cpu",
                 compiled: bool = False):
        import torch

        self.torch, module = torch, nanogpt_module(folder)
        torch.manual_seed(1337)
        self.device, self.block = device, shape["block_size"]
        self.model = module.GPT(module.GPTConfig(**shape)).to(device)
        self.optimizer = self.model.configure_optimizers(0.1, learning_rate, (0.9, 0.99), device)
        self.autocast = torch.autocast(device_type=device, dtype=torch.bfloat16, enabled=device != "cpu")
        self.forward = torch.compile(self.model) if compiled else self.model

    def random_batch(self, tokens: Any, batch_size: int) -> tuple[Any, Any]:
        """Windows at random places, as its get_batch draws them."""
        starts = self.torch.randint(len(tokens) - self.block, (batch_size,)).tolist()
        inputs = self.torch.stack([tokens[i:i + self.block] for i in starts])
        targets = self.torch.stack([tokens[i + 1:i + 1 + self.block] for i in starts])
        return inputs.to(self.device), targets.to(self.device)

    def step(self, inputs: Any, targets: Any, learning_rate: float) -> Any:
        """One update: forward, backward, clipping at 1.0, AdamW."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        with self.autocast:
            _, loss = self.forward(inputs, targets)
        loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def whole_loss(self, tokens: Any, batch_size: int = 128) -> float:
        """Loss on all of `tokens`: windows side by side, each target once."""
        total, count, block = 0.0, 0, self.block
        starts = list(range(0, len(tokens) - 1, block))
        self.model.eval()
        with self.torch.no_grad():
            for low in range(0, len(starts), batch_size):
                rows = [(tokens[i:i + block][: len(tokens) - 1 - i], tokens[i + 1:i + 1 + block])
                        for i in starts[low:low + batch_size]]
                for length in {len(targets) for _, targets in rows}:
                    inputs, targets = (self.torch.stack([row[k] for row in rows if len(row[1]) == length])
                                       for k in (0, 1))
                    total += float(self.model(inputs, targets)[1]) * targets.numel()
                    count += targets.numel()
        self.model.train()
        return total / count


class BertClassifier:
    """transformers' BertForSequenceClassification of BERT base, random weights, its own dropout, under PyTorch's AdamW.

    Clipping at 1.0 and the fused update are the defaults of transformers' Trainer.
    """

    def __init__(self, num_classes: int, *, learning_rate: float):
        import torch
        from transformers import BertConfig, BertForSequenceClassification

        self.torch = torch
        self.model = BertForSequenceClassification(BertConfig(num_labels=num_classes)).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=learning_rate, weight_decay=0.01, fused=True)

    def step(self, tokens: Any, labels: Any) -> None:
        """One update on int32 [B, T] tokens without padding and [B] classes: forward, backward, clipping, AdamW."""
        tokens, labels = (self.torch.from_numpy(array).long() for array in (tokens, labels))
        mask = self.torch.ones_like(tokens)
        self.model(input_ids=tokens, attention_mask=mask, labels=labels).loss.backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def huggingface_gpt2(**shape: int) -> Any:
    """transformers' GPT-2 of that shape with random weights, in evaluation mode."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(bos_token_id=0, eos_token_id=0, **shape)).eval()


def seconds(function, *, repeats: int = 1) -> float:
    """Wall-clock seconds of one call, mean over `repeats`."""
    started = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - started) / repeats
