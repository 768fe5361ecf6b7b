"""Every knob of a run, typed and documented where it is declared. Nothing reads a knob that is not here."""

from __future__ import annotations

import dataclasses
from typing import Literal

from purelm.config.knob import knob
from purelm.config.model_schema import ModelConfig

# Written as "100" (steps), "2 epochs", "1e6 tokens" or "5%" (of the run); see durations.py.
Duration = str


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where examples come from and how they become tokens."""

    source: Literal["auto", "python_stdlib", "text", "jsonl", "tfds"] = knob(
        "auto", "auto: path's files where it is given, else tfds_name's set, else the interpreter's own library")
    path: str | None = knob(None, "file, glob, or folder with train/validation/test files; plain, .gz or .xz")
    format: Literal["auto", "text", "labels", "pairs", "tags", "squad", "turns", "code"] = knob(
        "auto", "what a row holds (data/formats.py); auto is the task's own")
    text_field: str = knob("text", "field of a JSON line, or feature of a TFDS example, that holds the text")
    text_pair_field: str | None = knob(None, "labels: a second text, as of premise and hypothesis")
    label_field: str = knob("label", "labels: the class, a string, number or boolean")
    source_field: str = knob("en", "pairs: what is read")
    target_field: str = knob("de", "pairs: what is to be written; a string, or several that are all right")
    tokens_field: str = knob("tokens", "tags: the words")
    tags_field: str = knob("tags", "tags: one BIO tag a word")
    id_field: str = knob("id", "squad: the question's id")
    context_field: str = knob("context", "squad: the paragraph")
    question_field: str = knob("question", "squad: the question")
    answers_field: str = knob("answers", "squad: objects with text and start (a character of the paragraph)")
    turns_field: str = knob("turns", "turns: strings, or objects with speaker_field and text_field")
    speaker_field: str = knob("speaker", "turns: who speaks")
    assistant: str = knob("system", "turns: the speaker who is learned; of bare strings, every second one")
    prompt: str = knob("", "put before every source of a pair (T5's task prefix)")
    mixture: tuple[tuple[str, str, str, float], ...] = knob(
        (), "several tasks as text to text: (prompt, format, path, weight), such as ('translate English to German: ', "
        "'pairs:en:de', 'multi30k', 1.0); fields follow the format, paths start at config.data.path")
    mixture_temperature: float | None = knob(
        None, "sizes^(1/temperature) in place of the mixture's weights (Raffel et al. 2020, 3.5.2)", above=0)
    augmentation: tuple[str, ...] = knob(
        (), "steps on training texts, in order, such as 'word_dropout:0.1' (data/augmentation.py)")
    truncation: Literal["head", "tail", "both"] = knob(
        "head", "classification, sequence_to_sequence: what is kept of a text longer than the context: its start, its "
        "end, or half of each")
    bucketing: bool = knob(True, "batches of examples of like length, padded to few lengths; else to the context")
    tfds_name: str | None = knob(
        None, "TFDS name, such as lm1b or my_set/config:1.0.0; path, where given, goes before it")
    tfds_dir: str | None = knob(None, "where TFDS keeps its data; none is its own default")
    document: Literal["file", "line", "blank_line"] = knob("file", "what ends a document of a text file")
    cleaning: tuple[str, ...] = knob(("unicode_nfc", "control_characters", "exact_duplicates"),
                                     "named steps, in order (data/cleaning.py)")
    split: Literal["auto", "hash", "contiguous"] = knob(
        "auto", "where files do not split the data: by hash of each document, or by position in the text; "
        "auto is contiguous for a single document")
    validation_fraction: float = knob(0.05, "of the data, where files do not split it", minimum=0, maximum=0.9)
    test_fraction: float = knob(0.05, "of the data; none is cut where files split it", minimum=0, maximum=0.9)
    tokenizer: Literal["bytes", "characters", "words", "bpe", "wordpiece", "unigram"] = knob(
        "bpe", "how text becomes tokens")
    tokenizer_vocabulary_size: int = knob(
        2048, "of a trained tokenizer (words, bpe, wordpiece, unigram), end of text included", minimum=2)
    tokenizer_path: str | None = knob(None, "tokenizer.json to take instead of training one")
    end_of_text: bool = knob(True, "start each document with <|endoftext|>, or with what an imported tokenizer has")
    packing: Literal["documents", "stream"] = knob(
        "documents", "documents: attention stays inside a document; stream: it sees the whole window")
    window_offset: Literal["random", "fixed"] = knob(
        "random", "where an epoch's windows start: at a new offset each epoch, or always at 0")
    cache_dir: str | None = knob(None, "for tokenized data; none is $PURELM_CACHE or ~/.cache/purelm")


@dataclasses.dataclass(frozen=True)
class TaskConfig:
    """What is learned from the data, and by which of the field's metrics it is judged."""

    name: str = knob(
        "language_modeling", "the module of tasks/ that says what an example and its loss are: language_modeling, "
        "masked_language_modeling, span_corruption, classification, tagging, sequence_to_sequence, extractive_qa, "
        "dialogue, code_generation, word_vectors; or with a dot a module of yours, such as my_tasks.rating")
    loss: Literal["cross_entropy", "squared_error"] = knob(
        "cross_entropy", "classification: or the squared distance of the probabilities from the right ones")
    metrics: tuple[Literal["bleu", "chrf", "rouge", "squad"], ...] = knob(
        ("bleu", "chrf"), "sequence_to_sequence: what evaluate.py measures")
    bleu_tokenizer: Literal["13a", "intl", "zh", "char", "none"] = knob("13a", "sacreBLEU's, for bleu")
    mask_fraction: float = knob(0.15, "masked_language_modeling, span_corruption: tokens hidden", above=0, maximum=0.9)
    mean_span_length: float = knob(3.0, "span_corruption: tokens of a hidden span", minimum=1)
    window_overlap: int = knob(64, "extractive_qa: tokens that two windows of a long paragraph share", minimum=0)
    longest_answer: int = knob(30, "extractive_qa: tokens of an answer at most", minimum=1)


