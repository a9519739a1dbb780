// What the page's modules decide without a document.

import assert from "node:assert/strict";
import { test } from "node:test";

import * as format from "../../../spotd/relay/static/page/format.js";
import { entries, ordered, pressed } from "../../../spotd/relay/static/page/order.js";
import { History } from "../../../spotd/relay/static/page/spark.js";

test("prices have cents, below a dollar four decimals", () => {
  assert.equal(format.price(1421.375), "1,421.38");
  assert.equal(format.price(1), "1.00");
  assert.equal(format.price(0.81234), "0.8123");
});

test("differences have a sign and the price's decimals; what is written as zero has no sign", () => {
  assert.equal(format.difference(1.5, 100), "+1.50");
  assert.equal(format.difference(-1.5, 100), "\u22121.50");
  assert.equal(format.difference(-0.0012, 0.8), "\u22120.0012");
  assert.equal(format.difference(-0.001, 100), "0.00");
  assert.equal(format.percent(0.123), "+0.12%");
  assert.equal(format.percent(-0.001), "0.00%");
});

test("an age has at most two units, whole", () => {
  const ages = [0, 59_999, 60_000, 185_000, 7_800_000, 86_400_000, 97_200_000].map(format.age);
  assert.deepEqual(ages, ["0 s", "59 s", "1 min", "3 min 5 s", "2 h 10 min", "1 d", "1 d 3 h"]);
});

test("a time of another day has its day", () => {
  const now = Date.parse("2026-01-20T15:00:00");
  assert.equal(format.moment(Date.parse("2026-01-20T09:31:05"), now), "09:31");
  assert.equal(format.moment(Date.parse("2026-01-16T16:00:00"), now), "Jan 16, 16:00");
});

test("a reason begins a sentence, and brings no full stop of its own", () => {
  assert.equal(format.sentence("connect call failed ('127.0.0.1', 6379)."), "Connect call failed ('127.0.0.1', 6379)");
  assert.equal(format.sentence("no answer in 1.5 s"), "No answer in 1.5 s");
  assert.equal(format.sentence(null), "");
});

test("a feed is named with its delay, also one that is unknown", () => {
  assert.equal(format.feed("iex", 0).short, "IEX, real time");
  assert.equal(format.feed("delayed_sip", 900).short, "SIP, 15 min late");
  assert.equal(format.feed("delayed_sip", undefined).short, "SIP, 15 min late");
  assert.match(format.feed("test", 0).note, /not real/);
  assert.equal(format.feed("novel", 0).short, "novel, real time");
  assert.deepEqual(format.feed(null, null), { short: "", note: "" });
  const simulated = format.feed("iex", 0, true);
  assert.equal(simulated.short, "Simulated");
  assert.match(simulated.note, /not real/);
  assert.doesNotMatch(simulated.note, /IEX/);
});

test("the market is named with its next change, and only if it is known", () => {
  const now = Date.parse("2026-01-20T15:00:00");
  assert.equal(format.market("closed", "2026-01-21T14:30:00", now), "Market closed until Jan 21, 14:30");
  assert.equal(format.market("extended", "2026-01-20T20:00:00", now), "Extended hours until 20:00");
  assert.equal(format.market("open", null, now), "Market open");
  assert.equal(format.market(undefined, null, now), "");
  assert.equal(format.market("lunch", null, now), "");
});

test("a lag is told from a second on, beyond the feed's own delay", () => {
  assert.equal(format.lag(null), "");
  assert.equal(format.lag(undefined), "");
  assert.equal(format.lag(999), "");
  assert.equal(format.lag(2340), "2.3 s behind");
  assert.equal(format.lag(75_000), "1 min 15 s behind");
  assert.equal(format.lag(900_100, 900), "");
  assert.equal(format.lag(902_000, 900), "2.0 s behind");
});

