"""Writes text with a run's model."""

import sys

from absl import flags

from purelm import cli

USAGE = """
Write text with a run's language model, on from a prompt. (predict.py translates, summarizes, answers and tags.)

  python experiments/generate.py --workdir=runs/a --prompt="ROMEO:"
  python experiments/generate.py --workdir=runs/a --prompt="ROMEO:" --temperature=0        greedy
  python experiments/generate.py --workdir=runs/a --interactive                            line by line
  python experiments/generate.py --workdir=runs/a --prompt_ids=0,1,2 --print_ids
  python experiments/generate.py --workdir=runs/a --prompt="A: " --regex="[0-9]+" --log_probabilities=3
  python experiments/generate.py --workdir=runs/a --prompt="ROMEO:" --beam_size=4 --num_samples=2
  python experiments/generate.py --workdir=runs/a --prompt="ROMEO:" --contrastive_alpha=0.6
"""

# Tasks whose model may be a decoder, but which give an answer, not a continuation.
ANSWERING = ("classification", "tagging", "sequence_to_sequence", "dialogue")

WORKDIR = flags.DEFINE_string("workdir", None, "folder of a run that train.py wrote")
PROMPT = flags.DEFINE_string("prompt", None, "how the text begins; may be empty where documents have a start token")
PROMPT_IDS = flags.DEFINE_string("prompt_ids", None, "the same as token ids with commas between, in place of --prompt")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "latest, best (by validation loss) or a step")
PRINT_IDS = flags.DEFINE_bool("print_ids", False, "print the new ids of each text, comma-separated, as the last lines")
LOGIT_BIAS = flags.DEFINE_string("logit_bias", None, "ID:VALUE,... added to the logits of these tokens")
BANNED_IDS = flags.DEFINE_string("banned_ids", None, "ids with commas between, which are never drawn")
STOP = flags.DEFINE_multi_string("stop", None, "text that ends the answer and is not printed")
JSON_SCHEMA = flags.DEFINE_string("json_schema", None, "file of a JSON schema that the answer fulfills")
DRAFT = flags.DEFINE_string("draft", None, "folder of a run that guesses tokens ahead; the text is the same, sooner")

INTERACTIVE = flags.DEFINE_bool("interactive", False, "type how texts begin, one after another (/help tells more)")
cli.define_quantize_flag()

# Flags whose values are taken as they are, by the names that inference/writing.py has for them.
flags.DEFINE_integer("max_new_tokens", 256, "tokens to write at most", upper_bound=10**6)
flags.DEFINE_integer("min_new_tokens", None, "tokens to write before the text may end", lower_bound=0)
flags.DEFINE_integer("num_samples", 1, "texts to write; of a beam, the best so many")
flags.DEFINE_integer("seed", 0, "of the draws", lower_bound=0, upper_bound=2**63 - 1)
flags.DEFINE_float("temperature", None, "divides the logits; 0 is greedy, and 1 if not given")
flags.DEFINE_integer("top_k", None, "draw from the k most probable tokens alone")
flags.DEFINE_float("top_p", None, "draw from the most probable tokens that hold this probability together")
flags.DEFINE_float("min_p", None, "draw from tokens at least so many times as probable as the most probable")
flags.DEFINE_float("repetition_penalty", None, "above 1 against what the text has already said (Keskar et al. 2019)")
flags.DEFINE_float("frequency_penalty", None, "taken off a token's logit each time that the answer has it")
flags.DEFINE_float("presence_penalty", None, "taken off the logit of a token that the answer has")
flags.DEFINE_integer("beam_size", None, "search with so many hypotheses in place of drawing", lower_bound=1)
flags.DEFINE_float("length_penalty", None, "alpha of a beam (Wu et al. 2016); 0.6 if not given")
flags.DEFINE_integer("beam_groups", None, "groups of a diverse beam, which divide --beam_size", lower_bound=1)
flags.DEFINE_float("diversity_penalty", None, "nats for a token that a group before takes too", lower_bound=0.0)
flags.DEFINE_float("contrastive_alpha", None, "contrastive search (Su et al. 2022) among --top_k, or 4, tokens")
flags.DEFINE_string("regex", None, "what the whole answer matches")
flags.DEFINE_integer("log_probabilities", None, "print each token's probability and the so many likeliest beside it",
                     lower_bound=0)
flags.DEFINE_enum("cache", None, ["full", "rolling", "int8"], "keys and values: all, the attention window's, or 8-bit")
flags.DEFINE_integer("lookup", None, "guess so many tokens ahead from the text itself; the text is the same",
                     lower_bound=1)
