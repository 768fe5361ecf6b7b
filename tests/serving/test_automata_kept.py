"""Which automata a server keeps."""

from purelm.data.tokenizers import ByteTokenizer
from purelm.serving import automata as module
from purelm.serving.automata import Automata


def test_the_least_used_go_where_too_many_or_too_large_ones_are_kept(monkeypatch):
    """Reddens where memory grows with every constraint, or one that is used is compiled again."""
    automata = Automata(ByteTokenizer(True), 257)
    monkeypatch.setattr(module, "_MOST_KEPT", 3)
    made = [automata.get("regex", f"a{number}") for number in range(3)]
    assert automata.get("regex", "a0") is made[0]
    automata.get("stop", ("a",))
    assert automata.kept("regex", "a1") is None
    assert automata.kept("regex", "a0") is made[0] and automata.kept("regex", "a2") is made[2]
    monkeypatch.setattr(module, "_MOST_BYTES", 1)
    last = automata.get("regex", "b")
    assert automata.kept("regex", "b") is last and automata.kept("regex", "a2") is None
