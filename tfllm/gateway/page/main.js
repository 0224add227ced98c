// The page: its buttons and keys.

import { paragraph } from "./answer.js";
import { models } from "./api.js";
import { Chat } from "./chat.js";
import { Completion } from "./completion.js";
import { watch } from "./monitor.js";
import { sampling, wantsProbabilities } from "./settings.js";
import { explainTokens } from "./tokens.js";

const $ = (id) => document.getElementById(id);
const [answers, form, prompt, settings, status] = ["answers", "prompt-form", "prompt", "settings", "status"].map($);
const modes = { chat: new Chat($("system")), completion: new Completion() };
const chatInput = document.querySelector("input[name=mode][value=chat]");
let known = []; // the models, as they are told
let running = null; // the AbortController of the answer that is being written

const mode = () => document.querySelector("input[name=mode]:checked").value;
const key = () => $("key").value.trim();

async function send() {
  if (running || prompt.value === "" || !settings.reportValidity()) return;
  const asked = modes[mode()];
  const text = prompt.value;
  const article = answers.appendChild(document.createElement("article"));
  const body = { model: $("model").value, ...sampling(settings) };
  if (wantsProbabilities(settings)) Object.assign(body, asked.probabilities);
  running = new AbortController();
  prompt.value = "";
  show("writing …");
  try {
    show(await asked.ask(text, article, { body, key: key(), signal: running.signal }));
  } catch (error) {
    paragraph(article, "failed", error.message);
    prompt.value ||= text; // to be tried again
    show("failed");
  } finally {
    running = null;
    show(status.textContent);
    prompt.focus();
  }
}

function show(words) {
  status.textContent = words;
  $("send").disabled = running !== null;
  $("stop").disabled = running === null;
}

function stop() {
  running?.abort();
}

function clear() {
  stop();
  for (const each of Object.values(modes)) each.clear();
  answers.replaceChildren();
  show("");
}

function changeMode() {
  $("system-line").hidden = mode() !== "chat";
  prompt.placeholder = mode() === "chat" ? "Say something" : "The beginning of a text";
  clear();
}

// A model without a chat template goes on with texts, and is asked for nothing else.
function changeModel() {
  const canChat = known.find(({ name }) => name === $("model").value)?.canChat !== false;
  chatInput.disabled = !canChat;
  $("no-chat").hidden = canChat;
  if (!canChat && mode() === "chat") {
    document.querySelector("input[name=mode][value=completion]").checked = true;
    changeMode();
  }
}

async function findModels() {
  const chosen = $("model").value;
  try {
    known = await models(key());
    $("model").replaceChildren(...known.map(({ name }) => new Option(name, name, false, name === chosen)));
    show("");
    changeModel();
  } catch (error) {
    show(error.message);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
settings.addEventListener("submit", (event) => event.preventDefault());
prompt.addEventListener("keydown", (event) => {
  // An Enter that ends the composing of a character is not meant for the page.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
$("stop").addEventListener("click", stop);
$("clear").addEventListener("click", clear);
$("key").addEventListener("change", findModels);
$("model").addEventListener("change", changeModel);
for (const input of document.querySelectorAll("input[name=mode]")) {
  input.addEventListener("change", changeMode);
}

// Stays at the end while an answer grows, unless one has scrolled away from it.
let isAtEnd = true;
answers.addEventListener("scroll", () => {
  isAtEnd = answers.scrollHeight - answers.scrollTop - answers.clientHeight < 40;
});
new MutationObserver(() => {
  if (isAtEnd) answers.scrollTop = answers.scrollHeight;
}).observe(answers, { childList: true, subtree: true });

const colour = () => answers.classList.toggle("coloured", $("colour").checked);
$("colour").addEventListener("change", colour);
colour();
changeMode();
explainTokens(answers);
findModels();
watch(() => ({ model: $("model").value, key: key() }));
