// Text and tokens brought together. A piece is a stretch of text with the tokens that wrote it: one token mostly,
// several where only together they make whole characters. A token: {text, bytes, logProbability, alternatives}.

const ENCODER = new TextEncoder();
const DECODER = new TextDecoder("utf-8", { fatal: true });

/** The bytes of a token's name: OpenAI writes those that are no whole characters as bytes:\xe4\xbd. */
function bytesOf(name) {
  const match = /^bytes:((?:\\x[0-9a-fA-F]{2})+)$/.exec(name);
  if (!match) return [...ENCODER.encode(name)];
  return match[1].slice(2).split("\\x").map((digits) => parseInt(digits, 16));
}

function wholeText(tokens) {
  try {
    return DECODER.decode(Uint8Array.from(tokens.flatMap((token) => token.bytes)));
  } catch {
    return null;
  }
}

/** One token with its alternatives, likeliest first. */
export function tokenOf(name, bytes, logProbability, alternatives) {
  const one = (text, itsBytes, its) => {
    const itsOwn = itsBytes ?? bytesOf(text);
    return { text: wholeText([{ bytes: itsOwn }]), bytes: itsOwn, logProbability: its };
  };
  const sorted = alternatives.map((other) => one(other.name, other.bytes, other.logProbability))
    .sort((a, b) => b.logProbability - a.logProbability);
  return { ...one(name, bytes, logProbability), alternatives: sorted };
}

/** A token by its name alone. */
export const namedToken = (name) => tokenOf(name, null, null, []);

/** A token for reading: spaces and line ends are shown, part of a character as its bytes. */
export function shown(token) {
  if (token.text === null) return token.bytes.map((byte) => byte.toString(16).toUpperCase().padStart(2, "0")).join(" ");
  if (token.text === "") return "∅";
  return token.text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replaceAll(" ", "␣");
}

/** Cuts a stream of text into pieces by its tokens. The text is what counts: nothing of it is lost or delayed. */
export class Aligner {
  #text = "";
  #waiting = [];
  #begun = false;

  push(text, tokens) {
    this.#text += text;
    this.#waiting.push(...tokens);
    const pieces = [];
    while (this.#text && this.#waiting.length) {
      const found = this.#next();
      if (!found) break;
      pieces.push(found);
    }
    if (this.#text && (!this.#waiting.length || !this.#mayContinue())) pieces.push(this.#all());
    return pieces;
  }

  /** What is left when the answer has ended. */
  end() {
    return this.#text ? [this.#all()] : [];
  }

  #all() {
    const piece = { text: this.#text, tokens: this.#waiting };
    this.#text = "";
    this.#waiting = [];
    return piece;
  }

  /** The next piece: as few tokens as stand in the text, with a space before that belongs to no token. */
  #next() {
    for (let count = 1; count <= this.#waiting.length; count += 1) {
      const tokens = this.#waiting.slice(0, count);
      const whole = wholeText(tokens);
      if (!whole) continue;
      const length = this.#lengthOf(whole);
      if (!length) continue;
      this.#waiting.splice(0, count);
      const text = this.#text.slice(0, length);
      this.#text = this.#text.slice(length);
      this.#begun = true;
      return { text, tokens };
    }
    return null;
  }

  /** How much of the text these tokens wrote; 0 for none. White space before a whole answer may have been cut off. */
  #lengthOf(whole) {
    if (this.#text.startsWith(whole)) return whole.length;
    if (this.#text.startsWith(` ${whole}`)) return whole.length + 1;
    const cut = whole.trimStart();
    return !this.#begun && this.#text.startsWith(cut) ? cut.length : 0;
  }

  /** The text so far is the beginning of what the waiting tokens say: the server is holding the rest back. */
  #mayContinue() {
    const whole = wholeText(this.#waiting);
    return whole !== null && whole.startsWith(this.#text) && whole.length > this.#text.length;
  }
}
