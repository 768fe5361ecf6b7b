"""Token automata against Python's re and str.find, over tokenizers of bytes, characters, words, and pieces of text."""

from __future__ import annotations

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from purelm.data.tokenizers import ByteTokenizer, CharacterTokenizer, WordTokenizer
from purelm.errors import UserError
from purelm.inference import automata, byte_automata, regular_expressions
from purelm.inference.automata import (
    advance,
    allowed,
    allowed_with_end,
    cut_at_stop,
    exhausted,
    found,
    held_back,
    regex,
    stop_strings,
)

BYTES = ByteTokenizer(False).token_bytes
# Pieces that cross characters (of 你 and 好 too), a token twice, and one without text.
PIECES = [b"", b"a", b"b", b"c", b"ab", b"bc", b"abc", b"cab", b"aa", b" ", b"a b", "你".encode(), "你".encode()[:2],
          "你".encode()[2:], "好".encode()[:1], "好".encode()[1:], "你好".encode()[2:], b"1", b"23", b"-", b"ab",
          "é".encode(), b"\n", b"aB"]


def run(automaton, ids) -> list[int] | None:
    """The states from the start on, by the public functions; None where a token is not allowed."""
    states = [np.zeros(1, np.int32)]
    for i in ids:
        if not allowed(automaton, states[-1])[0, i]:
            return None
        states.append(advance(automaton, states[-1], np.array([i])))
    return [int(state[0]) for state in states]


def random_ids(rng, automaton, token_bytes, length):
    """A path of allowed tokens, which ends where it must or, at times, where it may."""
    state, ids = np.zeros(1, np.int32), []
    for _ in range(length):
        choices = np.flatnonzero(allowed(automaton, state)[0])
        if not len(choices) or (found(automaton, state)[0] and rng.random() < 0.2):
            break
        ids.append(int(rng.choice(choices)))
        state = advance(automaton, state, np.array(ids[-1:]))
    return ids, bool(found(automaton, state)[0])


PATTERNS = ["a*b", "(a|ab)(c|bcd?)?", "(你|好)+x?", "[^a]{1,3}", ".{0,3}", "[ab]{2,4}c|1", "(?i)ab+é?", r"-?\d{1,3}",
            "(a|b)*a(a|b){3}", "", "^(ab|^a)$", "(?s:.)b?", r"\w+ \w+", "(?:a(?:b(?:c)?)?)?", "a{2}|b??",
            "[^\\W\\d]\\s", "(?:[ab]*c){0,2}"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_regex_is_that_of_python_on_every_text(pattern):
    # Reddens with: a prefix of a longer alternative lost, bounds off by one, part of a character, a class of tokens
    # that are not alike. Texts are both random and allowed paths, changed in one place.
    rng = np.random.default_rng(0)
    automaton = regex(PIECES, pattern)
    pattern = re.compile(pattern)
    accepted = 0
    for _ in range(150):
        ids, _ = random_ids(rng, automaton, PIECES, 6)
        if rng.random() < 0.6:
            ids = [*ids, *rng.integers(1, len(PIECES), 2)][:int(rng.integers(1, 8))]
            ids[rng.integers(len(ids))] = int(rng.integers(1, len(PIECES)))
        states = run(automaton, ids)
        try:
            text = b"".join(PIECES[i] for i in ids).decode()
            expected = pattern.fullmatch(text) is not None
        except UnicodeDecodeError:
            expected = False
        final = states is not None and bool(automaton.final_Q[states[-1]])
        assert final == expected, ids
        accepted += final
    assert accepted > 10


@pytest.mark.parametrize("pattern", ["(你|好)+x?", "[^a]{1,3}", r"\d+(,\d+)*", "(?i)[à-ü]+", r"\w{2}", "[a-f0-9]{1,9}"])
@pytest.mark.parametrize("token_bytes", [BYTES, PIECES[1:] + BYTES], ids=["bytes", "pieces"])
def test_every_allowed_path_can_be_finished_and_then_matches(pattern, token_bytes):
    # Reddens where a state leads nowhere, where the end is allowed too early, and where bytes make no character.
    rng = np.random.default_rng(1)
    automaton = regex(token_bytes, pattern)
    finished = 0
    for _ in range(60):
        ids, final = random_ids(rng, automaton, token_bytes, 30)
        if final:
            assert re.fullmatch(pattern, b"".join(token_bytes[i] for i in ids).decode())
            finished += 1
    assert finished > 20
    next_QC = np.asarray(automaton.next_QC)
    can_end_Q = np.asarray(automaton.final_Q).copy()
    for _ in range(len(next_QC)):
        can_end_Q |= ((next_QC >= 0) & can_end_Q[next_QC]).any(axis=1)
    assert can_end_Q.all()


def test_sets_of_characters_are_those_of_python():
    # Every code point; reddens with an overlong or surrogate encoding, or a wrong plane.
    characters = [chr(i) for i in (*range(0, 0xD800, 7), *range(0xE000, 0x110000, 101), 0x7F, 0x80, 0x7FF, 0x800,
                                   0xD7FF, 0xFFFF, 0x10000, 0x10FFFF)]
    for pattern in (r"\w", r"[^\s\d]", "(?i:[k-pſ])", r"[\u0100-\U00020000]", "."):
        table_QB, final_Q = regular_expressions.byte_automaton(pattern, "regex")
        compiled = re.compile(pattern)
        for character in characters:
            state = 0
            for byte in character.encode():
                state = table_QB[state, byte] if state >= 0 else -1
            assert (state >= 0 and bool(final_Q[state])) == bool(compiled.fullmatch(character)), (pattern, character)
        assert (table_QB[0, 0x80:0xC2] < 0).all()
        # Half a surrogate pair is no UTF-8.
        assert table_QB[0, 0xED] < 0 or table_QB[table_QB[0, 0xED], 0xA0] < 0


SCHEMA = {"type": "object", "properties": {
    "名字": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}, "tags": {
        "type": "array", "items": {"enum": ["甲", "b"]}, "maxItems": 3}}, "required": ["名字", "age"]}


