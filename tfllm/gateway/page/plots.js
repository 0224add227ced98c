// Small plots of lines over time.

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT] = [300, 60]; // of the drawing; the page stretches it

/**
 * A plot.
 *
 * @param {string} title
 * @param {{field: string, label: string}[]} lines At most two: what of a point they show.
 * @param {(value: number) => string} written How a value is written.
 */
export class Plot {
  constructor(title, lines, written) {
    this.lines = lines;
    this.written = written;
    this.element = document.createElement("figure");
    const caption = this.element.appendChild(document.createElement("figcaption"));
    caption.appendChild(document.createElement("b")).textContent = title;
    const svg = this.element.appendChild(document.createElementNS(SVG, "svg"));
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true"); // its last values are in the caption
    this.values = lines.map((_, i) => {
      const value = caption.appendChild(document.createElement("span"));
      value.className = ["first", "second"][i];
      return value;
    });
    this.paths = lines.map((_, i) => {
      const path = svg.appendChild(document.createElementNS(SVG, "path"));
      path.setAttribute("class", ["first", "second"][i]);
      return path;
    });
    const scale = this.element.appendChild(document.createElement("div"));
    scale.className = "scale";
    scale.setAttribute("aria-hidden", "true");
    [this.since, this.most] = [0, 1].map(() => scale.appendChild(document.createElement("span")));
  }

  /**
   * Draws points, the newest at the right end.
   *
   * @param {object[]} points
   * @param {number} numPoints That the plot has room for.
   * @param {string} since How long ago the left end is.
   */
  draw(points, numPoints, since) {
    const known = points.flatMap((p) => this.lines.map(({ field }) => p[field] ?? 0));
    const most = Math.max(...known);
    const left = numPoints - points.length;
    this.lines.forEach(({ field, label }, i) => {
      const values = points.map((point) => point[field] ?? null);
      this.paths[i].setAttribute("d", line(values, left, numPoints, most || 1));
      const last = values.findLast((value) => value !== null);
      this.values[i].textContent = `${label} ${last === undefined ? "–" : this.written(last)}`;
    });
    this.since.textContent = since;
    this.most.textContent = most > 0 ? `at most ${this.written(most)}` : "";
  }
}

function line(values, left, numPoints, most) {
  let isDown = false;
  return values
    .map((value, i) => {
      const command = isDown ? "L" : "M";
      isDown = value !== null;
      if (!isDown) return "";
      const x = ((left + i) / (numPoints - 1)) * WIDTH;
      // A horizontal line without length makes a single point seen.
      return `${command}${x.toFixed(1)} ${(HEIGHT * (1 - value / most)).toFixed(1)}h0`;
    })
    .join("");
}
