// The plots at the foot of the page, drawn anew every two seconds while the page is looked at.

import { metrics } from "./api.js";
import { Load } from "./load.js";
import { Plot } from "./plots.js";

const EVERY_MS = 2000;
const NUM_POINTS = 150;
const SINCE = `${(EVERY_MS * NUM_POINTS) / 60000} minutes ago`;

const count = (value) => value.toFixed(value > 0 && value < 10 && value % 1 ? 1 : 0);
const milliseconds = (s) => (s < 1 ? `${(1000 * s).toFixed(s < 0.01 ? 1 : 0)} ms` : `${s.toFixed(1)} s`);
const half = (field) => ({ field, label: "median" });
const most = (field) => ({ field, label: "95 %" });

/**
 * Watches the gateway.
 *
 * @param {() => {model: string, key: string}} chosen What is chosen on the page now.
 */
export function watch(chosen) {
  const state = document.getElementById("load-state");
  const plots = [
    new Plot("Tokens per second", [{ field: "tokensPerSecond", label: "" }], count),
    new Plot("Texts", [{ field: "running", label: "running" }, { field: "waiting", label: "waiting" }], count),
    new Plot("First token after", [half("firstHalf"), most("firstMost")], milliseconds),
    new Plot("Between tokens", [half("betweenHalf"), most("betweenMost")], milliseconds),
  ];
  document.getElementById("plots").append(...plots.map((plot) => plot.element));
  let load = new Load("", NUM_POINTS);

  async function read() {
    const { model, key } = chosen();
    if (model !== load.model) load = new Load(model, NUM_POINTS);
    try {
      load.add(await metrics(key), performance.now());
      state.hidden = true;
    } catch (error) {
      load.addGap();
      state.textContent = `The load is not known: ${error.message}`;
      state.hidden = false;
    }
    for (const plot of plots) plot.draw(load.points, NUM_POINTS, SINCE);
    const slots = load.points.at(-1).slots;
    plots[1].most.textContent = slots ? `${slots} slots` : "";
  }

  async function again() {
    if (document.visibilityState === "visible") await read();
    setTimeout(again, EVERY_MS);
  }
  again();
}
