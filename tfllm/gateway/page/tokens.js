// Tokens on the page, and what else the model might have written in their place.

import { textOf } from "./choices.js";

const toldBy = new WeakMap(); // elements of stretches: their tokens
const tooltip = document.getElementById("tooltip");

/** An element for a stretch of text. All text of the model goes into text nodes, never markup. */
export function tokenElement({ text, tokens }) {
  const element = document.createElement("span");
  element.textContent = text;
  if (tokens.length) {
    const logprob = tokens.reduce((sum, token) => sum + token.logprob, 0);
    element.className = "token";
    element.tabIndex = -1;
    element.style.setProperty("--p", Math.exp(logprob).toFixed(3));
    element.setAttribute("aria-describedby", "tooltip");
    toldBy.set(element, tokens);
  }
  return element;
}

/** Shows what is known of a token when it is pointed at or reached with the arrow keys. */
export function explainTokens(container) {
  container.addEventListener("pointerover", ({ target }) => show(target));
  container.addEventListener("pointerleave", hide);
  container.addEventListener("focusin", ({ target }) => show(target));
  container.addEventListener("focusout", hide);
  container.addEventListener("scroll", hide);
  container.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
    const tokens = [...container.getElementsByClassName("token")];
    const now = tokens.indexOf(document.activeElement);
    const next = now < 0 ? tokens.at(step > 0 ? 0 : -1) : tokens[now + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
}

function hide() {
  tooltip.hidden = true;
}

function show(element) {
  const tokens = toldBy.get(element);
  if (!tokens) return hide();
  tooltip.replaceChildren(...tokens.map(table));
  tooltip.hidden = false;
  place(element.getClientRects()[0]);
}

function place(box) {
  const { width, height } = tooltip.getBoundingClientRect();
  const isRoomBelow = box.bottom + height + 6 < innerHeight;
  tooltip.style.top = `${isRoomBelow ? box.bottom + 6 : Math.max(0, box.top - height - 6)}px`;
  tooltip.style.left = `${Math.max(0, Math.min(box.left, innerWidth - width - 8))}px`;
}

function table(token) {
  const element = document.createElement("table");
  element.createCaption().textContent = `${name(token.bytes)} — ${percent(token.logprob)}`;
  const others = token.alternatives.filter((other) => other.bytes !== token.bytes);
  const rows = token.alternatives.length ? [token, ...others] : [];
  for (const each of rows.sort((a, b) => b.logprob - a.logprob)) {
    const row = element.insertRow();
    if (each === token) row.className = "chosen";
    const header = document.createElement("th");
    header.scope = "row";
    header.textContent = name(each.bytes);
    const meter = document.createElement("meter");
    meter.value = Math.exp(each.logprob);
    row.append(header);
    row.insertCell().textContent = percent(each.logprob);
    row.insertCell().append(meter);
  }
  return element;
}

/** A token as it can be read: what is not seen otherwise, or no whole character, is spelled out. */
export function name(bytes) {
  const text = textOf(bytes);
  if (text === "") return "(end)";
  if (text.includes("\ufffd")) {
    return Array.from(bytes, (b) => b.charCodeAt(0).toString(16).padStart(2, "0")).join(" ");
  }
  return text.replaceAll(" ", "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}

function percent(logprob) {
  const value = 100 * Math.exp(logprob);
  return value >= 0.01 || value === 0 ? `${value.toFixed(value < 1 ? 2 : 1)} %` : "< 0.01 %";
}
