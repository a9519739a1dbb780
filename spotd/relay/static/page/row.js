/** One symbol's row: writes what changed, and nothing else. */

import * as format from "./format.js";
import { isGeneral } from "./link.js";
import { HEIGHT, History, WIDTH } from "./spark.js";

const SVG = "http://www.w3.org/2000/svg";
const DASH = "\u2013";
const COLUMNS = ["price", "change", "bid", "ask", "last"];
const WITHOUT_PRICE = ["price", "percent", "bid", "ask", "last"];

export class Row {
  price = null; // mid price, for sorting
  change = null; // percent, for sorting
  state = "loading";
  #told = { state: "loading", reason: null, since: 0 };
  #update = null;
  #first = null;
  #history = new History();
  #written = new Map(); // text node -> what it holds
  #texts = {};
  #path;
  #line = "";

  constructor(symbol, onRemove) {
    this.symbol = symbol;
    this.element = made("tr", { role: "row" });
    this.element.dataset.symbol = symbol;
    const head = made("th", { scope: "row", role: "rowheader", class: "symbol" });
    head.textContent = symbol;
    this.element.append(head);
    for (const column of COLUMNS) this.element.append(this.#cell(column));
    this.element.append(this.#sparkCell(), this.#stateCell(), this.#toolsCell(onRemove));
    this.showState(this.#told, null, 0);
  }

  /** Whether a price is held that can be trusted now. */
  get current() {
    return this.#update !== null && (this.state === "live" || this.state === "closed");
  }

  focusRemove() {
    this.element.querySelector("button").focus();
  }

  showPrice(update) {
    const before = this.#update;
    this.#update = update;
    this.#first ??= update.mid_price;
    const { mid_price: mid, bid_price: bid, ask_price: ask, last_price: last } = update;
    const change = mid - this.#first;
    this.price = mid;
    this.change = (change / this.#first) * 100;
    if (before !== null && mid !== before.mid_price) {
      this.#mark("tick", mid > before.mid_price ? "up" : "down");
    }
    const percent = format.percent(this.change);
    const flat = !/[1-9]/.test(percent);
    this.#mark("trend", flat ? "flat" : change > 0 ? "up" : "down");
    this.#write(this.#texts.price, format.price(mid));
    this.#write(this.#texts.change, format.difference(change, mid));
    this.#write(this.#texts.percent, percent);
    this.#write(this.#texts.bid, format.price(bid));
    this.#write(this.#texts.ask, format.price(ask));
    this.#write(this.#texts.last, last === null ? DASH : format.price(last));
  }

  /** `ageMs` is that of the price, null without one. */
  showState(told, ageMs, nowMs) {
    this.#told = told;
    this.state = told.state;
    this.#mark("state", told.state);
    this.#write(this.#texts.word, format.WORDS[told.state]);
    this.showAge(ageMs, nowMs);
    if (this.#update === null) {
      const none = told.state === "loading" ? "" : DASH;
      for (const column of WITHOUT_PRICE) this.#write(this.#texts[column], none);
    }
  }

  /** Write what passes with time: an age, or since when. */
  showAge(ageMs, nowMs) {
    const { state, reason, since } = this.#told;
    let when = "";
    if (state === "closed" && ageMs !== null) {
      when = `last price ${format.moment(nowMs - ageMs, nowMs)}`;
    } else if (state === "halted") when = format.age(Math.max(0, nowMs - since));
    else if (ageMs !== null && state !== "live" && state !== "refused") when = format.age(ageMs);
    this.#write(this.#texts.when, when);
    const said = state === "closed" || isGeneral(this.#told);
    this.#write(this.#texts.why, said ? "" : format.sentence(reason));
  }

  /** Take a sample of the price for the line, once a second. */
  sample() {
    this.#history.add(this.current ? this.price : null);
  }

  drawLine() {
    const line = this.#history.path();
    if (line === this.#line) return;
    this.#line = line;
    this.#path.setAttribute("d", line);
  }

  #cell(column) {
    const cell = made("td", { role: "cell", class: column });
    // A box of fixed size: a new number makes the browser lay out this box alone.
    const box = cell.appendChild(made("span", { class: "number" }));
    if (column === "price") box.append(made("span", { class: "arrow", "aria-hidden": "true" }));
    this.#texts[column] = box.appendChild(document.createTextNode(""));
    if (column === "change") {
      const percent = cell.appendChild(made("span", { class: "number percent" }));
      this.#texts.percent = percent.appendChild(document.createTextNode(""));
    }
    return cell;
  }

  #sparkCell() {
    const cell = made("td", { role: "cell", class: "spark" });
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    this.#path = svg.appendChild(document.createElementNS(SVG, "path"));
    cell.append(svg);
    return cell;
  }

  #stateCell() {
    const cell = made("td", { role: "cell", class: "state" });
    const badge = made("span", { class: "badge" });
    badge.append(made("span", { class: "mark", "aria-hidden": "true" }));
    this.#texts.word = badge.appendChild(document.createTextNode(""));
    const when = made("span", { class: "when" });
    this.#texts.when = when.appendChild(document.createTextNode(""));
    const why = made("span", { class: "why" });
    this.#texts.why = why.appendChild(document.createTextNode(""));
    cell.append(badge, " ", when, " ", why);
    return cell;
  }

  #toolsCell(onRemove) {
    const cell = made("td", { role: "cell", class: "tools" });
    const button = made("button", {
      type: "button",
      "aria-label": `Remove ${this.symbol}`,
      title: `Remove ${this.symbol}`,
    });
    button.textContent = "\u00d7";
    button.addEventListener("click", onRemove);
    cell.append(button);
    return cell;
  }

  #write(text, value) {
    if (this.#written.get(text) === value) return;
    this.#written.set(text, value);
    text.data = value;
  }

  #mark(name, value) {
    if (this.element.dataset[name] !== value) this.element.dataset[name] = value;
  }
}

function made(tag, attributes) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}
