import assert from "node:assert/strict";
import { test } from "node:test";

import { Setup } from "./setup.mjs";

test("symbols are trimmed and upper-cased, and asked for in one message", () => {
  const setup = new Setup();
  setup.open();
  setup.spot.subscribe([" spy ", "qqq"]);
  setup.spot.subscribe("brk.b");
  setup.clock.pass(250);
  const symbols = ["SPY", "QQQ", "BRK.B"];
  assert.deepEqual(setup.socket.requests(), [{ action: "subscribe", symbols, batch: true }]);
});

test("only ASCII is upper-cased: an entry never becomes another symbol", () => {
  const setup = new Setup();
  setup.open();
  setup.spot.subscribe(["ß", "brk.a"]);
  setup.clock.pass(250);
  assert.deepEqual(setup.socket.requests()[0].symbols, ["BRK.A"]); // neither "ß" nor "SS"
});

test("a symbol that is followed is not asked for again", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  setup.socket.requests();
  setup.spot.subscribe(["SPY"]);
  setup.clock.pass(250);
  assert.deepEqual(setup.socket.requests(), []);
});

test("many symbols are asked for in messages of at most 50", () => {
  const setup = new Setup();
  setup.open();
  const letters = [..."ABCDEFGHIJKLMNOPQRSTUVWXYZ"];
  const symbols = letters.slice(0, 5).flatMap((a) => letters.slice(0, 24).map((b) => a + b));
  setup.spot.subscribe(symbols);
  setup.clock.pass(250);
  const requests = setup.socket.requests();
  assert.deepEqual(requests.map((request) => request.symbols.length), [50, 50, 20]);
  assert.deepEqual(requests.flatMap((request) => request.symbols), symbols);
});

test("changes within a quarter of a second are sent together", () => {
  const setup = new Setup();
  setup.open();
  setup.spot.subscribe("SPY");
  setup.clock.pass(0);
  assert.equal(setup.socket.requests().length, 1);
  setup.spot.subscribe("QQQ");
  setup.clock.pass(100);
  setup.spot.subscribe("AAPL");
  assert.equal(setup.socket.requests().length, 0);
  setup.clock.pass(150);
  assert.deepEqual(setup.socket.requests().map((request) => request.symbols), [["QQQ", "AAPL"]]);
});

test("a rate is asked for with the symbols that it is for", () => {
  const setup = new Setup({ maxHz: 2 });
  setup.open();
  setup.spot.subscribe("SPY");
  setup.spot.subscribe("QQQ", { maxHz: 1 });
  setup.clock.pass(250);
  assert.deepEqual(setup.socket.requests(), [
    { action: "subscribe", symbols: ["SPY"], batch: true, max_hz: 2 },
    { action: "subscribe", symbols: ["QQQ"], batch: true, max_hz: 1 },
  ]);
  setup.spot.subscribe("SPY", { maxHz: 5 });
  setup.clock.pass(250);
  assert.deepEqual(setup.socket.requests().map((request) => request.max_hz), [5]);
});

test("what is unsubscribed is forgotten, and what is on its way then is dropped", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  setup.socket.requests();
  setup.spot.unsubscribe("spy");
  setup.clock.pass(250);
  assert.deepEqual(setup.socket.requests(), [{ action: "unsubscribe", symbols: ["SPY"] }]);
  setup.tellPrice("SPY");
  setup.tellState("SPY", "live");
  assert.equal(setup.told.updates.length, 1);
  assert.equal(setup.spot.prices.size, 0);
  assert.equal(setup.spot.states.size, 0);
});

test("a symbol given up and taken again in one breath is told its newest value again", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  setup.socket.requests();
  setup.spot.unsubscribe("SPY");
  setup.spot.subscribe("SPY");
  setup.clock.pass(250);
  const actions = setup.socket.requests().map((request) => request.action);
  assert.deepEqual(actions, ["unsubscribe", "subscribe"]);
  assert.equal(setup.state("SPY"), "loading");
});

test("a symbol given up before it was asked for is not mentioned to the relay", () => {
  const setup = new Setup();
  setup.open();
  setup.spot.subscribe("SPY");
  setup.spot.unsubscribe("SPY");
  setup.clock.pass(250);
  assert.deepEqual(setup.socket.requests(), []);
});

test("an update that is not newer by seq is dropped", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  const newest = setup.tellPrice("SPY", { seq: 100 });
  setup.tellPrice("SPY", { seq: 100, mid_price: 7 });
  setup.tellPrice("SPY", { seq: 99, mid_price: 8 });
  assert.deepEqual(setup.spot.prices.get("SPY"), newest);
  assert.equal(setup.told.updates.length, 2);
});

test("a batch is told update by update", () => {
  const setup = new Setup();
  setup.open();
  setup.spot.subscribe(["SPY", "QQQ"]);
  const updates = [setup.price("SPY"), setup.price("QQQ")];
  const timestamp = setup.clock.timestamp();
  setup.socket.tell({ type: "spot_price_update_batch", updates, timestamp });
  assert.deepEqual(setup.told.updates, updates);
  assert.deepEqual([...setup.spot.prices.keys()], ["SPY", "QQQ"]);
});

test("a price is in prices and its state is told before the program hears of it", () => {
  const seen = [];
  const setup = new Setup({
    onSpotPriceUpdate: ({ symbol }) => {
      seen.push([setup.spot.prices.has(symbol), setup.state(symbol)]);
    },
  });
  setup.open();
  setup.spot.subscribe("SPY");
  setup.tellPrice("SPY");
  assert.deepEqual(seen, [[true, "live"]]);
});

test("the age of a price is counted by the relay's clock", () => {
  const setup = new Setup({ wall: () => 0 }); // a browser whose clock is decades behind
  setup.open();
  setup.live("SPY");
  assert.equal(setup.spot.ageMs("SPY"), 0);
  setup.clock.pass(1_500);
  assert.equal(setup.spot.ageMs("SPY"), 1_500);
  assert.equal(setup.spot.ageMs("QQQ"), null);
});

test("unknown types and fields are ignored, a complaint of the relay is told", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  setup.socket.tell({ type: "novelty", at: "tomorrow" });
  setup.tellPrice("SPY", { novelty: 1 });
  setup.socket.tell({ type: "error", message: "unknown action" });
  assert.deepEqual(setup.told.errors, ["unknown action"]);
  assert.equal(setup.state("SPY"), "live");
});

test("what is not a JSON object is told as an error and harms nothing", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  for (const text of ["{", "null", "1"]) setup.socket.tell(text);
  setup.tellPrice("SPY");
  assert.equal(setup.told.errors.length, 3);
  assert.equal(setup.told.updates.length, 2);
});

test("a callback that throws does not end the stream, and its error is not swallowed", () => {
  const defect = new Error("a defect of the page");
  const reported = [];
  const setup = new Setup({
    onState: () => {
      throw defect;
    },
    reportError: (error) => reported.push(error),
  });
  setup.open();
  setup.spot.subscribe("SPY");
  setup.tellPrice("SPY");
  assert.equal(setup.told.updates.length, 1);
  assert.deepEqual(reported, [defect, defect]);
});
