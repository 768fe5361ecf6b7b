"""What needs no training: the source itself as its translation, its first sentences as its summary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from purelm.config import Config
from purelm.evaluation.sequence_to_sequence import measure
from purelm.tasks.sequence_to_sequence import pair_of

# After . ! or ? and what closes a quotation, before a space; after the full stops of Chinese.
_SENTENCE_END = re.compile(r"""(?<=[.!?])["')\]]*\s+|(?<=[。！？])["'”』」）]*""")


def baseline(data: Mapping[str, Sequence[Mapping[str, Any]]], config: Config) -> dict[str, Any]:
    """The metrics of config.task.metrics on the whole test split; nothing is learned.

    With rouge among them, of the first sentence of each source, and under "first_three_sentences" of three; else of the
    source as it is.

    Args:
      data: examples of "test".
      config: names the metrics; its data.prompt is taken off the sources.
    """
    examples = data["test"]
    sources = [pair_of(config, example)["source"].removeprefix(config.data.prompt) for example in examples]
    head = {"task": "sequence_to_sequence"}
    if "rouge" not in config.task.metrics:
        return head | {"model": "copied source"} | measure(config, examples, sources)
    first, three = (measure(config, examples, [lead(source, count) for source in sources]) for count in (1, 3))
    return head | {"model": "first sentence"} | first | {"first_three_sentences": three}


def lead(text: str, count: int) -> str:
    """The first `count` sentences of a text, cut where a full stop, ! or ? is followed by a space."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text) if match.end()]
    return (text if len(ends) < count else text[:ends[count - 1]]).strip()
