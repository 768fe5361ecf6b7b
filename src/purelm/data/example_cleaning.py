"""The steps of config.data.cleaning on the texts of examples."""

from __future__ import annotations

import collections
import hashlib
import json
from collections.abc import Callable
from typing import Any

from purelm.config import DataConfig
from purelm.data.cleaning import OFFSET_KEEPING, STEPS, check_steps
from purelm.data.example_recipe import Example
from purelm.data.formats import TEXTS, repair_answer
from purelm.errors import UserError


class ExampleCleaner:
    """Takes examples of one format through the named steps, and counts what was changed and dropped.

    `exact_duplicates` drops training examples that were seen before, in held-out splits or in training.

    Attributes:
        counts: numbers by what they count.
        first: where the first of those stands that were dropped or repaired, by the same names.

    With `offsets` false, places of answers (format squad) are of no matter.

    Raises UserError for a step that does not exist, or, of the format squad, one that would move answers.
    """

    def __init__(self, data: DataConfig, format_name: str, *, offsets: bool = True):
        check_steps(data.cleaning)
        self._offsets = offsets and format_name == "squad"
        if self._offsets:
            for name in data.cleaning:
                if name not in OFFSET_KEEPING:
                    raise UserError(f"config.data.cleaning: the step '{name}' would move the answers of the format "
                                    f"squad, which are places in the context; it can have "
                                    f"{', '.join(OFFSET_KEEPING)}")
        self._format, self._prompt = format_name, data.prompt if format_name == "pairs" else ""
        self._steps = [(name, STEPS[name]()) for name in data.cleaning if name != "exact_duplicates"]
        self._seen: set[bytes] | None = set() if "exact_duplicates" in data.cleaning else None
        self.counts: collections.Counter[str] = collections.Counter()
        self.first: dict[str, str] = {}

    def clean(self, example: Example) -> Example:
        """The example with cleaned texts; some may have become empty."""
        if self._format == "squad":
            return self._clean_squad(example)
        cleaned = dict(example)
        for key in TEXTS[self._format]:
            cleaned[key] = self._clean_value(example[key], self._prompt if key == "source" else "")
        if self._format == "pairs" and cleaned["targets"] is not None:
            cleaned["targets"] = [text for text in cleaned["targets"] if text.strip()]
        return cleaned

    def keep(self, example: Example, *, held_out: bool) -> Example | None:
        """The example, cleaned and with its answers in their places, or None where it is dropped (and counted).

        Of `held_out` examples, those to be scored, only such are dropped as have no text.
        """
        self.counts["read"] += 1
        cleaned = self.clean(example)
        if self._is_empty(cleaned):
            return self._drop("empty", example)
        if self._seen is not None:
            digest = _digest(cleaned)
            if digest in self._seen and not held_out:
                return self._drop("duplicates", example)
            self._seen.add(digest)
        if self._offsets and cleaned["answers"] is not None:
            return self._place_answers(cleaned, held_out)
        return cleaned

    def _drop(self, what: str, example: Example) -> None:
        self.counts[what] += 1
        self.first.setdefault(what, example["where"])

    def _clean_text(self, text: str) -> str:
        for name, step in self._steps:
            if not text:
                break
            cleaned = step(text) or ""
            if cleaned != text:
                self.counts[f"changed by {name}"] += 1
            text = cleaned
        return text

    def _clean_value(self, value: Any, prompt: str) -> Any:
        if value is None:
            return None
        if isinstance(value, str):
            return prompt + self._clean_text(value[len(prompt):])
        return [self._clean_text(item) if isinstance(item, str) else {**item, "text": self._clean_text(item["text"])}
                for item in value]

    def _clean_squad(self, example: Example) -> Example:
        """An answer's place in the cleaned context is as many characters as the text before it, cleaned, has."""
        context = self._clean_text(example["context"])
        answers = example["answers"]
        if answers is not None and context != example["context"]:
            silent = _in_turn([step for _, step in self._steps])
            answers = [{"text": silent(answer["text"]), "start": len(silent(example["context"][:answer["start"]]))
                        if answer["start"] >= 0 else -1} for answer in answers]
        if answers is not None:
            answers = [answer for answer in answers if answer["text"].strip()]
        return {**example, "context": context, "question": self._clean_text(example["question"]), "answers": answers}

    def _is_empty(self, example: Example) -> bool:
        """Whether there is no text where the format wants some."""
        if self._format == "tags":
            return not example["tokens"]
        if self._format == "squad" and example["answers"] == []:
            return True
        for key in TEXTS[self._format]:
            value = example[key]
            if value is None:
                continue
            if isinstance(value, str):
                if not value[len(self._prompt) if key == "source" else 0:].strip():
                    return True
            elif not value or not all((item if isinstance(item, str) else item["text"]).strip() for item in value):
                return True
        return False

    def _place_answers(self, example: Example, held_out: bool) -> Example | None:
        """Answers put where they stand. In training, those that cannot be are dropped, and with the last of them the
        example; in held-out splits they stay as they are, since answers are judged by their text."""
        answers = []
        for answer in example["answers"]:
            verdict, start = repair_answer(example["context"], answer)
            if verdict != "right":
                self.first.setdefault("wrong answer offsets", example["where"])
                self.counts["wrong answer offsets"] += 1
                self.counts[f"wrong answer offsets {'kept' if verdict == 'dropped' and held_out else verdict}"] += 1
            if verdict != "dropped":
                answers.append({"text": answer["text"], "start": start})
            elif held_out:
                answers.append(answer)
        if not answers:
            return self._drop("without an answer left", example)
        return {**example, "answers": answers}


def _in_turn(steps: list[Callable[[str], str | None]]) -> Callable[[str], str]:
    def run(text: str) -> str:
        for step in steps:
            text = step(text) or ""
        return text
    return run


def _digest(example: Example) -> bytes:
    content = {key: value for key, value in example.items() if key not in ("where", "id", "task_id")}
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=8).digest()
