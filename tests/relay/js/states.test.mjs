import assert from "node:assert/strict";
import { test } from "node:test";

import { Setup } from "./setup.mjs";

test("a symbol is loading until its first price, then live", () => {
  const setup = new Setup();
  setup.spot.subscribe("SPY");
  assert.equal(setup.state("SPY"), "loading");
  setup.open();
  setup.tellState("SPY", "pending");
  assert.equal(setup.state("SPY"), "loading");
  setup.tellState("SPY", "live");
  assert.equal(setup.state("SPY"), "loading");
  setup.tellPrice("SPY");
  assert.equal(setup.state("SPY"), "live");
});

test("a price is live without a SymbolState, too", () => {
  const setup = new Setup();
  setup.open();
  setup.spot.subscribe("SPY");
  setup.tellPrice("SPY");
  assert.equal(setup.state("SPY"), "live");
});

test("a stale symbol says why, and keeps its price with its age", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  const reason = "the stream is interrupted";
  setup.tellState("SPY", "stale", { code: "backoff", reason });
  const { state, code, reason: told } = setup.spot.states.get("SPY");
  assert.deepEqual([state, code, told], ["stale", "backoff", reason]);
  setup.clock.pass(4_000);
  assert.equal(setup.spot.ageMs("SPY"), 4_000);
  setup.tellState("SPY", "live");
  assert.equal(setup.state("SPY"), "live");
});

test("a price that Alpaca has not confirmed since the daemon's start is stale", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  setup.tellState("SPY", "pending");
  assert.deepEqual([setup.state("SPY"), setup.code("SPY")], ["stale", "pending"]);
});

test("a symbol that nobody streams any more is stale, or loading where it never had a price", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  setup.spot.subscribe("QQQ");
  setup.tellState("SPY", "ended");
  setup.tellState("QQQ", "ended");
  assert.deepEqual([setup.state("SPY"), setup.code("SPY")], ["stale", "ended"]);
  assert.deepEqual([setup.state("QQQ"), setup.code("QQQ")], ["loading", "ended"]);
});

test("a halted symbol is halted with and without a price", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  setup.spot.subscribe("QQQ");
  setup.tellState("SPY", "halted", { reason: "LULD pause" });
  setup.tellState("QQQ", "halted");
  assert.equal(setup.state("SPY"), "halted");
  assert.equal(setup.spot.states.get("SPY").reason, "LULD pause");
  assert.equal(setup.state("QQQ"), "halted");
});

test("a refused symbol says why, and the detail for a person comes first", () => {
  const setup = new Setup();
  setup.open();
  setup.spot.subscribe("ZZZZ");
  const detail = "the plan allows 30 symbols";
  setup.tellState("ZZZZ", "refused", { reason: "symbol_limit", detail });
  const { state, code, reason } = setup.spot.states.get("ZZZZ");
  assert.deepEqual([state, code, reason], ["refused", "symbol_limit", detail]);
});

test("what is no symbol is refused at once and never sent", () => {
  const setup = new Setup();
  setup.open();
  setup.spot.subscribe(["SP Y", "*", "", "TOOLONGNAME", "x".repeat(100)]);
  setup.clock.pass(250);
  assert.deepEqual(setup.socket.requests(), []);
  const states = [...setup.spot.states.values()];
  assert.equal(states.length, 5);
  for (const { state, code } of states) {
    assert.deepEqual([state, code], ["refused", "invalid_symbol"]);
  }
});

test("symbols that an error of the relay refuses are refused with its message", () => {
  const setup = new Setup();
  setup.open();
  setup.spot.subscribe("SPY");
  const refused = { SPY: "symbol_limit" };
  setup.socket.tell({ type: "error", message: "at most 200 symbols", refused });
  const { state, code, reason } = setup.spot.states.get("SPY");
  assert.deepEqual([state, code, reason], ["refused", "symbol_limit", "at most 200 symbols"]);
});

