/** The page: wires spotd.js to the table, the notice and what people press. */

import { connect } from "../spotd.js";
import { Announcer } from "./announce.js";
import * as followed from "./followed.js";
import * as format from "./format.js";
import { Link } from "./link.js";
import { entries } from "./order.js";
import { Table } from "./table.js";

const parts = (id) => document.getElementById(id);
const symbols = new Set();
const announcer = new Announcer();
let table = null;
let link = null;

const token = followed.rememberedToken();
const spot = connect(null, {
  token,
  onSpotPriceUpdate: ({ symbol }) => table?.price(symbol),
  onState: (told) => {
    table?.state(told);
    announcer.state(told);
    countSoon();
  },
  onConnection: () => link?.show(),
  onStatus: () => link?.show(),
  onGap: () => link?.show(),
  onRelay: () => link?.show(),
  onError: (message) => console.warn(`spotd: ${message}`),
});

table = new Table(spot, (symbol) => {
  symbols.delete(symbol);
  spot.unsubscribe(symbol);
  announcer.forget(symbol);
  changed();
});
link = new Link(spot, {
  sentToken: token !== null,
  onToken: (given) => {
    followed.rememberToken(given);
    spot.reconnect({ token: given });
  },
});

function add(found) {
  const added = found.filter((symbol) => !symbols.has(symbol));
  for (const symbol of added) symbols.add(symbol);
  spot.subscribe(added);
  for (const symbol of added) table.add(symbol);
  changed();
}

function changed() {
  followed.remember([...symbols]);
  parts("empty").hidden = symbols.size > 0;
  countSoon();
}

let pausedAt = null;
let counting = false;
function countSoon() {
  if (counting) return;
  counting = true;
  setTimeout(() => {
    counting = false;
    const found = format.counts([...spot.states.values()].map(({ state }) => state));
    link.show();
    parts("counts").textContent = pausedAt === null ? found : `Prices paused at ${pausedAt}`;
  }, 100);
}

parts("add").addEventListener("submit", (event) => {
  event.preventDefault();
  add(entries(parts("symbols").value));
  parts("symbols").value = "";
});
parts("suggestions").addEventListener("click", ({ target }) => {
  if (target.tagName !== "BUTTON") return;
  add([target.textContent]);
  parts("symbols").focus();
});
parts("pause").addEventListener("click", () => {
  const paused = parts("pause").getAttribute("aria-pressed") !== "true";
  parts("pause").setAttribute("aria-pressed", String(paused));
  pausedAt = paused ? format.clockTime(Date.now()) : null;
  table.pause(paused);
  countSoon();
});

add(followed.followedAtFirst());
link.show();
