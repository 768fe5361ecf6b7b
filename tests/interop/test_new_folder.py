"""A folder that is written whole or not at all, whatever ends the process."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from purelm.errors import UserError
from purelm.interop.new_folder import new_folder

WRITER = textwrap.dedent("""
    import pathlib, signal, sys, time
    from purelm.interop.new_folder import new_folder

    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ignored where the tests run in the background.
    with new_folder(pathlib.Path("made"), "--to=made") as folder:
        (folder / "file").write_text("half")
        print("writing", flush=True)
        time.sleep(60)
""")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def writer(tmp_path):
    """A process that has begun to write tmp_path/made."""
    with subprocess.Popen([sys.executable, "-c", WRITER], cwd=tmp_path, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def test_it_appears_at_the_end_and_in_place_of_an_empty_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made").mkdir()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with new_folder(tmp_path / "made", "--to=made") as folder:
        (folder / "file").write_text("whole")
        assert not any((tmp_path / "made").iterdir())
    assert names(tmp_path) == ["made"] and names(tmp_path / "made") == ["file"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing(writer, tmp_path, number):
    writer.send_signal(number)
    _, errors = writer.communicate(timeout=20)
    assert (writer.returncode, errors) == (128 + number, "error: interrupted\n")
    assert names(tmp_path) == []


def test_another_process_waits_its_turn_and_takes_away_what_a_killed_one_left(writer, tmp_path):
    with pytest.raises(UserError, match=r"--to=made: another process is writing it"), new_folder(
            tmp_path / "made", "--to=made"):
        pass
    assert names(tmp_path / ".made.unfinished") == ["file"]
    writer.kill()
    writer.wait()
    with new_folder(tmp_path / "made", "--to=made") as folder:
        assert names(folder) == []
    assert names(tmp_path) == ["made"]


def test_an_error_leaves_nothing_and_what_is_there_is_kept(tmp_path):
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device: .*file\)"), new_folder(
            tmp_path / "made", "--to=made") as folder:
        raise OSError(28, os.strerror(28), str(folder / "file"))
    assert names(tmp_path) == []
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "file").write_text("mine")
    for name in ("link", "file"):
        with pytest.raises(UserError, match="holds something already"), new_folder(tmp_path / name, "--to"):
            pass
    with pytest.raises(UserError, match="cannot be written"), new_folder(tmp_path / "made", "--to") as folder:
        (tmp_path / "made").mkdir()
        (tmp_path / "made" / "other").write_text("of one that was quicker")
    assert names(tmp_path) == ["file", "link", "made"] and names(tmp_path / "made") == ["other"]


def test_a_thread_writes_one_too(tmp_path):
    """Signals are the main thread's to set."""
    def write():
        with new_folder(tmp_path / "made", "--to"):
            pass

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert names(tmp_path) == ["made"]


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match=r"takes 1,000,000,000 MB, and the disk has [\d,]+ MB left"), new_folder(
            tmp_path / "made", "--to", 10**15) as folder:
        (folder / "file").write_text("begun")
    assert names(tmp_path) == []


def test_what_is_still_written_after_an_error_is_removed_too(tmp_path):
    """As by the threads of a checkpoint's save, which make folders that are no longer there."""
    def write():
        time.sleep(0.1)
        (tmp_path / ".made.unfinished" / "late").mkdir(parents=True)

    thread = threading.Thread(target=write)
    with pytest.raises(UserError, match="x"), new_folder(tmp_path / "made", "--to"):
        thread.start()
        raise UserError("x")
    assert names(tmp_path) == []