test("what the relay had no room for is asked for again when a symbol is given up", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  setup.live("QQQ");
  setup.spot.subscribe(["XOM", "NO!"]);
  setup.clock.pass(250);
  const refused = { XOM: "symbol_limit" };
  setup.socket.tell({ type: "error", message: "at most 2 symbols", refused });
  setup.socket.requests();
  setup.spot.unsubscribe("QQQ");
  setup.clock.pass(250);
  assert.equal(setup.state("XOM"), "loading");
  assert.equal(setup.state("NO!"), "refused");
  assert.deepEqual(setup.socket.requests(), [
    { action: "unsubscribe", symbols: ["QQQ"] },
    { action: "subscribe", symbols: ["XOM"], batch: true },
  ]);
});

test("a live symbol is closed while the market is and its price is older than a minute", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  const tell = (market) => setup.socket.tell(setup.daemon({ market }));
  tell("closed");
  assert.equal(setup.state("SPY"), "live");
  for (let turn = 0; turn < 6; turn += 1) {
    setup.clock.pass(10_000);
    tell("closed");
  }
  assert.deepEqual([setup.state("SPY"), setup.code("SPY")], ["closed", "market_closed"]);
  setup.tellPrice("SPY");
  assert.equal(setup.state("SPY"), "live");
  const closed = setup.clock.wall() - 61_000;
  setup.tellPrice("SPY", { timestamp: new Date(closed).toISOString() });
  setup.clock.pass(1);
  tell("closed");
  assert.equal(setup.state("SPY"), "closed");
  setup.clock.pass(1);
  tell("extended");
  assert.equal(setup.state("SPY"), "live");
});

test("a symbol that waits for its first quote says so, with and without an old price", () => {
  const setup = new Setup();
  setup.open();
  setup.spot.subscribe("SPY");
  setup.live("QQQ");
  for (const symbol of ["SPY", "QQQ"]) {
    const reason = "waiting for its first quote";
    setup.tellState(symbol, "live", { code: "no_quote_yet", reason });
  }
  const told = ["SPY", "QQQ"].map((symbol) => [setup.state(symbol), setup.code(symbol)]);
  assert.deepEqual(told, [["loading", "no_quote_yet"], ["live", "no_quote_yet"]]);
  setup.tellState("QQQ", "live");
  assert.equal(setup.code("QQQ"), null);
});

test("a gap is told once, and the last one is kept", () => {
  const setup = new Setup();
  setup.open();
  assert.equal(setup.spot.gap, null);
  const gap = { type: "gap", from: "2026-01-20T14:29:00Z", to: "2026-01-20T14:29:05Z" };
  setup.socket.tell({ ...gap, reason: "the connection was lost", code: "interrupted", symbols: 3 });
  assert.deepEqual(setup.told.gaps.map(({ code, symbols }) => [code, symbols]), [["interrupted", 3]]);
  setup.socket.fail();
  assert.equal(setup.spot.gap.to, gap.to);
});

test("types and fields that are not known are ignored", () => {
  const setup = new Setup();
  setup.open(setup.daemon({ weather: "fine", market: "lunch" }));
  setup.live("SPY");
  setup.socket.tell({ type: "weather", symbol: "SPY", state: "stale" });
  setup.tellState("SPY", "live", { code: null, colour: { red: 1 } });
  setup.tellPrice("SPY", { volume: 7 });
  assert.equal(setup.state("SPY"), "live");
  assert.deepEqual(setup.told.errors, []);
});

test("a closed market does not hide that a symbol is stale or halted", () => {
  const setup = new Setup();
  setup.open(setup.daemon({ market: "closed" }));
  setup.live("SPY");
  setup.live("QQQ");
  const timestamp = new Date(setup.clock.wall() - 61_000).toISOString();
  setup.tellPrice("SPY", { timestamp });
  setup.tellPrice("QQQ", { timestamp });
  setup.clock.pass(1);
  setup.socket.tell(setup.daemon({ market: "closed" }));
  assert.deepEqual([setup.state("SPY"), setup.state("QQQ")], ["closed", "closed"]);
  setup.tellState("SPY", "stale", { code: "backoff" });
  setup.tellState("QQQ", "halted");
  assert.deepEqual([setup.state("SPY"), setup.state("QQQ")], ["stale", "halted"]);
});