test("a gap is told with its length, its end and its reason", () => {
  const gap = { from: "2026-01-20T14:29:00", to: "2026-01-20T14:30:05", reason: "the key lapsed" };
  assert.equal(
    format.gap({ ...gap, symbols: 1 }, Date.parse("2026-01-20T15:00:00")),
    "Last gap: no prices of 1 symbol for 1 min 5 s until 14:30. The key lapsed.",
  );
  assert.match(format.gap({ ...gap, symbols: 2 }, 0), /of 2 symbols .* until Jan 20, 14:30\./);
});

test("states are counted, the most frequent first", () => {
  assert.equal(format.counts([]), "");
  assert.equal(format.counts(["live"]), "1 symbol: 1 live");
  assert.equal(format.counts(["halted", "live", "live"]), "3 symbols: 2 live, 1 halted");
});

test("an announcement names few symbols and counts many", () => {
  const told = (symbol, state, reason = null) => ({ symbol, state, reason });
  assert.equal(
    format.announcement([told("SPY", "live"), told("QQQ", "live"), told("X", "halted", "news")]),
    "SPY, QQQ live. X halted: news.",
  );
  const many = ["A", "B", "C", "D", "E"].map((symbol) => told(symbol, "disconnected"));
  assert.equal(format.announcement(many), "5 symbols disconnected.");
});

test("entries are separated by commas, semicolons and spaces, each once, in upper case", () => {
  assert.deepEqual(entries(" spy,QQQ; brk.b\nspy ,,"), ["SPY", "QQQ", "BRK.B"]);
  assert.deepEqual(entries("x".repeat(100)), ["X".repeat(64)]);
  assert.deepEqual(entries("ß"), ["ß"]); // not SS, which is another symbol
  assert.deepEqual(entries(""), []);
});

const rows = [
  { symbol: "B", price: 2, change: -1, state: "live" },
  { symbol: "C", price: null, change: null, state: "refused" },
  { symbol: "A", price: 3, change: 1, state: "halted" },
  { symbol: "D", price: 1, change: 1, state: "live" },
];
const symbols = (by) => ordered(rows, by).map(({ symbol }) => symbol).join("");

test("rows are ordered by a column in either direction, without one as they were added", () => {
  assert.equal(symbols(null), "BCAD");
  assert.equal(symbols({ key: "symbol", descending: false }), "ABCD");
  assert.equal(symbols({ key: "symbol", descending: true }), "DCBA");
  assert.equal(symbols({ key: "price", descending: true }), "ABDC");
});

test("rows without a number come last in both directions, equal ones keep their order", () => {
  assert.equal(symbols({ key: "change", descending: false }), "BADC");
  assert.equal(symbols({ key: "change", descending: true }), "ADBC");
});

test("by state, what needs attention comes first", () => {
  assert.equal(symbols({ key: "state", descending: false }), "ACBD");
});

test("a header that is pressed again turns the order round, and then lets it go", () => {
  const first = pressed(null, "symbol");
  const second = pressed(first, "symbol");
  assert.deepEqual(first, { key: "symbol", descending: false });
  assert.deepEqual(second, { key: "symbol", descending: true });
  assert.equal(pressed(second, "symbol"), null);
  assert.deepEqual(pressed(second, "price"), { key: "price", descending: true });
});

test("a line ends at the right, fills the height, and has gaps where nothing was live", () => {
  const history = new History();
  for (const price of [1, 2, null, 3]) history.add(price);
  assert.equal(history.path(), "M113.9 22.0L115.9 12.0M120.0 2.0");
});

test("a line needs two prices, holds one minute, and is level where nothing changes", () => {
  const history = new History();
  history.add(1);
  assert.equal(history.path(), "");
  for (let second = 0; second < 100; second += 1) history.add(7);
  const path = history.path();
  assert.equal(path.split(/[ML]/).length - 1, 60);
  assert.match(path, /^M0\.0 12\.0/);
  assert.match(path, /L120\.0 12\.0$/);
});
