"""Takes published weights over into a run folder, and gives a run to others as such weights."""

import sys

from absl import flags

from purelm import cli

USAGE = """
Take published weights over (Hugging Face's format), and give a run away in it.

  python experiments/convert.py --from_hf=FOLDER_OR_NAME --workdir=runs/gpt2     makes a run folder of them
  python experiments/convert.py --from_hf=EleutherAI/pythia-70m --revision=step3000 --workdir=runs/pythia
  python experiments/convert.py --from_hf=FOLDER --task=classification --num_classes=77 --workdir=runs/new    a new head
  python experiments/convert.py --to_hf=FOLDER --workdir=runs/a                  writes weights, config, tokenizer, card

Every other command takes the run folder: generate.py, evaluate.py, predict.py, serve.py, and train.py with
--config=runs/gpt2/config.json --workdir=runs/tuned --config.data.path=FILE, which begins from the weights (with
--config.init_from=none from nothing). Names of the data's fields are in the run's config.json.
"""

FROM_HF = flags.DEFINE_string("from_hf", None, "a folder with config.json and weights, or a name of the Hub")
TO_HF = flags.DEFINE_string("to_hf", None, "a new folder to write")
WORKDIR = flags.DEFINE_string("workdir", None, "the run folder: made by --from_hf, read by --to_hf")
REVISION = flags.DEFINE_string("revision", None, "--from_hf: a commit, branch or tag of the Hub's repository")
DTYPE = flags.DEFINE_enum("dtype", "auto", ["auto", "float32", "bfloat16", "float16"],
                          "type of the weights; auto is the checkpoint's own (float16 is taken over as float32)")
CONTEXT_LENGTH = flags.DEFINE_integer("context_length", None, "--from_hf: fewer tokens than the checkpoint's own, for "
                                      "a smaller cache", lower_bound=1)
TOKENIZER = flags.DEFINE_string("tokenizer", None, "--from_hf: a folder with the tokenizer, if it is another")
TASK = flags.DEFINE_enum("task", None, ["classification", "tagging", "extractive_qa"], "--from_hf: begin this task "
                         "from an encoder that was published for another; its head is drawn")
NUM_CLASSES = flags.DEFINE_integer("num_classes", None, "--task: classes or tags (default: 2)", lower_bound=2)
FAMILY = flags.DEFINE_string("family", None, "--to_hf: the family to write, where several can hold the model")
CHECKPOINT = flags.DEFINE_string("checkpoint", "latest", "--to_hf: latest, best (by validation loss) or a step")
MAX_SHARD = flags.DEFINE_float("max_shard", 5.0, "--to_hf: gigabytes of a file of weights", lower_bound=0.001)


def main() -> None:
    from purelm.errors import UserError

    if (FROM_HF.value is None) == (TO_HF.value is None):
        raise UserError("give one of --from_hf=FOLDER_OR_NAME and --to_hf=FOLDER")
    if not WORKDIR.value:
        raise UserError("--workdir is missing; give the run folder, such as --workdir=runs/gpt2")
    _refuse_other_flags()
    from purelm.runtime import start_jax

    start_jax()
    if FROM_HF.value is not None:
        _import()
    else:
        _export()


def _refuse_other_flags() -> None:
    from purelm.errors import UserError

    of_export, of_import = ("family", "checkpoint", "max_shard"), ("revision", "context_length", "tokenizer", "task",
                                                                   "num_classes")
    for name in of_export if FROM_HF.value is not None else of_import:
        if cli.FLAGS[name].present:
            right = "--to_hf" if name in of_export else "--from_hf"
            raise UserError(f"--{name} is of {right}: leave it out")
    if FROM_HF.value is not None and DTYPE.value == "float16":
        raise UserError("--dtype=float16: no model computes in it here; give float32 or bfloat16")
    if NUM_CLASSES.value is not None and TASK.value is None:
        raise UserError("--num_classes has no effect without --task: leave it out")


def _import() -> None:
    from purelm.interop.importing import import_checkpoint

    with cli.bytes_bar("importing") as progress:
        done = import_checkpoint(FROM_HF.value, WORKDIR.value, revision=REVISION.value, dtype=DTYPE.value,
                                 context_length=CONTEXT_LENGTH.value, tokenizer_from=TOKENIZER.value, task=TASK.value,
                                 num_classes=NUM_CLASSES.value, progress=progress)
    fields, config = done.checkpoint.fields, done.config
    pinned = "" if done.revision is None else f" at {done.revision}"
    print(f"{FROM_HF.value}{pinned}: {fields['architectures'][0]} ({fields['model_type']}), "
          f"{done.num_parameters:,} parameters in {config.model.param_dtype}, task {config.task.name}", file=sys.stderr)
    if done.kept:
        shown = ", ".join(done.kept[:4]) + (f" and {len(done.kept) - 4} more" if len(done.kept) > 4 else "")
        print(f"kept for export, but not read: {shown}", file=sys.stderr)
    for line in done.notes:
        print(line, file=sys.stderr)
    print(f"wrote {done.folder.path}", file=sys.stderr)


def _export() -> None:
    from purelm.interop.exporting import export_run

    with cli.bytes_bar("exporting") as progress:
        done = export_run(WORKDIR.value, TO_HF.value, checkpoint=CHECKPOINT.value, family=FAMILY.value,
                          dtype=DTYPE.value, shard_bytes=int(MAX_SHARD.value * 1e9), progress=progress)
    for line in done.notes:
        print(line, file=sys.stderr)
    print(f"wrote {', '.join(map(str, done.files))}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main, USAGE, keeps_memory=False)
