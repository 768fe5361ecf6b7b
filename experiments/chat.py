"""Talks with a run's model of dialogue."""

from absl import flags

from purelm import cli

USAGE = """
Talk with a model of dialogue: a line is your turn, the answer its own. All turns so far are given to the model.

  python experiments/chat.py --workdir=runs/dialogue
  python experiments/chat.py --workdir=runs/dialogue --temperature=0.7
  printf 'Hello\\nWhere can I eat?\\n' | python experiments/chat.py --workdir=runs/dialogue

/reset forgets what was said, ctrl-D ends.
"""

WORKDIR = flags.DEFINE_string("workdir", None, "folder of a run that train.py wrote")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best (by validation loss) or a step")
TEMPERATURE = flags.DEFINE_float("temperature", None, "divides the logits; 0 is greedy, and not given the run's own")
SEED = flags.DEFINE_integer("seed", 0, "of the draws", lower_bound=0)


def main() -> None:
    from purelm.errors import UserError
    from purelm.runtime import start_jax

    start_jax()
    from purelm.evaluation import dialogue
    from purelm.training.load import load_run

    run = load_run(WORKDIR.value, CHECKPOINT.value)
    if run.config.task.name != "dialogue":
        raise UserError(f"--workdir={WORKDIR.value}: its task is {run.config.task.name}, not dialogue; use generate.py "
                        "or predict.py")
    turns: list[dict[str, str]] = []
    for line in map(str.strip, cli.typed_lines()):
        if line == "/reset":
            turns = []
            print("(forgotten)", flush=True)
        elif line:
            turns.append({"speaker": "user", "text": line})
            text = dialogue.reply(run, turns, seed=SEED.value + len(turns), temperature=TEMPERATURE.value)
            turns.append({"speaker": "assistant", "text": text})
            print(text, flush=True)


if __name__ == "__main__":
    cli.run(main, USAGE)
