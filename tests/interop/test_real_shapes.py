"""The tables at the size of published checkpoints: every tensor's name and shape, and the number of parameters.

transformers' model is built on torch's meta device, and ours are abstract shapes: neither takes memory.
"""

from __future__ import annotations

import math

import jax
import published_configs as configs
import pytest

from purelm.interop.checkpoint import is_kept, read_model
from purelm.interop.families import family_of
from purelm.interop.mapping import lines_by_name, shape_of
from purelm.interop.task_parameters import task_shapes

PUBLISHED = {
    "gpt2": configs.GPT2, "gpt2-xl": configs.GPT2_XL, "pythia-70m": configs.PYTHIA_70M,
    "pythia-12b": configs.PYTHIA_12B, "opt-125m": configs.OPT_125M, "opt-350m": configs.OPT_350M,
    "opt-6.7b": configs.OPT_6B, "llama-2-7b": configs.LLAMA2_7B, "llama-3.1-8b": configs.LLAMA31_8B,
    "llama-3.2-1b": configs.LLAMA32_1B, "mistral-7b-0.1": configs.MISTRAL, "mistral-7b-0.3": configs.MISTRAL_03,
    "qwen2-0.5b": configs.QWEN2_500M, "qwen2.5-7b": configs.QWEN2, "qwen3-0.6b": configs.QWEN3,
    "qwen3-8b": configs.QWEN3_8B, "gemma-2-2b": configs.GEMMA2, "gemma-2-27b": configs.GEMMA2_27B,
    "gemma-3-1b": configs.GEMMA3, "olmo-2-7b": configs.OLMO2, "olmo-2-13b": configs.OLMO2_13B,
    "bert-base": configs.BERT_BASE, "bert-large": configs.BERT_LARGE, "roberta-base": configs.ROBERTA_BASE,
    "xlm-roberta-base": configs.XLM_ROBERTA_BASE, "distilbert-base": configs.DISTILBERT_BASE,
    "t5-small": configs.T5_SMALL, "t5-v1_1-base": configs.T5_11_BASE, "flan-t5-xl": configs.FLAN_T5_XL,
    "mt5-small": configs.MT5_SMALL, "bart-base": configs.BART_BASE, "bart-large": configs.BART_LARGE,
    "opus-mt": configs.OPUS_MT,
}
# transformers' modules call these otherwise than files do (its conversion_mapping.py).
IN_FILES = {"gpt_neox": {"lm_head.weight": "embed_out.weight"}}


# As the Hub shows them.
PARAMETERS = {"gpt2": 124_439_808, "llama-2-7b": 6_738_415_616, "llama-3.1-8b": 8_030_261_248,
              "mistral-7b-0.1": 7_241_732_096, "gemma-2-2b": 2_614_341_888, "qwen2.5-7b": 7_615_616_512,
              "t5-v1_1-base": 247_577_856}


def their_tensors(fields):
    """Shapes by name of what save_pretrained would write: one name of those that are tied."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(**fields)
    with torch.device("meta"):
        model = getattr(transformers, fields["architectures"][0])(config)
    tied = set(model.all_tied_weights_keys)
    if "T5" in type(model).__name__ and not fields.get("tie_word_embeddings", True):
        tied -= {"lm_head.weight"}  # transformers 5 begins with one table for both, and parts them where a file does.
    names = IN_FILES.get(fields["model_type"], {})
    return {names.get(name, name): tuple(tensor.shape) for name, tensor in model.state_dict().items()
            if name not in tied}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_table_has_exactly_their_tensors(name):
    # Reddens with: a width, head size or number of layers read wrongly, a tensor too many or too few, a fused tensor
    # cut where heads are shared, an output layer tied where the file has one of its own.
    fields = PUBLISHED[name]
    family = family_of(fields["model_type"], name)
    task = family.TASKS[fields["architectures"][0]]
    model = read_model(family, fields, task, name)
    shapes = task_shapes(model, task)
    lines = lines_by_name(family.tensors(model, task), shapes)
    ours = {tensor: shape_of(found, shapes) for tensor, found in lines.items()}
    theirs = their_tensors(fields)
    assert ours == {tensor: shape for tensor, shape in theirs.items() if tensor in ours or not is_kept(family, tensor)}
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert total == sum(math.prod(theirs[tensor]) for tensor in ours)
    assert total == PARAMETERS.get(name, total)
