// Prometheus' text format: https://prometheus.io/docs/instrumenting/exposition_formats/

const SAMPLE = /^([\w:]+)(?:\{(.*)\})? (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;
const ESCAPED = { n: "\n" };

/** The samples of a page: [{name, labels, value}]. */
export function samples(page) {
  const found = [];
  for (const line of page.split("\n")) {
    const parts = line.startsWith("#") ? null : SAMPLE.exec(line);
    if (!parts) continue;
    const labels = {};
    for (const [, name, value] of (parts[2] ?? "").matchAll(LABEL)) {
      labels[name] = value.replace(/\\(.)/g, (_, escaped) => ESCAPED[escaped] ?? escaped);
    }
    found.push({ name: parts[1], labels, value: Number(parts[3].replace("Inf", "Infinity")) });
  }
  return found;
}

/** The sum of the samples of one name that have these labels; null if there are none. */
export function total(all, name, labels) {
  const chosen = all.filter((sample) => sample.name === name && has(sample, labels));
  return chosen.length ? chosen.reduce((sum, sample) => sum + sample.value, 0) : null;
}

/** How many values of a histogram were at most so large: a Map from limits, ascending. */
export function buckets(all, name, labels) {
  const counts = new Map();
  for (const sample of all) {
    if (sample.name !== `${name}_bucket` || !has(sample, labels)) continue;
    const limit = Number(sample.labels.le.replace("+Inf", "Infinity"));
    counts.set(limit, (counts.get(limit) ?? 0) + sample.value);
  }
  return new Map([...counts].sort(([a], [b]) => a - b));
}

/**
 * The q-quantile of what was added to a histogram between two times; null if nothing was.
 *
 * Values are taken to be spread evenly in their bucket, as PromQL's histogram_quantile does.
 */
export function quantile(q, before, after) {
  const added = [...after].map(([limit, count]) => [limit, count - (before.get(limit) ?? 0)]);
  const wanted = q * (added.at(-1)?.[1] ?? 0);
  if (!(wanted > 0)) return null; // also after a restart of the gateway
  let [low, below] = [0, 0];
  for (const [limit, count] of added) {
    if (count >= wanted) {
      if (limit === Infinity) return low;
      return low + ((limit - low) * (wanted - below)) / (count - below);
    }
    [low, below] = [limit, count];
  }
  return null;
}

function has(sample, labels) {
  return Object.entries(labels).every(([name, value]) => sample.labels[name] === value);
}
