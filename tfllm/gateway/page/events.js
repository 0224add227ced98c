// Server-sent events: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
// The browser's own EventSource sends no body, so the stream of a fetch is read instead.

export class EventParser {
  #line = "";
  #data = [];
  #afterReturn = false;

  /** The data of the events that end in this part of the stream; it may be cut anywhere. */
  push(text) {
    const events = [];
    for (const character of text) {
      const isSecondHalf = character === "\n" && this.#afterReturn; // of one line end, "\r\n"
      this.#afterReturn = character === "\r";
      if (isSecondHalf) continue;
      if (character !== "\n" && character !== "\r") this.#line += character;
      else this.#endLine(events);
    }
    return events;
  }

  #endLine(events) {
    const line = this.#line;
    this.#line = "";
    if (line === "") {
      if (this.#data.length) events.push(this.#data.join("\n"));
      this.#data = [];
    } else if (line === "data" || line.startsWith("data:")) {
      this.#data.push(line.slice(5).replace(/^ /, ""));
    }
  }
}

/** The data of the events of a response, as they come. */
export async function* events(response) {
  const parser = new EventParser();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* parser.push(value);
    }
  } finally {
    reader.cancel().catch(() => {}); // it has failed or was stopped: there is nothing to cancel
  }
}
