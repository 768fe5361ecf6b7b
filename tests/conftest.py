"""Shared by all tests: programs compiled once per machine, nothing written to the user's own cache."""

import collections
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
# One module of LLVM a program: cut into 32 to be compiled side by side, it takes a fifth more of a busy machine.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
                                   "--xla_cpu_parallel_codegen_split_count=1 "
                                   "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters")
# Imports and tracing make many objects and little garbage; searching them at Python's own pace is a tenth of the time.
gc.set_threshold(100_000, 50, 50)
# Threads of BLAS and of PyTorch wait for each other by spinning, over matrices of a few numbers.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("HF_HUB_OFFLINE", "1")


# Tests with many costly rows: `make test` runs every second or third of them, `make test-all` all.
ROWS_A_STEP = {
    "test_a_mistake_gets_one_line_and_leaves_nothing": 3,
    "test_a_config_trains_a_step": 3,
    "test_every_parameter_gets_a_gradient_within_a_few_steps": 3,
    "test_cached_logits_equal_the_full_forward": 3,
    "test_packed_documents_equal_each_alone": 2,
    "test_padding_changes_nothing_and_rows_are_independent": 2,
    "test_scan_remat_and_xla_change_nothing": 2,
    "test_combinations_that_make_no_sense_are_refused": 3,
    "test_cells_together_are_the_runs_alone": 3,
    "test_the_answer_is_generates": 2,
    "test_tokens_are_those_of_the_equation": 2,
    "test_schemas_that_are_refused": 2,
    "test_a_wide_beam_finds_the_best_continuations": 2,
    "test_answers_are_drawn_as_configured": 2,
    "test_every_option_has_its_distribution": 2,
    "test_every_field_changes_something": 3,
    "test_further_values_of_a_switch_change_the_program_or_the_parameters": 2,
    "test_gradient_is_zero_after_the_probe_and_nowhere_before": 2,
    "test_tokens_are_those_of_the_full_forward": 2,
    "test_padding_to_the_longest_of_a_step_changes_nothing": 2,
    "test_a_model_with_quantized_weights": 3,
    "test_scan_and_remat_change_neither_loss_nor_gradients": 2,
    "test_xla_equals_naive": 2,
    "test_steps_equal_the_full_forward_while_rows_move": 2,
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the rows between as slow, before slow tests are deselected."""
    seen = collections.Counter()
    for item in items:
        name = getattr(item, "originalname", None)
        if name in ROWS_A_STEP:
            row = seen[item.path, name]
            seen[item.path, name] += 1
            if row % ROWS_A_STEP[name]:
                item.add_marker(pytest.mark.slow)


def pytest_collection_finish():
    """Takes what was imported out of the garbage collector's searches."""
    gc.freeze()


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
