"""Writes text with a run's model."""

from absl import flags

from purelm import cli

USAGE = """
Write text with a run's language model, on from a prompt. (predict.py translates, summarizes, answers and tags.)

  python experiments/generate.py --workdir=runs/a --prompt="ROMEO:"
  python experiments/generate.py --workdir=runs/a --prompt="ROMEO:" --temperature=0        greedy
  python experiments/generate.py --workdir=runs/a --prompt_ids=0,1,2 --print_ids
"""

# Tasks whose model may be a decoder, but which give an answer, not a continuation.
ANSWERING = ("classification", "tagging", "sequence_to_sequence", "dialogue")

WORKDIR = flags.DEFINE_string("workdir", None, "folder of a run that train.py wrote")
PROMPT = flags.DEFINE_string("prompt", None, "how the text begins; may be empty where documents have a start token")
PROMPT_IDS = flags.DEFINE_string("prompt_ids", None, "the same as token ids with commas between, in place of --prompt")
MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 256, "tokens to write at most")
TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "divides the logits; 0 is greedy")
TOP_K = flags.DEFINE_integer("top_k", None, "draw from the k most probable tokens alone")
TOP_P = flags.DEFINE_float("top_p", None, "draw from the most probable tokens that hold this probability together")
NUM_SAMPLES = flags.DEFINE_integer("num_samples", 1, "texts to write")
SEED = flags.DEFINE_integer("seed", 0, "of the draws", lower_bound=0)
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best (by validation loss) or a step")
PRINT_IDS = flags.DEFINE_bool("print_ids", False, "print the new ids of each text, comma-separated, as the last lines")


def main() -> None:
    from purelm.errors import UserError

    if PROMPT.value is not None and PROMPT_IDS.value is not None:
        raise UserError("--prompt and --prompt_ids are both given; give one")
    if MAX_NEW_TOKENS.value < 1:
        raise UserError(f"--max_new_tokens={MAX_NEW_TOKENS.value}: must be at least 1")
    from purelm.runtime import start_jax

    start_jax()
    from purelm.inference import Sampler, decode_samples, encode_prompt, parse_prompt_ids, sample_ids
    from purelm.training.load import load_run

    sampler = Sampler(temperature=TEMPERATURE.value, top_k=TOP_K.value, top_p=TOP_P.value)
    run = load_run(WORKDIR.value, CHECKPOINT.value)
    if run.config.model.architecture not in ("decoder", "recurrent") or run.config.task.name in ANSWERING:
        raise UserError(f"--workdir={WORKDIR.value}: a run of task {run.config.task.name} does not go on from a text; "
                        "experiments/predict.py answers one")
    tokenizer = run.tokenizer
    if PROMPT_IDS.value is not None:
        prompt_T = parse_prompt_ids(PROMPT_IDS.value, tokenizer.vocabulary_size)
    else:
        prompt_T = encode_prompt(tokenizer, PROMPT.value or "")
    generated = sample_ids(run.config.model, run.params, prompt_T, num_samples=NUM_SAMPLES.value,
                           max_new_tokens=MAX_NEW_TOKENS.value, sampler=sampler, seed=SEED.value,
                           stop_id=tokenizer.end_of_text_id, vocabulary_size=tokenizer.vocabulary_size)
    for number, text in enumerate(decode_samples(tokenizer, prompt_T, generated), 1):
        if NUM_SAMPLES.value > 1:
            print(f"--- sample {number}")
        print(text)
    if PRINT_IDS.value:
        for ids_T, length in zip(generated.ids_BT, generated.lengths_B):
            print(",".join(str(int(i)) for i in ids_T[:length]))


if __name__ == "__main__":
    cli.run(main, USAGE)
