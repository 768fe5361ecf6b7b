"""What a person reads before a run: --help, --help_config, --print_config, --dry_run, and the bar while it goes."""

import json
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

from purelm.config import Config, from_dict
from purelm.config.describe import field_lines

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIG = f"--config={ROOT}/configs/lm/shakespeare_char.py:cpu"


def program(name: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(ROOT / "experiments" / f"{name}.py"), *arguments], text=True,
                          capture_output=True, timeout=120, **options)


@pytest.mark.parametrize("name", ["train", "evaluate", "generate", "benchmark"])
def test_help_is_short_and_names_each_flag_of_the_program(name):
    done = program(name, "--help")
    source = (ROOT / "experiments" / f"{name}.py").read_text()
    assert done.returncode == 0 and "python experiments" in done.stdout
    assert len(done.stdout.splitlines()) < (45 if name == "generate" else 30)
    for flag in re.findall(r'flags\.DEFINE_\w+\("(\w+)"', source):
        assert f"--{flag}:" in done.stdout


def test_help_config_lists_every_field_with_its_choices():
    text = "\n".join(field_lines())
    assert program("train", "--help_config").stdout == text + "\n"
    assert text.count("--config.") == sum(len(vars(section)) if hasattr(section, "__dict__") else 1
                                          for section in vars(Config()).values())
    assert "rope, alibi, t5. (default: learned)" in text


def test_printed_config_is_a_config_and_a_json_config_can_be_launched(tmp_path):
    printed = program("train", CONFIG, "--print_config", "--config.model.width=64", "--config.model.bias=true",
                      "--config.training.num_steps=none", "--config.training.num_tokens=1e6")
    config = from_dict(json.loads(printed.stdout))
    assert (config.model.width, config.model.bias, config.training.num_tokens) == (64, True, 10**6)
    (tmp_path / "config.json").write_text(printed.stdout)
    again = program("train", f"--config={tmp_path}/config.json", "--print_config", "--config.seed=7")
    assert from_dict(json.loads(again.stdout)) == from_dict({**json.loads(printed.stdout), "seed": 7})


def test_dry_run_says_the_costs_and_writes_nothing(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be " * 300)
    done = program("train", CONFIG, f"--config.data.path={text}", "--config.model.num_layers=1", "--dry_run",
                   cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    # One layer of 12 x 128^2 and two norms, the final norm, the embedding and 64 positions; 7 different characters.
    parameters = 12 * 128**2 + 3 * 128 + 7 * 128 + 64 * 128
    assert f"{parameters:,} parameters" in done.stdout
    assert f"{6 * (12 * 128**2 + 7 * 128) + 12 * 128 * 64:,} FLOPs a token" in done.stdout
    assert "MiB of temporaries" in done.stdout and [path.name for path in tmp_path.iterdir()] == ["text.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_on_a_terminal_there_is_a_bar_and_elsewhere_plain_lines():
    import os
    import pty

    code = ("import time; from purelm.training.progress import Progress; p = Progress(first_step=0, num_steps=4);\n"
            "for i in range(1, 5): p.advance(i); p.log(i, loss=1.25, speed=10.0)\n"
            "p.note('a note'); p.close()")
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stderr
    assert plain.splitlines()[-2:] == ["step 4/4  loss 1.2500  10 tokens/s  0:00 left", "a note"]
    assert "\x1b" not in plain
    main, side = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stderr=side, env={**os.environ, "TERM": "xterm"})
    process.wait(60)
    time.sleep(0.1)
    shown = os.read(main, 65536).decode()
    os.close(side), os.close(main)
    assert "4/4" in shown and "loss 1.2500" in shown and "\x1b[" in shown and "a note" in shown


def test_ctrl_c_before_training_stops_although_a_callback_would_swallow_it(tmp_path):
    (tmp_path / "config.py").write_text("import os, signal\nclass Callback:\n    def __del__(self):\n"
                                        "        os.kill(os.getpid(), signal.SIGINT)\nCallback()\n"
                                        "import time\ntime.sleep(5)\n")  # The system may give the signal a moment.
    # A shell starts what it puts in the background with SIGINT ignored, these tests too; a terminal does not.
    done = program("train", f"--config={tmp_path}/config.py", f"--workdir={tmp_path}/run",
                   preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    assert done.returncode == 130 and done.stderr == "error: interrupted\n"


def test_too_little_memory_is_one_line():
    # Reddens where a batch or a beam that does not fit, in evaluate or predict, ends in a traceback.
    code = ("from purelm import cli\ndef main(): raise RuntimeError('RESOURCE_EXHAUSTED: allocating 7 bytes')\n"
            "cli.run(main, '')")
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, timeout=60)
    assert done.returncode == 2 and done.stderr.startswith("error: out of memory (RESOURCE_EXHAUSTED: allocating 7")
    assert len(done.stderr.splitlines()) == 1
