// Which tokens a stretch of text was made of.

import { bytesOf, textOf } from "./choices.js";

const isInsideCharacter = (bytes, at) => (bytes.charCodeAt(at) & 0xc0) === 0x80;

/**
 * Cuts a text into stretches {text, tokens} of whole characters.
 *
 * Text and tokens may come at different times: text is held back where a stop string may have
 * begun. A token that the text does not show, as the one that ends it, is passed over; text that
 * no token explains is a stretch without tokens.
 */
export class Alignment {
  #bytes = ""; // of text that is in no stretch
  #tokens = [];
  #isFirst = true;

  /** The stretches that are known with this text and these tokens. */
  add(text, tokens) {
    this.#bytes += bytesOf(text);
    this.#tokens.push(...tokens);
    const stretches = [];
    while (this.#bytes) {
      const stretch = this.#next();
      if (!stretch) break;
      stretches.push(stretch);
    }
    return stretches;
  }

  /** What is left: a token of which a stop string took a part, or text without tokens. */
  end() {
    const rest = this.#bytes ? [{ text: textOf(this.#bytes), tokens: this.#tokens }] : [];
    this.#bytes = "";
    this.#tokens = [];
    return rest;
  }

  #next() {
    let length = 0;
    for (let i = 0; i < this.#tokens.length; ) {
      const rest = this.#bytes.slice(length);
      const bytes = this.#shown(this.#tokens[i].bytes, rest);
      if (rest.startsWith(bytes)) {
        length += bytes.length;
        i += 1;
        const isWhole = !isInsideCharacter(this.#bytes, length);
        if (length && isWhole) return this.#cut(length, this.#tokens.splice(0, i));
      } else if (bytes.startsWith(rest)) {
        return null; // its end is still to come
      } else {
        this.#tokens.splice(i, 1);
      }
    }
    return this.#cut(this.#bytes.length, this.#tokens.splice(0));
  }

  // SentencePiece puts a space before a text, and its detokenizer takes it away.
  #shown(bytes, rest) {
    return this.#isFirst && bytes.startsWith(" ") && !rest.startsWith(" ") ? bytes.slice(1) : bytes;
  }

  #cut(length, tokens) {
    const text = textOf(this.#bytes.slice(0, length));
    this.#bytes = this.#bytes.slice(length);
    this.#isFirst = false;
    return { text, tokens };
  }
}
