"""Where sentences end."""

import pytest

from purelm.data.sentences import split_sentences


@pytest.mark.parametrize("text, expected", [
    ("A cat sleeps. It is old!  Is it? Yes", ["A cat sleeps.", "It is old!", "Is it?", "Yes"]),
    ("Sets, e.g. Objects, i.e. Things (cf. Fig. 2), of Smith et al. Are hard. We do it.",
     ["Sets, e.g. Objects, i.e. Things (cf. Fig. 2), of Smith et al. Are hard.", "We do it."]),
    ("We use an approximator. of sorts. The end.", ["We use an approximator. of sorts.", "The end."]),
    ("It is by J. Smith. It works.", ["It is by J. Smith.", "It works."]),
    ("Gains of 3.5 points. On v1.2.", ["Gains of 3.5 points.", "On v1.2."]),
    ("He said \"go.\" Then he left (at last.) So?! wait", ['He said "go."', "Then he left (at last.)", "So?!", "wait"]),
    ("我们提出方法。它很快！为什么？“因为。”好", ["我们提出方法。", "它很快！", "为什么？", "“因为。”", "好"]),
    ("A heading\n\nA text\nover lines. More", ["A heading", "A text\nover lines.", "More"]),
    ("one", ["one"]), (" \n ", []), ("", []), ("...", ["..."]),
])
def test_sentences(text, expected):
    """Reddens without the abbreviations, the initials, the lower case or the closing marks."""
    assert split_sentences(text) == expected
