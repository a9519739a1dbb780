/** The table: which rows there are, in which order, and when they are drawn. */

import { ordered, pressed } from "./order.js";
import { Row } from "./row.js";

// Numbers are drawn at most this often: faster than anybody reads, and far cheaper than each alone.
const DRAW_EVERY_MS = 100;
const SECOND_MS = 1000;

export class Table {
  #spot;
  #onRemove;
  #rows = new Map();
  #changed = new Set(); // symbols with a price that is not drawn yet
  #drawTimer = null;
  #by = null;
  #table = document.getElementById("prices");
  #body = document.getElementById("rows");
  #paused = false;

  constructor(spot, onRemove) {
    this.#spot = spot;
    this.#onRemove = onRemove;
    for (const button of this.#table.querySelectorAll("thead button")) {
      button.addEventListener("click", () => this.#press(button.closest("th").dataset.key));
    }
    setInterval(() => this.#everySecond(), SECOND_MS);
    document.addEventListener("visibilitychange", () => this.#drawSoon());
  }

  add(symbol) {
    const row = new Row(symbol, () => this.#remove(symbol));
    this.#rows.set(symbol, row);
    this.#body.append(row.element);
    this.#table.hidden = false;
    this.state(this.#spot.states.get(symbol));
    this.#sort();
  }

  price(symbol) {
    this.#changed.add(symbol);
    this.#drawSoon();
  }

  /** States are shown also while paused: what is not live must not look live. */
  state(told) {
    const row = this.#rows.get(told.symbol);
    row?.showState(told, this.#spot.ageMs(told.symbol), this.#spot.now());
  }

  pause(paused) {
    this.#paused = paused;
    this.#table.classList.toggle("paused", paused);
    this.#drawSoon();
  }

  #remove(symbol) {
    const row = this.#rows.get(symbol);
    const next = row.element.nextElementSibling ?? row.element.previousElementSibling;
    row.element.remove();
    this.#rows.delete(symbol);
    this.#changed.delete(symbol);
    this.#table.hidden = this.#rows.size === 0;
    this.#onRemove(symbol);
    if (next === null) document.getElementById("symbols").focus();
    else this.#rows.get(next.dataset.symbol).focusRemove();
  }

  #drawSoon() {
    if (this.#drawTimer !== null || this.#paused || document.hidden) return;
    this.#drawTimer = setTimeout(() => requestAnimationFrame(() => this.#draw()), DRAW_EVERY_MS);
  }

  #draw() {
    this.#drawTimer = null;
    if (this.#paused) return;
    for (const symbol of this.#changed) {
      const update = this.#spot.prices.get(symbol);
      if (update !== undefined) this.#rows.get(symbol)?.showPrice(update);
    }
    this.#changed.clear();
  }

  #everySecond() {
    const nowMs = this.#spot.now();
    for (const row of this.#rows.values()) {
      if (!this.#paused) row.sample();
      if (document.hidden) continue;
      if (row.state !== "live") row.showAge(this.#spot.ageMs(row.symbol), nowMs);
      if (!this.#paused) row.drawLine();
    }
    // Rows do not move away under a pointer or a focus.
    const held = this.#body.matches(":hover") || this.#body.contains(document.activeElement);
    if (!this.#paused && !held) this.#sort();
  }

  #press(key) {
    this.#by = pressed(this.#by, key);
    for (const head of this.#table.querySelectorAll("th[data-key]")) {
      if (head.dataset.key !== this.#by?.key) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", this.#by.descending ? "descending" : "ascending");
    }
    this.#sort();
  }

  /** Move only what is not in its place, and keep the focus. */
  #sort() {
    const focused = document.activeElement;
    let place = this.#body.firstElementChild;
    for (const { element } of ordered(this.#rows.values(), this.#by)) {
      if (element === place) place = place.nextElementSibling;
      else this.#body.insertBefore(element, place);
    }
    if (focused !== document.activeElement) focused.focus();
  }
}
