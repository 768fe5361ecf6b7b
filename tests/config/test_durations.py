import pytest

from purelm.config.durations import parse_duration, to_steps
from purelm.errors import UserError

RUN = {"tokens_per_step": 1000, "tokens_per_epoch": 50_000, "num_steps": 200}


@pytest.mark.parametrize("text, steps", [
    ("100", 100), ("100 steps", 100), ("1e3", 1000), ("2 epochs", 100), ("0.5epochs", 25), ("1 epoch", 50),
    ("1e6 tokens", 1000), ("1001 tokens", 2), ("5%", 10), ("7%", 14), ("14%", 28), ("55%", 110),
    ("0.1 percent", 1), ("0", 0),
])
def test_each_unit_becomes_steps(text, steps):
    assert to_steps(*parse_duration(text, "here"), **RUN) == steps


@pytest.mark.parametrize("text", ["", "ten", "-5", "5 minutes", "1.5", "5%%", "1e-1 steps"])
def test_what_is_no_duration_is_named_with_its_field(text):
    with pytest.raises(UserError, match="config.training.log_every"):
        parse_duration(text, "config.training.log_every")