test("a daemon status older than 15 s makes prices stale, a newer one live again", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  for (let second = 0; second < 14; second += 1) {
    setup.clock.pass(1_000);
    setup.tellPrice("SPY");
  }
  assert.equal(setup.state("SPY"), "live");
  setup.clock.pass(1_000);
  assert.deepEqual([setup.state("SPY"), setup.code("SPY")], ["stale", "daemon_silent"]);
  setup.socket.tell(setup.daemon());
  assert.equal(setup.state("SPY"), "live");
});

test("the same status told again does not make it younger", () => {
  const setup = new Setup();
  const old = setup.daemon();
  setup.open(old);
  setup.live("SPY");
  setup.clock.pass(10_000);
  setup.socket.tell(old);
  setup.clock.pass(5_000);
  assert.deepEqual([setup.state("SPY"), setup.code("SPY")], ["stale", "daemon_silent"]);
});

test("without a daemon prices are stale at once, and new symbols go on loading", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  setup.spot.subscribe("QQQ");
  setup.socket.tell({ type: "daemon", state: "absent" });
  assert.deepEqual([setup.state("SPY"), setup.code("SPY")], ["stale", "no_daemon"]);
  assert.deepEqual([setup.state("QQQ"), setup.code("QQQ")], ["loading", "no_daemon"]);
  assert.equal(setup.spot.status, null);
  setup.socket.tell(setup.daemon());
  assert.equal(setup.state("SPY"), "live");
});

test("a relay that does not hear Redis makes prices stale, and says why", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  const reason = "redis_away: Redis does not answer";
  setup.socket.tell({ type: "relay", state: "redis_away", reason });
  const { state, code, reason: told } = setup.spot.states.get("SPY");
  assert.deepEqual([state, code, told], ["stale", "redis_away", "Redis does not answer"]);
  setup.socket.tell({ type: "relay", state: "ready", reason: null });
  assert.equal(setup.state("SPY"), "live");
});

test("a silent relay makes prices stale after 15 s, and is named as the one that is silent", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  setup.clock.pass(5_000 - setup.clock.ms);
  setup.tellPrice("SPY");
  setup.clock.pass(9_999);
  assert.equal(setup.state("SPY"), "live");
  setup.clock.pass(1);
  assert.deepEqual([setup.state("SPY"), setup.code("SPY")], ["stale", "relay_silent"]);
});

test("a relay that answers is not named as silent where the only daemon has died", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  setup.socket.requests();
  setup.clock.pass(9_999);
  assert.deepEqual(setup.socket.requests(), []);
  setup.clock.pass(1);
  assert.deepEqual(setup.socket.requests(), [{ action: "ping" }]);
  setup.socket.tell({ type: "pong" });
  setup.clock.pass(15_000 - setup.clock.ms);
  assert.deepEqual([setup.state("SPY"), setup.code("SPY")], ["stale", "daemon_silent"]);
  setup.clock.pass(9_000);
  assert.equal(setup.tries, 1);
});

test("a relay that answers late is not named as silent any more", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  setup.clock.pass(15_000 - setup.clock.ms);
  assert.deepEqual([setup.state("SPY"), setup.code("SPY")], ["stale", "relay_silent"]);
  setup.socket.tell({ type: "pong" });
  assert.deepEqual([setup.state("SPY"), setup.code("SPY")], ["stale", "daemon_silent"]);
});

test("a state is told once for each change, not for each price", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  for (let turn = 0; turn < 5; turn += 1) setup.tellPrice("SPY");
  setup.tellState("SPY", "live");
  assert.deepEqual(setup.told.states.map(({ state }) => state), ["loading", "live"]);
});

test("since is the time that the relay tells, or the relay's present time", () => {
  const setup = new Setup({ wall: () => 0 });
  setup.open();
  setup.live("SPY");
  const since = "2026-01-20T14:29:00Z";
  setup.tellState("SPY", "halted", { since });
  assert.equal(setup.spot.states.get("SPY").since, Date.parse(since));
  setup.socket.fail();
  assert.equal(setup.spot.states.get("SPY").since, setup.spot.now());
});
