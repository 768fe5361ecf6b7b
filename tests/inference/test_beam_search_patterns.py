"""Beam search with a window in some layers alone: the exhaustive best of test_beam_search_models."""

from __future__ import annotations

import pytest
from test_beam_search_models import LENGTHS, PROMPTS, assert_best, continue_prompts, every_score, small

CONFIGS = {
    "rope": small(positions="rope", attention_window=2, attention_pattern=("full", "window"), rope_local_base=50.0),
    "alibi": small(positions="alibi", attention_window=3, attention_pattern=("window", "full"), num_layers=3),
}


@pytest.mark.parametrize("name", ["rope", pytest.param("alibi", marks=pytest.mark.slow)])
def test_a_wide_beam_finds_the_best_continuations_with_windows_in_some_layers(name):
    # Reddens where all layers of a hypothesis see one mask.
    found = continue_prompts(CONFIGS[name])
    for row, length in enumerate(LENGTHS):
        assert_best(found, row, every_score(CONFIGS[name], PROMPTS[row, :length], {}, 0.8))
