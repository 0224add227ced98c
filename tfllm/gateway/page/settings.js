// The form of settings, as fields of a request.

const NUMBERS = [
  "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty",
  "frequency_penalty", "seed", "max_tokens",
];

/** The fields that are filled in; the gateway has the others as the model was exported. */
export function sampling(form) {
  const asked = {};
  for (const name of NUMBERS) {
    const value = form.elements[name].value;
    if (value !== "") asked[name] = Number(value);
  }
  const stops = form.elements.stop.value.split("\n").filter((line) => line !== "");
  if (stops.length) asked.stop = stops.map((line) => line.replaceAll("\\n", "\n"));
  return asked;
}

/** Whether the tokens shall come with their probabilities. */
export function wantsProbabilities(form) {
  return form.elements.probabilities.checked;
}