def test_json_of_a_schema():
    pytest.importorskip("outlines_core")
    rng = np.random.default_rng(2)
    automaton = automata.json_schema(BYTES, SCHEMA)
    assert automaton.next_QC.size < 10_000
    texts = set()
    for _ in range(30):
        ids, final = random_ids(rng, automaton, BYTES, 300)
        if not final:
            continue
        answer = json.loads(bytes(ids).decode())
        texts.add(bytes(ids))
        assert isinstance(answer["名字"], str) and isinstance(answer["age"], int)
        assert set(answer) <= set(SCHEMA["properties"]) and set(answer.get("tags", [])) <= {"甲", "b"}
    assert len(texts) > 10
    assert run(automaton, '{"名字":"你好","age":3}'.encode()) is not None
    assert run(automaton, b'{"age"') is None
    # A bound on the length: the library's own automaton takes longer than a life for this one.
    assert run(automata.json_schema(BYTES, {"type": "string", "maxLength": 60}), b'"' + b"a" * 61) is None


def test_characters_that_the_tokenizer_lacks():
    tokenizer = CharacterTokenizer("abc1", end_of_text=True)
    options = {"special_ids": [tokenizer.end_of_text_id]}
    with pytest.raises(UserError, match="has no token for 'x', '你'") as error:
        regex(tokenizer.token_bytes, "a(x|xx)你?你", **options)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no text matches"):
        regex(tokenizer.token_bytes, r"[^\s\S]", **options)
    # Ways that lead nowhere are closed from the start, not found out later.
    automaton = regex(tokenizer.token_bytes, "ax|bc|[xc]1", **options)
    assert np.flatnonzero(allowed(automaton, np.zeros(1, int))[0]).tolist() == [2, 3]
    # The end-of-text token's own bytes are no text.
    assert not allowed(regex(tokenizer.token_bytes, ".*", **options), np.zeros(1, int))[0, tokenizer.end_of_text_id]


@pytest.mark.parametrize("pattern, word", [
    ("(", "regex is not a regular expression"), ("a(?=b)", "lookahead"), (r"(a)\1", "back reference"),
    (r"a\bb", "assertion"), ("a++", "possessive"), ("(a|b)*a(a|b){20}", "too large"), ("(a{1,1000}){1,1000}", "large"),
    ("(((){9999}){9999}){9999}", "large"), ("a\ud800", "Unicode"), ("(" * 5000 + ")" * 5000, "nested"),
    ("(.{0,200}){0,200}", "large"), pytest.param("(a?){3000}a{3000}", "large", marks=pytest.mark.slow),
], ids=lambda value: value[:20].encode("ascii", "backslashreplace").decode())
def test_expressions_that_are_refused(pattern, word):
    with pytest.raises(UserError, match=word) as error:
        regex(BYTES, pattern)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("schema", ["{", "[]", '{"type": "strin"}', '{"$ref": "#/x"}', json.dumps(
    {"type": "object", "properties": {f"p{i}": {"$ref": "#"} for i in range(60)}})], ids=lambda text: text[:15])
def test_schemas_that_are_refused(schema):
    pytest.importorskip("outlines_core")
    with pytest.raises(UserError, match="json_schema") as error:
        automata.json_schema(BYTES, schema)
    assert "\n" not in str(error.value)


def test_tables_have_a_bound(monkeypatch):
    monkeypatch.setattr(byte_automata, "MAX_ENTRIES", 100)
    with pytest.raises(UserError, match="too large for this vocabulary"):
        regex(BYTES, "[a-z]{60}é")
    monkeypatch.setattr(byte_automata, "MAX_PAIRS", 1000)
    with pytest.raises(UserError, match="too large for this vocabulary"):
        stop_strings(BYTES, ["x" * 200])


@pytest.mark.parametrize("stops", [["ab"], ["abc", "b c"], ["aab", "ab", "你好", "\n"], ["ca", "abca", "好"],
                                   ["bc", "abcab1"]], ids=str)
