// Talking with the server: JSON, server-sent events, and what can go wrong.

/** An answer of the server that says what is wrong; `status` is HTTP's, 0 within a stream. */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** No answer, or an answer that broke off. */
export class LostConnection extends Error {}

const SILENCE_MS = 120_000;
let apiKey = "";
try {
  apiKey = sessionStorage.getItem("purelm.key") ?? "";
} catch {
  // Storage is switched off: the key is asked for again.
}

export function setKey(key) {
  apiKey = key;
  try {
    sessionStorage.setItem("purelm.key", key);
  } catch {
    // It holds until the page is closed.
  }
}

async function send(path, body, signal) {
  const headers = apiKey ? { Authorization: `Bearer ${apiKey}` } : {};
  const options = { headers, signal, cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new LostConnection();
  }
  if (!response.ok) throw new ServerError(response.status, await errorText(response));
  return response;
}

async function errorText(response) {
  const said = await response.text().catch(() => "");
  try {
    const { error } = JSON.parse(said);
    return typeof error === "string" ? error : error.message;
  } catch {
    return said.slice(0, 300) || response.statusText || String(response.status);
  }
}

/** GET, or POST where there is a body; raises ServerError, LostConnection, AbortError. */
export async function json(path, body, signal) {
  const response = await send(path, body, signal);
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new LostConnection();
  }
}

/** The next bytes; a connection that has been silent for two minutes counts as lost. */
async function patient(reader) {
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new LostConnection()), SILENCE_MS);
  });
  try {
    return await Promise.race([reader.read(), silence]);
  } catch (error) {
    if (error.name === "AbortError" || error instanceof LostConnection) throw error;
    throw new LostConnection();
  } finally {
    clearTimeout(timer);
  }
}

/** The parsed events of a stream, until [DONE]; a stream that ends without it was lost. */
export async function* events(path, body, signal) {
  const response = await send(path, body, signal);
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await patient(reader);
      if (done) throw new LostConnection();
      rest += decoder.decode(value, { stream: true });
      const parts = rest.split(/\r?\n\r?\n/);
      rest = parts.pop();
      for (const part of parts) {
        const data = part.split(/\r?\n/).filter((line) => line.startsWith("data:"))
          .map((line) => line.slice(5).trimStart()).join("\n");
        if (data === "[DONE]") return;
        if (!data) continue;
        const parsed = JSON.parse(data);
        if (parsed.error) throw new ServerError(0, parsed.error.message);
        yield parsed;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
