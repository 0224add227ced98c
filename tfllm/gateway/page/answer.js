// One answer on the page, from its request to its end.

import { Alignment } from "./alignment.js";
import { streamed } from "./api.js";
import { piece } from "./choices.js";
import { tokenElement } from "./tokens.js";

const WHY = { stop: "ended", length: "reached its greatest length" };

/** Adds <p class=name> with a text to an element. */
export function paragraph(parent, name, text = "") {
  const element = parent.appendChild(document.createElement("p"));
  element.className = name;
  element.textContent = text;
  return element;
}

/**
 * Writes an answer into an element as it comes, and below it how long it took.
 *
 * @param {HTMLElement} article What it becomes a part of.
 * @param {HTMLElement} line Where the text goes.
 * @param {{path: string, body: object, key: string, signal: AbortSignal}} asked
 * @returns {Promise<{text: string, facts: string}>} What was written, also if it was stopped.
 */
export async function writeAnswer(article, line, { path, body, key, signal }) {
  const alignment = new Alignment();
  const began = performance.now();
  let text = "";
  let why = "stopped";
  let numTokens = 0;
  let firstAt = 0;
  let lastAt = 0;
  const append = (stretches) => line.append(...stretches.map(tokenElement));
  article.classList.add("running");
  try {
    for await (const chunk of streamed(path, body, key, signal)) {
      const { text: more, tokens, finishReason } = piece(chunk);
      if (more || tokens.length) firstAt ||= lastAt = performance.now();
      if (more || tokens.length) lastAt = performance.now();
      text += more;
      append(alignment.add(more, tokens));
      numTokens = chunk.usage?.completion_tokens ?? numTokens + tokens.length;
      if (finishReason) why = WHY[finishReason] ?? finishReason;
    }
  } catch (error) {
    if (!signal.aborted) throw error;
    why = "stopped";
  } finally {
    append(alignment.end());
    article.classList.remove("running");
  }
  const facts = factsOf(why, numTokens, firstAt && firstAt - began, lastAt - firstAt);
  paragraph(article, "facts", facts);
  return { text, facts };
}

function factsOf(why, numTokens, first, rest) {
  const facts = [why];
  if (numTokens) facts.push(`${numTokens} tokens`);
  if (first) facts.push(`the first after ${first.toFixed(0)} ms`);
  if (numTokens > 1 && rest > 0) {
    facts.push(`then ${(((numTokens - 1) * 1000) / rest).toFixed(1)} tokens/s`);
  }
  return facts.join(" · ");
}