@dataclasses.dataclass(frozen=True)
class WordVectorsConfig:
    """Word vectors (task word_vectors): Mikolov et al. 2013; Pennington et al. 2014."""

    method: Literal["skip_gram", "cbow", "glove"] = knob("skip_gram", "what predicts what")
    window: int = knob(5, "words on either side, drawn anew for each word from 1 to this (glove: all of them)",
                       minimum=1)
    negatives: int = knob(5, "random words against each right one (skip_gram, cbow)", minimum=1)
    negative_power: float = knob(0.75, "of a word's frequency, for drawing negatives", minimum=0, maximum=1)
    subsample: float = knob(1e-3, "frequency above which words are left out at random; 0 keeps all", minimum=0)
    minimum_count: int = knob(5, "rarer words are left out", minimum=1)
    glove_maximum: float = knob(100.0, "co-occurrences from which a pair has full weight", above=0)
    glove_power: float = knob(0.75, "of the weight below that", above=0, maximum=1)


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """Low-rank adapters (LoRA: Hu et al. 2021, arXiv 2106.09685) on a model taken from init_from."""

    rank: int | None = knob(None, "of each adapter; none has no adapters", minimum=1)
    alpha: float = knob(16.0, "adapters count alpha / rank", above=0)
    targets: str = knob(r"layers/attention/(query|value)/kernel$", "regex on the paths of the matrices adapted")
    trained: str = knob(r"^(classifier|span)/", "regex on the paths trained besides the adapters; all else is frozen")


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """How answers are written where a task writes (sequence_to_sequence, dialogue, code_generation)."""

    candidates: Literal["none", "sentences"] = knob(
        "none", "sequence_to_sequence: none writes freely; sentences answers with the sentence of the source that the "
        "model finds most probable, by log-probability / length penalty (evaluation/candidates.py)")
    beam_size: int = knob(1, "hypotheses kept; 1 is no beam", minimum=1)
    length_penalty: float = knob(0.6, "alpha in ((5 + length) / 6)^alpha (Wu et al. 2016); 0 has none", minimum=0)
    beam_groups: int = knob(1, "groups of a diverse beam (Vijayakumar et al. 2016), which divide beam_size", minimum=1)
    diversity_penalty: float = knob(0.0, "nats for a token that a group before takes too, of a diverse beam", minimum=0)
    num_best: int = knob(1, "hypotheses of a beam that are given, the best first", minimum=1)
    max_new_tokens: int = knob(128, "tokens of an answer at most", minimum=1)
    temperature: float = knob(0.0, "of draws; 0 is greedy", minimum=0)
    top_k: int | None = knob(None, "draw from the k most probable tokens; none is all", minimum=1)
    top_p: float | None = knob(None, "draw from the most probable tokens that hold this probability together "
                               "(Holtzman et al. 2020); none is all", above=0, maximum=1)
    min_p: float | None = knob(None, "draw from the tokens that are at least so many times as probable as the most "
                               "probable (Nguyen et al. 2024); none is all", minimum=0, maximum=1)
    repetition_penalty: float = knob(1.0, "divides logits of tokens in the window (Keskar et al. 2019); 1 has none",
                                     minimum=1e-6, maximum=1e6)
    frequency_penalty: float = knob(0.0, "taken off a token's logit each time that the answer has it; 0 has none",
                                    minimum=-1e6, maximum=1e6)
    presence_penalty: float = knob(0.0, "taken off the logit of a token that the answer has; 0 has none",
                                   minimum=-1e6, maximum=1e6)
    banned: tuple[int, ...] = knob((), "ids that are never written, such as Marian's padding")
    force_end: bool = knob(False, "sequence_to_sequence: the last of max_new_tokens is the end, whatever the model "
                           "says (BART, Marian)")
    num_samples: int = knob(1, "programs a problem (code_generation)", minimum=1)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The update rule and the learning rate's course."""

    name: Literal["sgd", "adam", "adamw", "adabelief", "adafactor", "lion", "muon"] = knob("adamw", "update rule")
    learning_rate: float = knob(1e-3, "at its peak", above=0)
    schedule: Literal["constant", "linear", "cosine", "wsd", "inverse_sqrt"] = knob("cosine", "after the warm-up")
    warmup: Duration = knob("0", "linear rise; the first update already moves")
    decay: Duration | None = knob(None, "of wsd alone: its last part, in which the rate falls linearly; none is 20%")
    final_fraction: float = knob(0.0, "rate that the schedule ends at, as a part of the peak", minimum=0, maximum=1)
    beta1: float = knob(0.9, "decay of the first moment", minimum=0, maximum=0.9999999)
    beta2: float = knob(0.999, "decay of the second moment", minimum=0, maximum=0.9999999)
    epsilon: float = knob(1e-8, "of the Adam family", above=0)
    momentum: float | None = knob(
        None, "of sgd and muon alone; none is 0 for sgd and 0.95 for muon", minimum=0, maximum=0.9999999)
    nesterov: bool = knob(
        False, "look-ahead for the momentum of sgd and muon, and of adam, adamw and adabelief (NAdam)")
    weight_decay: float = knob(0.0, "decoupled, times the learning rate (not for adam, which has none)", minimum=0)
    clip_norm: float | None = knob(None, "largest global norm of a gradient", above=0)
    adam_learning_rate: float | None = knob(
        None, "of muon alone: peak rate of the parameters it leaves to Adam; none is learning_rate", above=0)
    muon_steps: int = knob(5, "Newton-Schulz iterations", minimum=1)
    decay_rules: tuple[tuple[str, float], ...] = knob(
        ((r".*(kernel|embedding)$", 1.0), (".*", 0.0)),
        "(regex on the parameter's path, factor on weight_decay); the first match counts, no match is an error")
    learning_rate_rules: tuple[tuple[str, float], ...] = knob(
        ((".*", 1.0),), "(regex, factor on the learning rate); 0 freezes; as above")
    layer_decay: float | None = knob(
        None, "factor on the learning rate for each layer further from the output (Howard & Ruder 2018)", above=0,
        maximum=1)


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How long, in what portions, and what is written when."""

    num_steps: int | None = knob(None, "updates; give one of num_steps, num_epochs, num_tokens", minimum=1)
    num_epochs: float | None = knob(None, "passes over the training split", above=0)
    num_tokens: int | None = knob(None, "tokens to train on", minimum=1)
    batch_size: int = knob(32, "windows an update, over all devices and micro-batches", minimum=1)
    accumulation_steps: int = knob(1, "micro-batches an update", minimum=1)
    label_smoothing: float = knob(0.0, "probability spread over the vocabulary", minimum=0, maximum=0.99)
    z_loss: float = knob(0.0, "factor on log(Z)^2", minimum=0)
    loss_chunk: int | None = knob(
        None, "vocabulary entries whose logits are held at once; none holds all", minimum=1)
    ema_decay: float | None = knob(
        None, "decay of a running average of the parameters, which is then what is evaluated", above=0,
        maximum=0.9999999)
    log_every: Duration = knob("1%", "steps between rows of metrics")
    evaluate_every: Duration = knob("10%", "steps between evaluations")
    evaluate_batches: int | None = knob(None, "batches of the validation split; none is all", minimum=1)
    checkpoint_every: Duration = knob("10%", "steps between checkpoints")
    keep_last: int = knob(2, "newest checkpoints kept", minimum=1)
    keep_best: bool = knob(True, "keep the checkpoint of the best validation loss too")


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """How one step is spread over devices."""

    engine: Literal["auto", "pmap", "mesh"] = knob(
        "auto", "auto is pmap where parameters are replicated, mesh where they are split")
    data: int = knob(-1, "devices along the batch; -1 is all that the other axes leave", minimum=-1)
    fsdp: int = knob(1, "devices over which parameters and batch are both split", minimum=1)
    tensor: int = knob(1, "devices over which heads and hidden units are split", minimum=1)


@dataclasses.dataclass(frozen=True)
class Config:
    """A whole run."""

    seed: int = knob(0, "of initial values, data order and dropout", minimum=0, maximum=2**31 - 1)
    init_from: str | None = knob(
        None, "run folder to start from: its tokenizer, and its parameters wherever name and shape are the same")
    init_vectors: str | None = knob(None, "word2vec text file to start the embeddings of its words from")
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    task: TaskConfig = dataclasses.field(default_factory=TaskConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    word_vectors: WordVectorsConfig = dataclasses.field(default_factory=WordVectorsConfig)
    adapter: AdapterConfig = dataclasses.field(default_factory=AdapterConfig)
    decoding: DecodingConfig = dataclasses.field(default_factory=DecodingConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    parallel: ParallelConfig = dataclasses.field(default_factory=ParallelConfig)
