/** Tells screen readers which states changed, gathered, and never a price. */

import { announcement } from "./format.js";

const GATHER_MS = 1000;

export class Announcer {
  #element = document.getElementById("announcements");
  #said = new Map(); // symbol -> the state that was announced last
  #news = new Map();
  #timer = null;

  state(told) {
    this.#news.set(told.symbol, told);
    this.#timer ??= setTimeout(() => this.#say(), GATHER_MS);
  }

  forget(symbol) {
    this.#news.delete(symbol);
    this.#said.delete(symbol);
  }

  #say() {
    this.#timer = null;
    // A state that came and went meanwhile is no news, nor that a new symbol loads.
    const changed = [...this.#news.values()].filter(
      ({ symbol, state }) => state !== (this.#said.get(symbol) ?? "loading"),
    );
    for (const { symbol, state } of changed) this.#said.set(symbol, state);
    this.#news.clear();
    if (changed.length > 0) this.#element.textContent = announcement(changed);
  }
}
