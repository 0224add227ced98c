// The load of the gateway over the last minutes, from its metrics.

import { buckets, quantile, samples, total } from "./prometheus.js";

const PREFIX = ":tfllm:gateway:";
const WINDOW = 5; // readings that a rate or a quantile is taken over

/** Readings of the metrics of one model, as points of time; a point has null for what is unknown. */
export class Load {
  #readings = [];

  constructor(model, numPoints) {
    this.model = model;
    this.numPoints = numPoints;
    this.points = [];
  }

  /** Adds the point of a page of metrics that was read at a time in milliseconds. */
  add(page, at) {
    const all = samples(page);
    const labels = { model_name: this.model };
    const reading = {
      at,
      tokens: total(all, `${PREFIX}generated_tokens`, labels) ?? 0,
      first: buckets(all, `${PREFIX}time_to_first_token`, labels),
      between: buckets(all, `${PREFIX}time_between_pieces`, labels),
    };
    this.#readings.push(reading);
    const before = this.#readings.at(-1 - WINDOW) ?? this.#readings[0];
    if (this.#readings.length > WINDOW) this.#readings.shift();
    this.#push({
      tokensPerSecond: rate(before, reading),
      running: total(all, `${PREFIX}running_texts`, labels),
      waiting: total(all, `${PREFIX}waiting_texts`, labels),
      slots: total(all, `${PREFIX}slots`, labels),
      firstHalf: quantile(0.5, before.first, reading.first),
      firstMost: quantile(0.95, before.first, reading.first),
      betweenHalf: quantile(0.5, before.between, reading.between),
      betweenMost: quantile(0.95, before.between, reading.between),
    });
  }

  /** A time at which the gateway did not answer. */
  addGap() {
    this.#readings = [];
    this.#push({});
  }

  #push(point) {
    this.points.push(point);
    if (this.points.length > this.numPoints) this.points.shift();
  }
}

function rate(before, now) {
  const seconds = (now.at - before.at) / 1000;
  return seconds > 0 && now.tokens >= before.tokens ? (now.tokens - before.tokens) / seconds : null;
}
