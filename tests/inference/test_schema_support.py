"""Schemas whose answers would not be held to all that they say."""

import pytest

from purelm.errors import UserError
from purelm.inference.constraints import of_schema
from purelm.inference.schema_support import check_support

INTEGER, TEXT = {"type": "integer"}, {"type": "string"}


@pytest.mark.parametrize("schema, words", [
    ({**INTEGER, "minimum": 0}, "json_schema: minimum"),
    ({"type": "object", "properties": {"age": {"anyOf": [TEXT, {**INTEGER, "multipleOf": 2}]}}},
     "at properties.age.anyOf[1]: multipleOf"),
    ({"$defs": {"a": {"type": "array", "items": {"not": TEXT}}}, "$ref": "#/$defs/a"}, "at $defs.a.items: not"),
    ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    ({**TEXT, "pattern": "a+", "maxLength": 3}, "pattern does not go with"),
    ({"allOf": [INTEGER, TEXT]}, "allOf"),
    ({"enum": []}, "enum is empty"),
    ({"type": "object", "properties": {"a": TEXT}, "required": ["a", "b"]}, "'b'")])
def test_what_answers_could_break_is_refused(schema, words):
    """Reddens where a part is not looked into, or a keyword is let through, which outlines_core ignores."""
    with pytest.raises(UserError) as error:
        check_support(schema)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_all_else_is_let_through():
    check_support({"type": "object", "title": "T", "properties": {
        "not": {**TEXT, "pattern": "a+"}, "minimum": {"type": "array", "uniqueItems": False, "items": INTEGER},
        "c": {"enum": [{"minimum": 1}]}, "d": {"const": {"not": 2}}, "e": {"allOf": [{"$ref": "#"}]},
        "f": {**TEXT, "minLength": 2, "maxLength": 5}}, "required": ["c"], "additionalProperties": False})
    check_support(True)


@pytest.mark.parametrize("text", ["[" * 10_000, '{"const": ' + "9" * 5000 + "}"], ids=("deep", "long number"))
def test_text_that_python_cannot_read_is_refused(text):
    with pytest.raises(UserError, match="cannot be read"):
        of_schema(text)
