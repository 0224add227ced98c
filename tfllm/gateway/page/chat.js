// A conversation: each answer reads all that was said before.

import { paragraph, writeAnswer } from "./answer.js";

export class Chat {
  path = "/v1/chat/completions";
  #messages = [];

  constructor(systemInput) {
    this.systemInput = systemInput;
  }

  clear() {
    this.#messages = [];
  }

  /** The fields by which a chat asks for probabilities. */
  probabilities = { logprobs: true, top_logprobs: 5 };

  /** Says something and writes the answer; what failed was not said. */
  async ask(prompt, article, { body, key, signal }) {
    paragraph(article, "user", prompt);
    const line = paragraph(article, "answer");
    const system = this.systemInput.value;
    const said = [...this.#messages, { role: "user", content: prompt }];
    const messages = [...(system ? [{ role: "system", content: system }] : []), ...said];
    const asked = { path: this.path, body: { ...body, messages }, key, signal };
    const { text, facts } = await writeAnswer(article, line, asked);
    this.#messages = [...said, { role: "assistant", content: text }];
    return facts;
  }
}
