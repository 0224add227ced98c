// What a chunk of an answer says, of a chat or of a completion: text and tokens.
//
// A token is {bytes, logprob, alternatives: [{bytes, logprob}]}; `bytes` is a string of one
// character for each byte, because a token may be a part of a character.

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** A string of bytes: one character, below 256, for each byte of the text in UTF-8. */
export function bytesOf(text) {
  return Array.from(encoder.encode(text), (byte) => String.fromCharCode(byte)).join("");
}

/** The text of a string of bytes; � for what is no whole character. */
export function textOf(bytes) {
  return decoder.decode(Uint8Array.from(bytes, (character) => character.charCodeAt(0)));
}

// OpenAI's completions name a token that is no whole character by "bytes:\xf0\x9f".
function bytesOfName(name) {
  if (!/^bytes:(\\x[0-9a-f]{2})+$/i.test(name)) return bytesOf(name);
  return name.slice(6).replace(/\\x(..)/g, (_, hex) => String.fromCharCode(parseInt(hex, 16)));
}

function ofChat({ token, bytes, logprob }) {
  return { bytes: bytes ? String.fromCharCode(...bytes) : bytesOf(token), logprob };
}

function tokensOf(logprobs) {
  if (logprobs?.content) {
    return logprobs.content.map((token) => ({
      ...ofChat(token),
      alternatives: (token.top_logprobs ?? []).map(ofChat),
    }));
  }
  return (logprobs?.tokens ?? []).map((name, i) => ({
    bytes: bytesOfName(name),
    logprob: logprobs.token_logprobs[i],
    alternatives: Object.entries(logprobs.top_logprobs?.[i] ?? {}).map(([other, logprob]) => ({
      bytes: bytesOfName(other),
      logprob,
    })),
  }));
}

/** {text, tokens, finishReason} of the first choice of a chunk. */
export function piece(chunk) {
  const choice = chunk.choices?.[0];
  return {
    text: choice?.text ?? choice?.delta?.content ?? "",
    tokens: tokensOf(choice?.logprobs),
    finishReason: choice?.finish_reason ?? "",
  };
}