flags.DEFINE_integer("num_drafted", None, "tokens that --draft guesses ahead; 5 if not given", lower_bound=1)
AS_THEY_ARE = (
    "max_new_tokens", "min_new_tokens", "num_samples", "seed", "temperature", "top_k", "top_p", "min_p",
    "repetition_penalty", "frequency_penalty", "presence_penalty", "beam_size", "length_penalty", "beam_groups",
    "diversity_penalty", "contrastive_alpha", "regex", "log_probabilities", "cache", "lookup", "num_drafted")
NOT_INTERACTIVE = ("prompt", "prompt_ids", "print_ids", "json_schema", "draft", "num_samples", "min_new_tokens",
                   "beam_size", "contrastive_alpha", "regex", "log_probabilities", "cache", "lookup", "num_drafted")


def main() -> None:
    from purelm.errors import UserError

    if PROMPT.value is not None and PROMPT_IDS.value is not None:
        raise UserError("--prompt and --prompt_ids are both given; give one")
    if flags.FLAGS.max_new_tokens < 1:
        raise UserError(f"--max_new_tokens={flags.FLAGS.max_new_tokens}: must be at least 1")
    from purelm.runtime import start_jax

    start_jax()
    from purelm.inference import encode_prompt, parse_prompt_ids
    from purelm.inference.writing import check_wish, token_lines, write
    from purelm.training.load import load_run

    wish = wish_of_flags()
    check_wish(wish)
    if INTERACTIVE.value:
        check_interactive()
    run = load_run(WORKDIR.value, CHECKPOINT.value, quantize=flags.FLAGS.quantize)
    if run.config.model.architecture not in ("decoder", "recurrent") or run.config.task.name in ANSWERING:
        raise UserError(f"--workdir={WORKDIR.value}: a run of task {run.config.task.name} does not go on from a text; "
                        "experiments/predict.py answers one")
    if INTERACTIVE.value:
        interact(run, wish)
        return
    tokenizer = run.tokenizer
    if PROMPT_IDS.value is not None:
        prompt_T = parse_prompt_ids(PROMPT_IDS.value, tokenizer.vocabulary_size)
    else:
        prompt_T = encode_prompt(tokenizer, PROMPT.value or "")
    written = write(run.config.model, run.params, tokenizer, prompt_T, wish)
    for number, one in enumerate(written, 1):
        if len(written) > 1:
            print(f"--- sample {number}")
        print(one.text)
        if one.tokens is not None:
            print("\n".join(token_lines(tokenizer, one.tokens)))
    if PRINT_IDS.value:
        for one in written:
            print(",".join(map(str, one.ids_T.tolist())))


def check_interactive() -> None:
    """Raises UserError for a flag that writing line by line does not have."""
    from purelm.errors import UserError

    for name in NOT_INTERACTIVE:
        if flags.FLAGS[name].value != flags.FLAGS[name].default:
            raise UserError(f"--interactive does not go with --{name}; leave one of them out")


def interact(run, wish) -> None:
    """Goes on from what is typed, until it ends."""
    from purelm.serving.terminal import Settings, help_of, talk

    settings = Settings(wish.sampler(), wish.max_new_tokens, wish.seed, wish.stop)
    if sys.stdin.isatty():
        print(help_of(run))
    talk(run, settings, cli.typed_lines(), lambda piece: print(piece, end="", flush=True))


def wish_of_flags():
    """What the flags ask for. Raises UserError for lists and files that cannot be read."""
    from purelm.inference.speculative import ModelDraft
    from purelm.inference.writing import Wish, parse_biases, parse_ids, read_schema

    draft = None
    if DRAFT.value is not None:
        from purelm.training.load import load_run

        loaded = load_run(DRAFT.value, field="--draft")
        draft = ModelDraft(loaded.config.model, loaded.params)
    return Wish(
        **{name: flags.FLAGS[name].value for name in AS_THEY_ARE}, stop=tuple(STOP.value or ()), draft=draft,
        logit_bias=parse_biases(LOGIT_BIAS.value or "", "--logit_bias"),
        banned_ids=parse_ids(BANNED_IDS.value or "", "--banned_ids"),
        json_schema=None if JSON_SCHEMA.value is None else read_schema(JSON_SCHEMA.value, "--json_schema"))


if __name__ == "__main__":
    cli.run(main, USAGE)
