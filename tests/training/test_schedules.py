import math

import numpy as np
import pytest
from tiny import make_config

from purelm.training.schedules import learning_rate_at

PEAK = 0.5


def rates(schedule, *, num_steps=10, **optimizer):
    config = make_config(optimizer={"schedule": schedule, "learning_rate": PEAK} | optimizer,
                         training={"num_steps": num_steps})
    return [float(learning_rate_at(config, step)) for step in range(num_steps)]


# (rate of the first update, of the last, which no update has: the one after the last), for 10 steps without warm-up.
ENDS = {
    "constant": ({}, PEAK, PEAK),
    "linear": ({"final_fraction": 0.2}, PEAK, PEAK * (0.2 + 0.8 * 0.1)),
    "cosine": ({"final_fraction": 0.2}, PEAK, PEAK * (0.2 + 0.8 * 0.5 * (1 + math.cos(math.pi * 0.9)))),
    "wsd": ({"final_fraction": 0.2, "decay": "5"}, PEAK, PEAK * (0.2 + 0.8 * 0.2)),
    "inverse_sqrt": ({}, PEAK, PEAK / math.sqrt(10)),
}


@pytest.mark.parametrize("schedule", ENDS)
def test_first_and_last_update(schedule):
    # Reddens on an off-by-one at either end.
    options, first, last = ENDS[schedule]
    values = rates(schedule, **options)
    np.testing.assert_allclose([values[0], values[-1]], [first, last], rtol=1e-6)
    config = make_config(optimizer={"schedule": schedule, "learning_rate": PEAK} | options, training={"num_steps": 10})
    if schedule in ("linear", "cosine", "wsd"):
        np.testing.assert_allclose(learning_rate_at(config, 10), 0.2 * PEAK, rtol=1e-6)


@pytest.mark.parametrize("schedule", ENDS)
@pytest.mark.parametrize("warmup", [1, 4])
def test_warmup_is_linear_and_ends_at_the_peak(schedule, warmup):
    values = rates(schedule, warmup=str(warmup), final_fraction=0.1, **({"decay": "2"} if schedule == "wsd" else {}))
    np.testing.assert_allclose(values[:warmup], PEAK * np.arange(1, warmup + 1) / warmup, rtol=1e-6)
    assert all(after <= before + 1e-7 for before, after in zip(values[warmup - 1:], values[warmup:]))
    if schedule != "inverse_sqrt":
        assert values[warmup] == pytest.approx(PEAK)  # the decay is counted from the end of the warm-up


def test_wsd_is_flat_until_its_decay():
    values = rates("wsd", warmup="2", decay="4")
    np.testing.assert_allclose(values, PEAK * np.array([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]), rtol=1e-6)


def test_inverse_sqrt_is_vaswanis():
    width, warmup = 512, 4
    theirs = [width**-0.5 * min(step**-0.5, step * warmup**-1.5) for step in range(1, 11)]
    ours = rates("inverse_sqrt", warmup=str(warmup))
    np.testing.assert_allclose(np.array(ours) / PEAK, np.array(theirs) / max(theirs), rtol=1e-6)
    assert min(rates("inverse_sqrt", num_steps=100, final_fraction=0.3)) == pytest.approx(0.3 * PEAK)


@pytest.mark.parametrize("schedule", ENDS)
def test_a_run_that_is_all_warmup(schedule):
    values = rates(schedule, num_steps=3, warmup="3", **({"decay": "2"} if schedule == "wsd" else {}))
    np.testing.assert_allclose(values, PEAK * np.array([1, 2, 3]) / 3, rtol=1e-6)
