"""Which fields have an effect where: by the architecture, by the task. A field that would be ignored is refused.

A field counts as set where it is not at its default.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from purelm.config.schema import Config, DecodingConfig, ModelConfig
from purelm.config.shapes import divisors
from purelm.errors import UserError, did_you_mean

RECURRENT = frozenset({"recurrent", "recurrent_encoder_decoder"})

# Fields of the model that recurrent networks read; a Transformer reads all but _RECURRENT_ONLY.
_RECURRENT_FIELDS = frozenset({
    "architecture", "vocabulary_size", "num_classes", "context_length", "num_layers", "width", "initialization_stddev",
    "embedding_dropout", "residual_dropout", "classifier_dropout", "pooling", "tied_embeddings", "logits_softcap",
    "head_bias", "zero_head", "param_dtype", "compute_dtype", "cell", "hidden_size", "bidirectional",
    "recurrent_dropout", "variational_dropout"})
_ENCODER_DECODER_FIELDS = frozenset({"encoder_layers", "shared_embeddings", "recurrent_attention"})
_RECURRENT_ONLY = frozenset({"cell", "hidden_size", "bidirectional", "recurrent_attention", "recurrent_dropout",
                             "variational_dropout"})
_WORD_VECTORS_FIELDS = frozenset({"architecture", "vocabulary_size", "context_length", "width", "param_dtype"})
_WINDOWS = frozenset({"language_modeling", "masked_language_modeling", "span_corruption", "code_generation",
                      "word_vectors"})
_EXAMPLES = frozenset({"classification", "tagging", "sequence_to_sequence", "extractive_qa", "dialogue"})

ARCHITECTURES_OF_TASK: dict[str, frozenset[str]] = {
    "language_modeling": frozenset({"decoder", "recurrent"}),
    "masked_language_modeling": frozenset({"encoder"}),
    "span_corruption": frozenset({"encoder_decoder", "decoder"}),
    "classification": frozenset({"encoder", "decoder", "recurrent"}),
    "tagging": frozenset({"encoder", "decoder", "recurrent"}),
    "sequence_to_sequence": frozenset({"encoder_decoder", "recurrent_encoder_decoder", "decoder"}),
    "extractive_qa": frozenset({"encoder"}),
    "dialogue": frozenset({"decoder", "recurrent"}),
    "code_generation": frozenset({"decoder", "recurrent"}),
    "word_vectors": frozenset({"word_vectors"}),
}

# Fields that only these tasks read; a section's name stands for all its fields.
TASKS_OF_FIELD: dict[str, frozenset[str]] = {
    "task.loss": frozenset({"classification"}),
    "task.metrics": frozenset({"sequence_to_sequence"}),
    "task.bleu_tokenizer": frozenset({"sequence_to_sequence", "dialogue"}),
    "task.mask_fraction": frozenset({"masked_language_modeling", "span_corruption"}),
    "task.mean_span_length": frozenset({"span_corruption"}),
    "task.window_overlap": frozenset({"extractive_qa"}),
    "task.longest_answer": frozenset({"extractive_qa"}),
    "word_vectors": frozenset({"word_vectors"}),
    "decoding.candidates": frozenset({"sequence_to_sequence"}),
    "decoding.beam_size": frozenset({"sequence_to_sequence", "span_corruption"}),
    "decoding.length_penalty": frozenset({"sequence_to_sequence", "span_corruption"}),
    "decoding.max_new_tokens": frozenset({"language_modeling", "span_corruption", "sequence_to_sequence", "dialogue",
                                          "code_generation"}),
    "decoding.num_best": frozenset({"sequence_to_sequence"}),
    **{f"decoding.{name}": frozenset({"sequence_to_sequence", "span_corruption"})
       for name in ("beam_groups", "diversity_penalty")},
    **{f"decoding.{name}": frozenset({"language_modeling", "sequence_to_sequence", "span_corruption", "dialogue",
                                      "code_generation"})
       for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "frequency_penalty",
                    "presence_penalty", "banned")},
    "decoding.force_end": frozenset({"sequence_to_sequence"}),
    "decoding.num_samples": frozenset({"code_generation"}),
    "data.format": _EXAMPLES,
    "data.text_pair_field": frozenset({"classification"}),
    "data.label_field": frozenset({"classification", "sequence_to_sequence"}),
    "data.source_field": frozenset({"sequence_to_sequence"}),
    "data.target_field": frozenset({"sequence_to_sequence"}),
    "data.prompt": frozenset({"sequence_to_sequence"}),
    "data.mixture": frozenset({"sequence_to_sequence"}),
    "data.mixture_temperature": frozenset({"sequence_to_sequence"}),
    "data.tokens_field": frozenset({"tagging"}),
    "data.tags_field": frozenset({"tagging"}),
    "data.id_field": frozenset({"extractive_qa", "sequence_to_sequence"}),
    "data.context_field": frozenset({"extractive_qa", "sequence_to_sequence"}),
    "data.question_field": frozenset({"extractive_qa", "sequence_to_sequence"}),
    "data.answers_field": frozenset({"extractive_qa", "sequence_to_sequence"}),
    "data.turns_field": frozenset({"dialogue"}),
    "data.speaker_field": frozenset({"dialogue"}),
    "data.assistant": frozenset({"dialogue"}),
    "data.augmentation": frozenset({"classification", "sequence_to_sequence"}),
    "data.truncation": frozenset({"classification", "sequence_to_sequence"}),
    "data.bucketing": _EXAMPLES,
    "data.document": _WINDOWS,
    "data.packing": _WINDOWS - {"word_vectors", "span_corruption"},
    "data.window_offset": _WINDOWS - {"word_vectors"},
    "training.label_smoothing": _EXAMPLES | _WINDOWS - {"word_vectors"},
    "training.z_loss": _EXAMPLES | _WINDOWS - {"word_vectors"},
    "training.loss_chunk": frozenset({"language_modeling", "masked_language_modeling", "span_corruption",
                                      "sequence_to_sequence", "dialogue", "code_generation"}),
    # Windows and sentences are all of the first type; a pretrained encoder has the others all the same.
    "model.token_types": frozenset({"classification", "extractive_qa", "masked_language_modeling", "tagging"}),
    "model.prefix_attention": frozenset({"language_modeling", "span_corruption", "sequence_to_sequence"}),
    "model.num_classes": frozenset({"classification", "tagging"}),
    "model.pooling": frozenset({"classification"}),
    "model.pooling_transform": frozenset({"classification"}),
    "model.classifier_dropout": frozenset({"classification", "tagging", "extractive_qa"}),
}


def check_applies(config: Config) -> None:
    """Raises UserError for an architecture that the task cannot use, and for a field set where nothing reads it.

    A task of the user's own (its name has a dot) knows by itself what it can use.
    """
    name, architecture = config.task.name, config.model.architecture
    check_model_fields(config.model)
    if "." not in name:
        if name not in ARCHITECTURES_OF_TASK:
            raise UserError(f"config.task.name={name}: no such task{did_you_mean(name, ARCHITECTURES_OF_TASK)}")
        right = ARCHITECTURES_OF_TASK[name]
        if architecture not in right:
            raise UserError(f"config.model.architecture={architecture} cannot do config.task.name={name}; it is for "
                            f"{_or(right)}")
        _check_task_fields(config)
    _check_mixture(config)
    _check_decoder(config)
    if name == "word_vectors":
        _check_word_vectors(config)
    check_decoding(config)
    if config.adapter.rank is None and (found := _set_fields(config.adapter)):
        raise UserError(f"config.adapter.{found[0]} has no effect without config.adapter.rank; set that too")
    writes = ("language_modeling", "code_generation", "dialogue")
    if architecture == "recurrent" and config.model.bidirectional and name in writes:
        raise UserError("config.model.bidirectional=True would let a language model read the token it is to predict; "
                        "set it to False")


def _check_word_vectors(config: Config) -> None:
    glove = config.word_vectors.method == "glove"
    unread = ("negatives", "negative_power", "subsample") if glove else ("glove_maximum", "glove_power")
    for field in _set_fields(config.word_vectors):
        if field in unread:
            raise UserError(f"config.word_vectors.{field} has no effect with config.word_vectors.method="
                            f"{config.word_vectors.method}: leave it out")
    if config.optimizer.name == "sgd" and config.optimizer.momentum:
        raise UserError(f"config.optimizer.momentum={config.optimizer.momentum}: word vectors by sgd move pair by "
                        "pair, without momentum; set it to none")


def _check_decoder(config: Config) -> None:
    if config.model.architecture != "decoder":
        return
    if config.task.name == "span_corruption" and not config.model.prefix_attention:
        raise UserError("config.task.name=span_corruption with a decoder reads its input both ways: set "
                        "config.model.prefix_attention=True, or take architecture encoder_decoder")


def check_decoding(config: Config) -> None:
    """Raises UserError for a field of config.decoding that has no effect beside the others."""
    decoding = config.decoding
    if decoding.candidates != "none":
        for name in (*_BEAM, *_DRAWS, *_PENALTIES):
            _refuse(decoding, name, f"candidates={decoding.candidates}, which writes nothing")
    if decoding.beam_size == 1:
        for name in ("beam_groups", "diversity_penalty", "num_best"):
            _refuse(decoding, name, "beam_size=1, which is no beam")
    else:
        for name in _DRAWS:
            _refuse(decoding, name, f"beam_size={decoding.beam_size}, which draws nothing")
    if decoding.temperature == 0:
        for name in ("top_k", "top_p", "min_p"):
            _refuse(decoding, name, "temperature=0, which is greedy")
    if decoding.beam_size % decoding.beam_groups:
        raise UserError(f"config.decoding.beam_groups={decoding.beam_groups} does not divide config.decoding.beam_size="
                        f"{decoding.beam_size}; choose one of {divisors(decoding.beam_size)}")
    if (decoding.beam_groups > 1) != (decoding.diversity_penalty > 0):
        raise UserError(f"config.decoding.beam_groups={decoding.beam_groups} with config.decoding.diversity_penalty="
                        f"{decoding.diversity_penalty}: groups differ by the penalty alone; set both, or neither")
    if decoding.num_best > decoding.beam_size:
        raise UserError(f"config.decoding.num_best={decoding.num_best} is more than config.decoding.beam_size="
                        f"{decoding.beam_size}; give at most that")


_BEAM = ("beam_size", "beam_groups", "diversity_penalty", "num_best")
_DRAWS = ("temperature", "top_k", "top_p", "min_p")
_PENALTIES = ("repetition_penalty", "frequency_penalty", "presence_penalty", "banned", "force_end")


def change_decoding(config: Config, changes: dict[str, Any]) -> Config:
    """The config with fields of config.decoding changed, for one call.

    What these leave without effect goes back to its default: with temperature=0 top_k, top_p and min_p, with a beam all
    that draws, without one what is of beams alone. Raises UserError for changes that do not go together.
    """
    without = set()
    if changes.get("temperature") == 0:
        without.update(_DRAWS[1:])
    if changes.get("beam_size", 1) > 1:
        without.update(_DRAWS)
    if changes.get("beam_size") == 1:
        without.update(_BEAM[1:])
    defaults = {name: getattr(DecodingConfig(), name) for name in without}
    config = dataclasses.replace(config, decoding=dataclasses.replace(config.decoding, **(defaults | changes)))
    check_decoding(config)
    return config


def _refuse(decoding: DecodingConfig, name: str, beside: str) -> None:
    value, default = getattr(decoding, name), getattr(DecodingConfig(), name)
    if value != default:
        raise UserError(f"config.decoding.{name}={value} has no effect with config.decoding.{beside}: set it to "
                        f"{'none' if default is None else default}")


def _check_mixture(config: Config) -> None:
    data = config.data
    if not data.mixture:
        if data.mixture_temperature is not None:
            raise UserError("config.data.mixture_temperature has no effect without config.data.mixture; leave it out")
        return
    for name in ("tfds_name", "format", "prompt"):
        if getattr(data, name) != getattr(type(data)(), name):
            raise UserError(f"config.data.{name}={getattr(data, name)!r} has no effect with config.data.mixture, whose "
                            "parts each say it: leave it out")


def _check_task_fields(config: Config) -> None:
    default = Config()
    for path, tasks in TASKS_OF_FIELD.items():
        if config.task.name in tasks:
            continue
        section, _, field = path.partition(".")
        found = [field] if field else _set_fields(getattr(config, section))
        for field in found:
            value = getattr(getattr(config, section), field)
            if value != getattr(getattr(default, section), field):
                raise UserError(f"config.{section}.{field}={value!r} has no effect with config.task.name="
                                f"{config.task.name}; it is for {_or(tasks)}: leave it out")


def check_model_fields(model: ModelConfig) -> None:
    """Raises UserError for a field of the model that is set and that its architecture does not read."""
    default = ModelConfig()
    for field in dataclasses.fields(ModelConfig):
        value = getattr(model, field.name)
        if value != getattr(default, field.name) and not reads(model.architecture, field.name):
            raise UserError(f"config.model.{field.name}={value!r} has no effect with config.model.architecture="
                            f"{model.architecture}: leave it out")


def reads(architecture: str, field: str) -> bool:
    """Whether a network of this architecture reads this field of the model."""
    if architecture == "word_vectors":
        return field in _WORD_VECTORS_FIELDS
    if field in _ENCODER_DECODER_FIELDS:
        own = {"shared_embeddings": {"encoder_decoder", "recurrent_encoder_decoder"},
               "encoder_layers": {"encoder_decoder", "recurrent_encoder_decoder"},
               "recurrent_attention": {"recurrent_encoder_decoder"}}
        return architecture in own[field]
    if architecture in RECURRENT:
        return field in _RECURRENT_FIELDS
    return field not in _RECURRENT_ONLY


def _set_fields(section: Any) -> list[str]:
    default = type(section)()
    return [field.name for field in dataclasses.fields(section)
            if getattr(section, field.name) != getattr(default, field.name)]


def _or(names: frozenset[str]) -> str:
    *first, last = sorted(names)
    return f"{', '.join(first)} or {last}" if first else last
