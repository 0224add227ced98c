// A text that the model goes on with.

import { paragraph, writeAnswer } from "./answer.js";

export class Completion {
  path = "/v1/completions";

  /** The fields by which a completion asks for probabilities. */
  probabilities = { logprobs: 5 };

  clear() {}

  async ask(prompt, article, { body, key, signal }) {
    const line = paragraph(article, "answer");
    const given = line.appendChild(document.createElement("span"));
    given.className = "given";
    given.textContent = prompt;
    const asked = { path: this.path, body: { ...body, prompt }, key, signal };
    return (await writeAnswer(article, line, asked)).facts;
  }
}
