"""Talks with a run's model of dialogue, or with one whose tokenizer has a chat template."""

from absl import flags

from purelm import cli

USAGE = """
Talk with a model of dialogue, or with an imported one that has a chat template: a line is your turn, the answer its
own. All turns so far are given to the model.

  python experiments/chat.py --workdir=runs/dialogue
  python experiments/chat.py --workdir=runs/dialogue --temperature=0.7
  printf 'Hello\\nWhere can I eat?\\n' | python experiments/chat.py --workdir=runs/dialogue

/reset forgets what was said, ctrl-D ends.
"""

WORKDIR = flags.DEFINE_string("workdir", None, "folder of a run that train.py wrote")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best (by validation loss) or a step")
TEMPERATURE = flags.DEFINE_float("temperature", None, "divides the logits; 0 is greedy, and not given the run's own")
SYSTEM = flags.DEFINE_string("system", None, "what a chat template's system message says; of dialogues there is none")
SEED = flags.DEFINE_integer("seed", 0, "of the draws", lower_bound=0)


def main() -> None:
    from purelm.errors import UserError
    from purelm.runtime import start_jax

    start_jax()
    from purelm.evaluation import dialogue, templated_chat
    from purelm.inference.chat_prompts import has_template
    from purelm.training.load import load_run

    run = load_run(WORKDIR.value, CHECKPOINT.value)
    templated = has_template(run.config, run.tokenizer)
    if run.config.task.name != "dialogue" and not templated:
        raise UserError(f"--workdir={WORKDIR.value}: its task is {run.config.task.name}, not dialogue, and its "
                        "tokenizer has no chat template; use generate.py or predict.py")
    if SYSTEM.value is not None and not templated:
        raise UserError("--system: dialogues have users and assistants alone; leave it out")
    system = [] if SYSTEM.value is None else [{"role": "system", "content": SYSTEM.value}]
    options = {"temperature": TEMPERATURE.value}
    said: list[tuple[str, str]] = []
    for line in map(str.strip, cli.typed_lines()):
        if line == "/reset":
            said = []
            print("(forgotten)", flush=True)
        elif line:
            said.append(("user", line))
            options["seed"] = SEED.value + len(said)
            if templated:
                text = templated_chat.reply(run, [*system, *({"role": role, "content": text} for role, text in said)],
                                            **options)
            else:
                text = dialogue.reply(run, [{"speaker": role, "text": text} for role, text in said], **options)
            said.append(("assistant", text))
            print(text, flush=True)


if __name__ == "__main__":
    cli.run(main, USAGE)
