"""The house rules that a machine can hold: which room may import which, and what is never imported."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "purelm"
# Each room may import itself and those before it.
ROOMS = ["errors", "config", "runtime", "cli", "data", "models", "tasks", "training", "inference", "evaluation",
         "interop", "serving", "ablation"]


def imports(path: pathlib.Path) -> set[str]:
    """Modules that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "purelm" and len(parts) > 1 and parts[1] in ROOMS else None


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_itself_and_those_before_it(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        assert not {found for module in imports(path) if (found := room(module))}
        return
    assert own in ROOMS, f"{own} is a new room: give it its place in ROOMS"
    later = set(ROOMS[ROOMS.index(own) + 1:])
    assert not {found for module in imports(path) if (found := room(module)) in later}


@pytest.mark.parametrize("path", [*sorted(PACKAGE.rglob("*.py")), *sorted((ROOT / "experiments").rglob("*.py"))],
                         ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_imports_tensorflow_and_the_library_no_oracle(path):
    roots = {module.split(".")[0] for module in imports(path)}
    assert "tensorflow" not in roots
    if PACKAGE in path.parents:
        assert not roots & {"torch", "transformers", "gensim", "pytest"}


def test_flags_and_config_are_read_without_jax():
    """What keeps --help and a misspelt flag quick."""
    code = ("import sys; import purelm.cli, purelm.config.presets, purelm.data; "
            "sys.exit(any(name in sys.modules for name in ('jax', 'flax', 'grain', 'orbax', 'matplotlib')))")
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
