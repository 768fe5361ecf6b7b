"""Serves a run's model over HTTP, by OpenAI's protocol, with a page to talk to it."""

import os
import sys

from absl import flags

from purelm import cli

USAGE = """
Serve a run's model over HTTP: a page at /, OpenAI's protocol at /v1, and predictions of any task at /v1/predict.

  python experiments/serve.py --workdir=runs/a                        then open http://127.0.0.1:8000
  python experiments/serve.py --workdir=runs/a --port=0 --slots=16    on a free port, 16 requests at once
  PURELM_API_KEY=... python experiments/serve.py --workdir=runs/a --host=0.0.0.0

  openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none").completions.create(model="a", prompt="ROMEO:")

SIGTERM and ctrl-C stop it: what runs has --drain_seconds to finish.
"""

WORKDIR = flags.DEFINE_string("workdir", None, "folder of a run that train.py wrote")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best (by validation loss) or a step")
NAME = flags.DEFINE_string("name", None, "of the model; the folder's if not given")
HOST = flags.DEFINE_string("host", "127.0.0.1", "address to listen at; 0.0.0.0 is every one of this machine")
PORT = flags.DEFINE_integer("port", 8000, "0 takes a free one", lower_bound=0, upper_bound=65535)
API_KEY = flags.DEFINE_string("api_key", None, "that clients must give; better in the environment, as PURELM_API_KEY")
CORS_ORIGIN = flags.DEFINE_string("cors_origin", None, "a web page's origin that may ask from a browser")
SLOTS = flags.DEFINE_integer("slots", 8, "requests that are written at once", lower_bound=1)
CACHE = flags.DEFINE_enum("cache", "full", ["full", "int8"], "keys and values: as they are computed, or in 8 bits")
CACHE_MIB = flags.DEFINE_float("cache_mib", None, "memory for keys and values; twice --slots contexts if not given",
                               lower_bound=0.0)
MAX_WAITING = flags.DEFINE_integer("max_waiting", 256, "requests that may wait for a slot", lower_bound=1)
MAX_BODY_KIB = flags.DEFINE_integer("max_body_kib", 1024, "of a request", lower_bound=1)
MAX_PROMPT_TOKENS = flags.DEFINE_integer("max_prompt_tokens", 8192, "of a prompt", lower_bound=1)
MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 4096, "of an answer", lower_bound=1)
TIMEOUT = flags.DEFINE_float("timeout", 300.0, "seconds of a request, waiting included", lower_bound=0.01)
DRAIN_SECONDS = flags.DEFINE_float("drain_seconds", 10.0, "for what runs when the server stops", lower_bound=0.0)
cli.define_quantize_flag()

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PACKAGES = ("starlette", "uvicorn", "prometheus_client", "outlines_core")


def main() -> None:
    check_packages()
    from purelm.serving.opening import open_served
    from purelm.serving.served import Limits
    from purelm.serving.server import Server, address, listen

    api_key = API_KEY.value or os.environ.get("PURELM_API_KEY") or None
    listening = listen(HOST.value, PORT.value)  # Before what takes long: the port may be taken.
    limits = Limits(body_bytes=MAX_BODY_KIB.value * 1024, prompt_tokens=MAX_PROMPT_TOKENS.value,
                    new_tokens=MAX_NEW_TOKENS.value, seconds=TIMEOUT.value, waiting=MAX_WAITING.value)
    served = open_served(
        WORKDIR.value, checkpoint=CHECKPOINT.value, quantize=cli.FLAGS.quantize, name=NAME.value, limits=limits,
        slots=SLOTS.value, cache_mib=CACHE_MIB.value, int8_cache=CACHE.value == "int8",
        drain_seconds=DRAIN_SECONDS.value, api_key=api_key, cors_origin=CORS_ORIGIN.value, progress=say)
    if HOST.value not in LOOPBACK and api_key is None:
        say(f"warning: --host={HOST.value} without an API key: whoever reaches this machine can use the model; set "
            "PURELM_API_KEY")
    print(f"{served.name}: {address(listening)} (base_url of OpenAI's clients: {address(listening)}/v1; ctrl-C stops)",
          flush=True)
    Server(served).run(sockets=[listening])
    say("stopped")
    # A thread that computes cannot be stopped, and would not let the process end.
    if served.working.locked() or served.compiling.locked():
        sys.stdout.flush()
        os._exit(0)


def check_packages() -> None:
    """Raises UserError where a library of the extra is missing."""
    import importlib.util

    from purelm.errors import UserError

    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"serving needs {', '.join(missing)}: pip install -e '.[serve]'")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    cli.run(main, USAGE)
