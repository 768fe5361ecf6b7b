// One streamed answer, of either of the two protocols, as pieces.

import { events } from "./api.js";
import { Aligner, tokenOf } from "./pieces.js";

function chatTokens(logprobs) {
  return (logprobs?.content ?? []).map((one) => tokenOf(one.token, one.bytes, one.logprob,
    (one.top_logprobs ?? []).map((top) => ({ name: top.token, bytes: top.bytes, logProbability: top.logprob }))));
}

function completionTokens(logprobs) {
  return (logprobs?.tokens ?? []).map((name, k) => tokenOf(name, null, logprobs.token_logprobs[k],
    Object.entries(logprobs.top_logprobs?.[k] ?? {}).map(([other, logProbability]) =>
      ({ name: other, bytes: null, logProbability }))));
}

/** Asks for log-probabilities, token ids and usage besides what the body asks for. */
function fullBody(path, body) {
  const extras = { stream: true, stream_options: { include_usage: true }, return_token_ids: true };
  const logprobs = path.endsWith("/chat/completions") ? { logprobs: true, top_logprobs: 5 } : { logprobs: 5 };
  return { ...body, ...extras, ...logprobs };
}

/**
 * Streams an answer.
 *
 * onPieces(index, pieces) is called as text comes in. What it returns (and `state`, meanwhile) holds: usage, tokens,
 * firstTokens (of the first event), started, first and last (milliseconds), reasons and ids of each sample. Raises what `events` raises.
 */
export async function generate(path, body, { signal, onPieces, state }) {
  Object.assign(state, { started: performance.now(), first: null, last: null, tokens: 0, firstTokens: 0, usage: null, reasons: [],
    ids: [], promptIds: null });
  const aligners = [];
  const aligner = (index) => (aligners[index] ??= new Aligner());
  try {
    for await (const chunk of events(path, fullBody(path, body), signal)) {
      if (chunk.usage) state.usage = chunk.usage;
      for (const choice of chunk.choices ?? []) takeChoice(choice, aligner(choice.index), state, onPieces);
    }
  } finally {
    aligners.forEach((one, index) => onPieces(index, one.end()));
  }
  return state;
}

function takeChoice(choice, aligner, state, onPieces) {
  const text = choice.delta ? choice.delta.content ?? "" : choice.text ?? "";
  const tokens = choice.delta ? chatTokens(choice.logprobs) : completionTokens(choice.logprobs);
  if (text || tokens.length) {
    state.last = performance.now();
    state.tokens += tokens.length || 1;
    if (state.first === null) [state.first, state.firstTokens] = [state.last, state.tokens];
  }
  if (choice.finish_reason) state.reasons[choice.index] = choice.finish_reason;
  if (choice.purelm?.token_ids) (state.ids[choice.index] ??= []).push(...choice.purelm.token_ids);
  if (choice.purelm?.prompt_token_ids) state.promptIds = choice.purelm.prompt_token_ids;
  onPieces(choice.index, aligner.push(text, tokens));
}
