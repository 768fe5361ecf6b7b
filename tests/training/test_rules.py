import jax
import pytest
from jax.sharding import PartitionSpec

from purelm.errors import UserError
from purelm.training import rules
from purelm.training.parallel.sharding import parameter_specs

TREE = {"layers": {"attention": {"query": {"kernel": 1.0, "bias": 2.0}}}, "head": {"kernel": 3.0}}


def test_first_match_wins():
    # Reddens where the last match wins, or where an expression must match the whole path.
    values = rules.match_rules([("query/kernel", 5), ("kernel$", 6), (".*", 7)], TREE, "field")
    assert values == {"layers": {"attention": {"query": {"kernel": 5, "bias": 7}}}, "head": {"kernel": 6}}


def test_unmatched_names_the_parameter_and_the_field():
    with pytest.raises(UserError, match=r"config\.optimizer\.decay_rules.*'layers/attention/query/bias'"):
        rules.match_rules([("kernel", 1.0)], TREE, "config.optimizer.decay_rules")


def test_invalid_expression():
    with pytest.raises(UserError, match=r"config\.x: '\(' is not a regular expression") as caught:
        rules.match_rules([("(", 1.0)], TREE, "config.x")
    assert "\n" not in str(caught.value)


def test_sharding_rules_name_every_parameter():
    # Reddens where a parameter of any variant has no rule, or a rule splits a dimension the parameter does not have.
    from purelm.config import ModelConfig
    from purelm.models.transformer import Transformer

    variants = [
        {}, {"norm": "rms_norm", "norm_place": "sandwich", "qk_norm": True, "attention_sink": True, "positions": "t5",
             "tied_embeddings": False, "feed_forward": "swiglu", "embedding_norm": True, "num_kv_heads": 2},
        {"residual_scale": "rezero", "parallel_block": True, "positions": "rope"}, {"norm_place": "post"},
        {"layer_sharing": 2, "positions": "sinusoidal", "bias": False},
        {"architecture": "encoder", "token_types": 2, "head_transform": True, "head_bias": True},
        {"architecture": "encoder_decoder", "shared_embeddings": False, "positions": "t5", "attention_sink": True,
         "residual_scale": "rezero", "norm_place": "sandwich"},
        {"architecture": "encoder_decoder", "shared_embeddings": False, "embedding_width": 4, "norm_place": "output"},
        {"parallel_block": True, "parallel_norms": "separate", "embedding_width": 4, "tied_embeddings": False}]
    for variant in variants:
        sizes = {"vocabulary_size": 8, "num_layers": 2, "width": 8, "num_heads": 4, "context_length": 4}
        model = Transformer(ModelConfig(**sizes | variant))
        shapes = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 4), "int32"))["params"]
        specs = parameter_specs(shapes)
        jax.tree.map(lambda leaf, spec: leaf.shape[len(spec) - 1:] or pytest.fail(f"{spec} {leaf}"), shapes, specs,
                     is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))
    # A task's own output layer is whole on every device.
    assert parameter_specs({"layers": {}, "stars": {"kernel": 1.0}})["stars"]["kernel"] == PartitionSpec()
    with pytest.raises(UserError, match="'layers/new/thing'"):
        parameter_specs({"layers": {"new": {"thing": 1.0}}})
