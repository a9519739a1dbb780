/** The last minute of one symbol as a line. One sample per second; a gap where nothing was live. */

const SAMPLES = 60;
export const WIDTH = 120;
export const HEIGHT = 24;
const MARGIN = 2;

export class History {
  #samples = [];

  /** Take in the price at this second; null: it cannot be trusted. */
  add(price) {
    this.#samples.push(price);
    if (this.#samples.length > SAMPLES) this.#samples.shift();
  }

  /** Return the `d` of an SVG path, its newest sample at the right. */
  path() {
    const known = this.#samples.filter((price) => price !== null);
    if (known.length < 2) return "";
    const low = Math.min(...known);
    const range = Math.max(...known) - low;
    const step = WIDTH / (SAMPLES - 1);
    const left = WIDTH - (this.#samples.length - 1) * step;
    const height = HEIGHT - 2 * MARGIN;
    let path = "";
    let pen = "M";
    this.#samples.forEach((price, index) => {
      if (price === null) {
        pen = "M";
        return;
      }
      const share = range === 0 ? 0.5 : (price - low) / range;
      const x = (left + index * step).toFixed(1);
      const y = (MARGIN + (1 - share) * height).toFixed(1);
      path += `${pen}${x} ${y}`;
      pen = "L";
    });
    return path;
  }
}
