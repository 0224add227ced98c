// The gateway's interface, which is OpenAI's.

import { events } from "./events.js";

/** What the gateway refused, in its words. */
export class Refusal extends Error {}

async function fetched(path, key, more = {}) {
  const headers = { ...(key && { Authorization: `Bearer ${key}` }), ...more.headers };
  const response = await fetch(path, { ...more, headers });
  if (!response.ok) throw await refusal(response);
  return response;
}

async function refusal(response) {
  const text = await response.text();
  let message;
  try {
    message = JSON.parse(text).error.message;
  } catch {
    message = text.slice(0, 300); // of a proxy, not of the gateway
  }
  const later = response.headers.get("Retry-After");
  const hint = later ? ` Try again in ${later} s.` : "";
  return new Refusal((message || `The gateway answered ${response.status}.`) + hint);
}

/** The models: [{name, canChat}]; canChat is null while it is not known. */
export async function models(key) {
  const response = await fetched("/v1/models", key);
  return (await response.json()).data.map((model) => ({ name: model.id, canChat: model.can_chat }));
}

/** The text of the gateway's metrics. */
export async function metrics(key) {
  return (await fetched("/metrics", key, { cache: "no-store" })).text();
}

/** The objects of a streamed answer, as they come. */
export async function* streamed(path, body, key, signal) {
  const response = await fetched(path, key, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  for await (const data of events(response)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Refusal(chunk.error.message);
    yield chunk;
  }
  throw new Refusal("The connection ended before the answer did.");
}