def test_stop_strings_are_found_where_str_find_finds_them(stops):
    # Reddens with: a match that starts inside of a token, or ends in one, lost; failure links; a match forgotten.
    rng = np.random.default_rng(3)
    automaton = stop_strings(PIECES, stops)
    assert allowed(automaton, np.arange(len(automaton.final_Q))).all()
    hits = 0
    for _ in range(200):
        ids = rng.integers(0, len(PIECES), 12)
        states = run(automaton, ids)
        for end, state in enumerate(states):
            text = b"".join(PIECES[i] for i in ids[:end]).decode(errors="replace")
            assert automaton.final_Q[state] == any(stop in text for stop in stops)
        hits += bool(automaton.final_Q[states[-1]])
    assert 20 < hits < 200 or len(stops) > 2


def test_tokens_that_are_words_have_a_space_between():
    tokenizer = WordTokenizer.train(["red blue green . red"], 20, end_of_text=True)
    options = {"special_ids": [0, tokenizer.end_of_text_id], "separator": tokenizer.separator}
    stop = stop_strings(tokenizer.token_bytes, ["d b"], **options)
    assert stop.final_Q[run(stop, tokenizer.encode("red blue"))[-1]]
    assert not stop.final_Q[run(stop, [*tokenizer.encode("red red green blue")])[-1]]
    colors = regex(tokenizer.token_bytes, r"(red|green)( (red|green))* \.", **options)
    for text, good in (("red .", True), ("red green red .", True), ("red blue", False), (".", False)):
        states = run(colors, tokenizer.encode(text))
        assert (states is not None) == good and (not good or colors.final_Q[states[-1]])


def test_cut_and_held_back_agree_with_a_reader_of_characters():
    # Reddens with: the first in the list in place of the first to be complete, the shorter of two that end together.
    rng = np.random.default_rng(4)
    for _ in range(300):
        stops = ["".join(rng.choice(list("ab"), rng.integers(1, 5))) for _ in range(rng.integers(1, 4))]
        text = "".join(rng.choice(list("abc"), 12))
        expected, stop, shown = text, None, 0
        for end in range(1, len(text) + 1):
            complete = [stop for stop in stops if text[:end].endswith(stop)]
            if complete:
                stop = max(complete, key=len)
                expected = text[:end - len(stop)]
                break
            shown = max(shown, end - held_back(text[:end], stops))
        assert cut_at_stop(text, stops) == (expected, stop)
        # What was shown is never taken back.
        assert shown <= len(expected)
    assert held_back("xa\n\nUs", ["\n\nUser:"]) == 4
    assert held_back("xa\n\nUs", []) == 0 and held_back("", ["ab"]) == 0 and held_back("ab", ["ab"]) == 0
    assert cut_at_stop("abc", []) == ("abc", None)


@pytest.mark.parametrize("stops, word", [([], "stop"), ([""], "empty"), (["\ud800"], "Unicode")], ids=["0", "1", "2"])
def test_stop_strings_that_are_refused(stops, word):
    with pytest.raises(UserError, match=word):
        stop_strings(BYTES, stops)


def test_the_end_is_allowed_in_final_states_and_padding_never():
    # Reddens where the end is allowed by its bytes, in every state, or for all rows by the first one's stop id.
    automaton = regex([b"a", b"b", b"<end>"], "ab?|aab", special_ids=[2])
    states = [run(automaton, ids)[-1] for ids in ([], [0], [0, 0], [0, 1])]
    expected = [[1, 0, 0, 0], [1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    in_numpy = allowed_with_end(automaton, np.array(states), 2, 4)
    np.testing.assert_array_equal(in_numpy, np.array(expected, bool))
    per_row = allowed_with_end(automaton, np.array(states), np.array([2, -1, 2, 3]), 4)
    np.testing.assert_array_equal(per_row[:, 2:], [[0, 0], [0, 0], [0, 0], [0, 1]])
    assert exhausted(automaton, np.array(states)).tolist() == [False, False, False, True]
    compiled = jax.jit(lambda automaton, states, ids: (
        allowed_with_end(automaton, states, 2, 4), advance(automaton, states, ids), found(automaton, states),
        exhausted(automaton, states)))
    ids = np.array([0, 1, 2, 3])
    in_jax = compiled(jax.tree.map(jnp.asarray, automaton), jnp.asarray(states), jnp.asarray(ids))
    np.testing.assert_array_equal(in_jax[0], in_numpy)
    # The end, and ids that the automaton does not know, leave a row where it is.
    np.testing.assert_array_equal(in_jax[1], [states[1], states[3], states[2], states[3]])
    np.testing.assert_array_equal(in_jax[1], advance(automaton, np.array(states), ids))
    assert in_jax[2].tolist() == [False, True, False, True] and in_jax[3].tolist() == [False, False, False, True]


def test_classes_are_few():
    # Reddens where tokens that do the same are of different classes.
    rng = np.random.default_rng(5)
    words = [bytes(rng.integers(97, 123, rng.integers(1, 9)).astype(np.uint8)) for _ in range(3000)]
    assert regex(words + BYTES, "[a-z]{1,20}").next_QC.shape[1] <= 20 + 2
    assert stop_strings(words + BYTES, ["\n\n", "User:"]).next_QC.shape[1] < 30
