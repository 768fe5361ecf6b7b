"""Shared by all tests: programs compiled once per machine, nothing written to the user's own cache."""

import gc
import os
import pathlib
import sys
import tempfile

import pytest

# One cache for all workers and for the programs that tests start. It is kept between runs: most of the tests' time
# is compilation.
CACHE = pathlib.Path(os.environ.get("PURELM_TEST_CACHE") or pathlib.Path(tempfile.gettempdir()) / "purelm-test-cache")
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(CACHE / "compiled")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
# Compiled quickly rather than well: most of the tests' time is compilation.
# The older emitters of loops take half of the newer ones' time; an extra option that a version lacks is passed over.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
                                   "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory):
    os.environ["PURELM_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="module")
def _few_programs():
    """Forgets compiled programs before there are too many: each has mappings of memory, of which Linux lets a process
    have 65,530, and past that the compiler dies."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if "jax" in sys.modules and maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.fixture
def test_data() -> pathlib.Path:
    """The folder of real data sets, where there is one; tests that need it are skipped elsewhere."""
    root = pathlib.Path(__file__).resolve().parents[1]
    folder = pathlib.Path(os.environ.get("PURELM_TEST_DATA") or root.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs the data sets of {folder} (set PURELM_TEST_DATA)")
    return folder
