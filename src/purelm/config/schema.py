"""Every knob of a run, typed and documented where it is declared. Nothing reads a knob that is not here."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

# Written as "100" (steps), "2 epochs", "1e6 tokens" or "5%" (of the run); see durations.py.
Duration = str


def knob(default: Any, doc: str, *, minimum: float | None = None, above: float | None = None,
         maximum: float | None = None) -> Any:
    """A dataclass field with its documentation and its bounds (`above` is exclusive)."""
    return dataclasses.field(
        default=default, metadata={"doc": doc, "minimum": minimum, "above": above, "maximum": maximum})


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """One Transformer stack and the networks before it; each published variation is a switch (models/ has the papers).

    Fields that an architecture does not read are refused where they are set (config/architectures.py).
    """

    architecture: Literal["decoder", "encoder", "encoder_decoder", "recurrent", "recurrent_encoder_decoder",
                          "word_vectors"] = knob(
        "decoder", "Transformer decoder, encoder or both; a recurrent network, or two with attention; two tables")
    vocabulary_size: int | None = knob(None, "token types; none takes the tokenizer's, a larger number pads", minimum=2)
    num_classes: int | None = knob(None, "of a classifier, or tags of a tagger; none takes the data's", minimum=2)
    context_length: int = knob(256, "tokens of a training window, and rows of learned positions", minimum=1)
    num_layers: int = knob(4, "blocks, or recurrent layers; of the decoder where there are two stacks", minimum=1)
    encoder_layers: int | None = knob(None, "blocks of an encoder beside a decoder; none is num_layers", minimum=1)
    width: int = knob(128, "size of the residual stream (D)", minimum=1)
    num_heads: int = knob(4, "query heads (N)", minimum=1)
    num_kv_heads: int | None = knob(
        None, "key/value heads (K): none is one a query head (MHA), 1 is MQA, between is GQA", minimum=1)
    head_size: int | None = knob(None, "size of a head (H); none is width / num_heads", minimum=1)
    feed_forward: Literal["relu", "gelu", "gelu_tanh", "silu", "squared_relu", "glu", "geglu", "geglu_tanh", "swiglu",
                          "reglu", "bilinear"] = knob("gelu", "activation of the feed-forward; those with glu in their "
                                                      "names, and bilinear, are gated (Shazeer 2020)")
    feed_forward_width: int | None = knob(
        None, "hidden units (F); none is 4 x width, or 8/3 x width rounded up to a multiple of 8 where gated",
        minimum=1)
    positions: Literal["none", "learned", "sinusoidal", "rope", "alibi", "t5"] = knob("learned", "position scheme")
    position_offset: int = knob(0, "row of learned positions that a text's first token reads (OPT, BART, RoBERTa: 2)",
                                minimum=0)
    sinusoidal_halves: bool = knob(False, "sines in the first half of the width, cosines in the second (Marian)")
    rope_base: float = knob(10_000.0, "base of the rotary wavelengths", above=1)
    rope_local_base: float | None = knob(
        None, "that of layers with a window, whose wavelengths are not scaled (Gemma 3); none is rope_base", above=1)
    rope_scaling: Literal["none", "linear", "llama3", "yarn"] = knob("none", "longer rotary wavelengths, for contexts "
                                                                     "longer than those of pretraining")
    rope_scaling_factor: float = knob(1.0, "how much longer the longest wavelengths get", minimum=1)
    rope_original_length: int | None = knob(None, "context of pretraining, for llama3 and yarn", minimum=1)
    rope_low_frequency_factor: float = knob(1.0, "llama3: wavelengths above original length / this are scaled", above=0)
    rope_high_frequency_factor: float = knob(4.0, "llama3: those below original length / this are not", above=0)
    rope_beta_fast: float = knob(32.0, "yarn: dimensions that turn more often in the original length stay", above=0)
    rope_beta_slow: float = knob(1.0, "yarn: those that turn less often are scaled whole", above=0)
    rope_attention_factor: float | None = knob(
        None, "yarn: factor on cosines and sines; none is 0.1 ln(rope_scaling_factor) + 1", above=0)
    rope_fraction: float = knob(1.0, "part of each head that is rotated", above=0, maximum=1)
    relative_buckets: int = knob(32, "buckets of the T5 relative bias", minimum=2)
    relative_max_distance: int = knob(128, "distance from which T5 buckets are shared", minimum=2)
    norm: Literal["layer_norm", "rms_norm", "none"] = knob("layer_norm", "normalization")
    norm_place: Literal["pre", "post", "sandwich", "output"] = knob(
        "pre", "before each sublayer, after the sum, both before and after the sublayer, or after it alone (OLMo 2)")
    norm_scale: bool = knob(True, "learn a scale in each norm")
    norm_offset: bool = knob(False, "the scale is 1 + the parameter (Gemma)")
    norm_epsilon: float = knob(1e-5, "added to the variance", above=0)
    embedding_norm: bool = knob(False, "normalize the embedding too")
    qk_norm: bool = knob(False, "normalize queries and keys (RMS)")
    qk_norm_over: Literal["head", "all_heads"] = knob("head", "what qk_norm takes together: a head, or all (OLMo 2)")
    attention_scale: float | None = knob(None, "factor on the scores; none is 1 / sqrt(head_size)", above=0)
    attention_window: int | None = knob(None, "keys each query sees, itself included; none is all", minimum=1)
    attention_pattern: tuple[Literal["full", "window"], ...] = knob(
        (), "layers that have attention_window and that have none, repeated over all; () is all alike")
    attention_softcap: float | None = knob(None, "c in c tanh(scores / c)", above=0)
    attention_sink: bool = knob(False, "learn one extra logit a head in the softmax's denominator")
    attention_implementation: Literal["auto", "naive", "xla", "cudnn", "splash"] = knob(
        "auto", "auto is cudnn on GPU where it can, splash on TPU where it can, else the fastest form of this device")
    logits_softcap: float | None = knob(None, "c in c tanh(logits / c)", above=0)
    prefix_attention: bool = knob(False, "decoder: the tokens of a prompt see each other both ways (prefix LM)")
    bias: bool = knob(True, "biases in linear layers and LayerNorm")
    query_key_value_bias: bool | None = knob(None, "of attention's first layers (Qwen2); none is as bias")
    attention_output_bias: bool | None = knob(None, "of attention's last layer; none is as bias")
    feed_forward_bias: bool | None = knob(None, "of the feed-forward's layers; none is as bias")
    norm_bias: bool | None = knob(None, "of LayerNorm; none is as bias")
    tied_embeddings: bool = knob(True, "the output layer is the embedding, transposed")
    embedding_width: int | None = knob(
        None, "columns of the table of embeddings, with a matrix to width after it and back before a tied output layer "
        "(ALBERT, OPT-350m); none is width", minimum=1)
    shared_embeddings: bool = knob(True, "encoder and decoder read the same table of embeddings")
    token_types: int = knob(0, "kinds of token with an embedding each (BERT's sentence A and B); 0 is none", minimum=0)
    head_transform: bool = knob(False, "a layer, activation and norm before the output layer (BERT)")
    head_bias: bool = knob(False, "a bias on the output logits (BERT, BART)")
    head_scale: Literal["one", "inverse_sqrt_width"] = knob(
        "one", "factor on what a tied output layer reads (T5 v1.0: 1/sqrt(width))")
    pooling: Literal["first", "last", "mean", "max", "attention"] = knob(
        "mean", "how the features of tokens become one vector, for classification")
    pooling_transform: Literal["none", "tanh", "relu"] = knob(
        "none", "a layer and this activation on the pooled vector (BERT, RoBERTa: tanh; DistilBERT: relu)")
    embedding_scale: Literal["one", "sqrt_width"] = knob("one", "factor on the token embedding")
    residual_scale: Literal["one", "inverse_sqrt_depth", "rezero"] = knob(
        "one", "factor on each sublayer's output: 1, 1/sqrt(2 x layers), or learned from zero (ReZero)")
    initialization: Literal["gpt2", "xavier", "lecun"] = knob(
        "gpt2", "normal with outputs scaled by 1/sqrt(2 x layers), Xavier uniform, or LeCun normal")
    initialization_stddev: float = knob(0.02, "of the gpt2 scheme, and of embeddings in all", above=0)
    zero_outputs: bool = knob(False, "start the last matrix of every sublayer at zero")
    zero_head: bool = knob(False, "start an untied output layer at zero")
    embedding_dropout: float = knob(0.0, "after the embedding", minimum=0, maximum=0.99)
    attention_dropout: float = knob(0.0, "on attention weights", minimum=0, maximum=0.99)
    residual_dropout: float = knob(0.0, "on each sublayer's output", minimum=0, maximum=0.99)
    feed_forward_dropout: float = knob(0.0, "on the hidden units of the feed-forward", minimum=0, maximum=0.99)
    classifier_dropout: float = knob(0.0, "on what a classifier's output layer reads", minimum=0, maximum=0.99)
    cell: Literal["lstm", "gru"] = knob("lstm", "of recurrent layers")
    hidden_size: int | None = knob(None, "units of a recurrent layer, in each direction; none is width", minimum=1)
    bidirectional: bool = knob(False, "recurrent layers read both ways (of two networks, the encoder)")
    recurrent_attention: Literal["bahdanau", "luong"] = knob(
        "bahdanau", "how a recurrent decoder attends: additive, before the cell; or multiplicative, after it")
    recurrent_dropout: float = knob(
        0.0, "on the hidden state from step to step, one mask a sequence (Gal & Ghahramani 2016)", minimum=0,
        maximum=0.99)
    variational_dropout: bool = knob(
        False, "recurrent: embedding_dropout and residual_dropout draw one mask a sequence, not one a step")
    parallel_block: bool = knob(False, "attention and feed-forward read the same stream and are summed (GPT-J)")
    parallel_norms: Literal["shared", "separate"] = knob("shared", "of a parallel_block: one, or one each (GPT-NeoX)")
    layer_sharing: int = knob(1, "consecutive layers that share one set of parameters (ALBERT)", minimum=1)
    scan_layers: bool = knob(False, "lax.scan over layers: compiles faster; same parameters either way")
    remat: Literal["none", "dots", "full"] = knob(
        "none", "what the backward pass recomputes: nothing, all but matrix products, everything in a block")
    param_dtype: Literal["float32", "bfloat16"] = knob("float32", "type parameters are kept in")
    compute_dtype: Literal["float32", "bfloat16"] = knob(
        "float32", "type of activations; norms, softmax and loss stay float32")


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
