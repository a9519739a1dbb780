import assert from "node:assert/strict";
import { test } from "node:test";

import { connect } from "../../../spotd/relay/static/spotd.js";
import { FakeSocket, RELAY, Setup, settle } from "./setup.mjs";

const states = (setup) => setup.told.connections.map(({ state }) => state);

test("the address of the relay becomes that of its websocket", () => {
  const cases = {
    "http://relay.test": "ws://relay.test/ws",
    "https://relay.test/": "wss://relay.test/ws",
    "https://relay.test/spot": "wss://relay.test/spot/ws",
    "wss://relay.test/spot/ws?a=1#b": "wss://relay.test/spot/ws?a=1",
  };
  for (const [url, address] of Object.entries(cases)) {
    const setup = new Setup({}, url);
    assert.equal(setup.socket.address, address);
  }
});

test("an address that is not valid is an error at once", () => {
  assert.throws(() => new Setup({}, "http://"), TypeError);
});

test("without a WebSocket the error says what to do", () => {
  const own = Object.getOwnPropertyDescriptor(globalThis, "WebSocket");
  delete globalThis.WebSocket;
  try {
    assert.throws(() => connect(RELAY), /needs a WebSocket.*Node\.js 22.*connect\(url, \{ WebSocket/);
    const setup = new Setup(); // which passes one
    assert.equal(setup.socket.address, "ws://relay.test/ws");
  } finally {
    if (own) Object.defineProperty(globalThis, "WebSocket", own);
  }
});

test("the token goes as a subprotocol in base64url, never in the address", () => {
  const setup = new Setup({ token: "sécret>>>?" });
  const encoded = Buffer.from("sécret>>>?").toString("base64url");
  assert.deepEqual(setup.socket.protocols, ["spotd.v1", `bearer.${encoded}`]);
  assert.equal(setup.socket.address, "ws://relay.test/ws");
  const open = new Setup();
  assert.deepEqual(open.socket.protocols, ["spotd.v1"]);
});

test("the connection is open from the relay's first word on", () => {
  const setup = new Setup();
  setup.socket.accept();
  assert.equal(setup.spot.connection.state, "connecting");
  setup.socket.tell({ type: "hello", version: 1, limits: { max_symbols: 9 }, daemon: null });
  assert.equal(setup.spot.connection.state, "open");
  assert.equal(setup.spot.hello.limits.max_symbols, 9);
  assert.deepEqual(states(setup), ["connecting", "open"]);
});

test("a lost connection disconnects every symbol, keeps the prices, and comes back", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  setup.spot.subscribe("QQQ");
  setup.socket.fail();
  assert.deepEqual([setup.state("SPY"), setup.state("QQQ")], ["disconnected", "disconnected"]);
  assert.equal(setup.spot.prices.size, 1);
  setup.clock.pass(500);
  assert.equal(setup.tries, 2);
  setup.open();
  const symbols = ["SPY", "QQQ"];
  assert.deepEqual(setup.socket.requests(), [{ action: "subscribe", symbols, batch: true }]);
  setup.tellPrice("SPY");
  setup.tellState("SPY", "live");
  assert.equal(setup.state("SPY"), "live");
  assert.deepEqual(states(setup), ["connecting", "open", "waiting", "connecting", "open"]);
});

test("a price from before the interruption is stale until the relay tells the symbol again", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  const held = setup.spot.prices.get("SPY");
  setup.socket.fail();
  setup.clock.pass(500);
  setup.open();
  assert.deepEqual([setup.state("SPY"), setup.code("SPY")], ["stale", "rejoining"]);
  setup.tellPrice("SPY", held); // nothing newer happened: the same value confirms it
  assert.equal(setup.state("SPY"), "live");
  assert.equal(setup.told.updates.length, 1);
});

test("a refused symbol stays refused while disconnected, and is asked for again after", () => {
  const setup = new Setup();
  setup.open();
  setup.spot.subscribe(["SPY", "NO!"]);
  setup.tellState("SPY", "refused", { reason: "symbol_limit" });
  setup.socket.fail();
  assert.equal(setup.state("SPY"), "refused");
  setup.clock.pass(500);
  setup.open();
  assert.deepEqual(setup.socket.requests()[0].symbols, ["SPY"]);
  setup.tellState("SPY", "live");
  setup.tellPrice("SPY");
  assert.equal(setup.state("SPY"), "live");
  assert.equal(setup.state("NO!"), "refused");
});

test("tries are made after pauses that double up to 15 s, each with jitter", async () => {
  const randoms = [1, 0, 1, 1, 1, 1, 1, 1];
  const setup = new Setup({ random: () => randoms.shift() });
  const pauses = [];
  for (let failure = 0; failure < 8; failure += 1) {
    setup.socket.fail();
    await settle();
    pauses.push(setup.spot.connection.retryInMs);
    setup.clock.pass(setup.spot.connection.retryInMs);
  }
  assert.deepEqual(pauses, [500, 500, 2_000, 4_000, 8_000, 15_000, 15_000, 15_000]);
});

test("a connection that breaks soon after its hello does not reset the pauses, a steady one does", () => {
  const setup = new Setup();
  const pause = () => setup.spot.connection.retryInMs;
  setup.open();
  setup.socket.fail(4000);
  assert.equal(pause(), 500);
  setup.clock.pass(500);
  setup.open();
  setup.socket.fail(4000);
  assert.equal(pause(), 1_000);
  setup.clock.pass(1_000);
  setup.open();
  setup.clock.pass(5_000);
  setup.socket.fail(4000);
  assert.equal(pause(), 500);
});

test("close codes that blame our messages, and 4100 to 4199, are final; others are tried again", () => {
  for (const code of [1000, 1001, 1006, 1011, 4000, 4099, 4200]) {
    const setup = new Setup();
    setup.open();
    setup.socket.fail(code, "why");
    assert.equal(setup.spot.connection.state, "waiting", String(code));
    assert.equal(setup.spot.connection.code, `code_${code}`);
    assert.equal(setup.spot.connection.reason, "why");
  }
  for (const code of [1002, 1007, 1009, 4100, 4101, 4199]) {
    const setup = new Setup();
    setup.open();
    setup.live("SPY");
    setup.socket.fail(code, "too many messages");
    assert.deepEqual(setup.spot.connection, {
      state: "refused",
      code: `code_${code}`,
      reason: "too many messages",
      retryInMs: null,
    });
    assert.equal(setup.state("SPY"), "disconnected");
    assert.equal(setup.clock.timers.size, 0);
  }
});

test("a handshake refused for its token is explained and not tried again", async () => {
  const setup = new Setup({ token: "wrong" });
  setup.spot.subscribe("SPY");
  setup.answers = [{ status: 401 }];
  setup.socket.fail();
  await settle();
  assert.equal(setup.probes[0].address, "http://relay.test/api/spot-prices?symbols=");
  assert.equal(setup.probes[0].headers.Authorization, "Bearer wrong");
  const { state, code, reason } = setup.spot.connection;
  assert.deepEqual([state, code], ["refused", "unauthorized"]);
  assert.equal(reason, "the relay refuses this token");
  assert.equal(setup.state("SPY"), "disconnected");
  assert.equal(setup.clock.timers.size, 0);
});

test("reconnect with another token ends a refusal", async () => {
  const setup = new Setup();
  setup.answers = [{ status: 401 }];
  setup.socket.fail();
  await settle();
  assert.equal(setup.spot.connection.reason, "the relay needs a token");
  setup.spot.reconnect({ token: "abc" });
  assert.deepEqual(setup.socket.protocols, ["spotd.v1", "bearer.YWJj"]);
  setup.open();
  assert.equal(setup.spot.connection.state, "open");
});

test("a full relay is tried again no sooner than it asks for", async () => {
  const setup = new Setup();
  setup.answers = [{ status: 503, headers: new Headers({ "Retry-After": "7" }) }];
  setup.socket.fail();
  await settle();
  assert.equal(setup.spot.connection.code, "relay_unavailable");
  assert.equal(setup.spot.connection.retryInMs, 7_000);
});

test("a relay that answers twice, but not by websocket, is told apart from one out of reach", async () => {
  const setup = new Setup();
  const codes = [];
  // Once is no proof: a relay may come back between the handshake and the request after it.
  for (const answer of [{ status: 200 }, { status: 200 }, new TypeError("failed"), { status: 200 }]) {
    setup.answers = [answer];
    setup.socket.fail();
    await settle();
    codes.push(setup.spot.connection.code);
    setup.clock.pass(setup.spot.connection.retryInMs);
  }
  assert.deepEqual(codes, ["unreachable", "websocket_blocked", "unreachable", "unreachable"]);
});

test("a relay that answered before a connection is not blocked after it", async () => {
  const setup = new Setup();
  setup.answers = [{ status: 200 }, { status: 200 }];
  setup.socket.fail();
  await settle();
  setup.clock.pass(500);
  setup.open();
  setup.socket.fail();
  setup.clock.pass(setup.spot.connection.retryInMs);
  setup.socket.fail();
  await settle();
  assert.equal(setup.spot.connection.code, "unreachable");
});

test("what a proxy answers for a relay that is away tells of no blocked websocket", async () => {
  const setup = new Setup();
  for (const status of [500, 502, 503, 504, 521]) {
    setup.answers = [{ status, headers: new Headers() }];
    setup.socket.fail();
    await settle();
    assert.equal(setup.spot.connection.code, "unreachable", `${status}`);
    setup.clock.pass(setup.spot.connection.retryInMs);
  }
});

test("a socket that fails with an error and no close, as in Node.js 20, is a failed try at once", async () => {
  const setup = new Setup();
  setup.answers = [{ status: 401 }];
  setup.socket.onerror({});
  await settle();
  assert.equal(setup.spot.connection.code, "unauthorized");
});

test("an error and a close of one try are one failure, and an error alone ends no connection", async () => {
  const setup = new Setup();
  setup.socket.onerror({});
  setup.socket.fail();
  await settle();
  assert.equal(setup.spot.connection.code, "unreachable");
  assert.equal(setup.spot.connection.retryInMs, 500);
  assert.equal(setup.probes.length, 1);
  setup.clock.pass(500);
  setup.open();
  setup.socket.onerror?.({});
  assert.equal(setup.spot.connection.state, "open");
});

test("a program without fetch connects again without an explanation", async () => {
  const setup = new Setup({ fetch: null });
  setup.socket.fail();
  await settle();
  assert.equal(setup.spot.connection.code, "unreachable");
});

test("failing tries tell no symbol's state again", async () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  setup.socket.fail();
  for (let failure = 0; failure < 4; failure += 1) {
    setup.clock.pass(setup.spot.connection.retryInMs);
    setup.socket.fail();
    await settle();
  }
  const told = setup.told.states.map(({ state, code }) => [state, code]);
  assert.deepEqual(told.slice(2), [
    ["disconnected", "code_1006"],
    ["disconnected", "unreachable"],
  ]);
});

test("a relay that is silent for 20 s is pinged, and stays with its pong", () => {
  const setup = new Setup();
  setup.open(null);
  setup.clock.pass(19_999);
  assert.deepEqual(setup.socket.requests(), []);
  setup.clock.pass(1);
  assert.deepEqual(setup.socket.requests(), [{ action: "ping" }]);
  setup.clock.pass(4_999);
  setup.socket.tell({ type: "pong" });
  setup.clock.pass(19_999);
  assert.equal(setup.tries, 1);
  assert.deepEqual(setup.socket.requests(), []);
  setup.clock.pass(1);
  assert.deepEqual(setup.socket.requests(), [{ action: "ping" }]);
});

test("a relay that does not answer a ping within 5 s is left, and connected to anew", () => {
  const setup = new Setup();
  setup.open();
  setup.live("SPY");
  const { socket } = setup;
  setup.clock.pass(24_999);
  assert.equal(setup.state("SPY"), "stale");
  setup.clock.pass(1);
  assert.equal(setup.spot.connection.code, "relay_silent");
  assert.equal(setup.state("SPY"), "disconnected");
  assert.ok(socket.closed);
  setup.clock.pass(500);
  assert.equal(setup.tries, 2);
});

test("what a socket says after it was left is not heard", () => {
  const setup = new Setup();
  setup.open();
  const left = setup.socket;
  setup.clock.pass(25_000);
  assert.equal(left.onmessage, null);
  left.fail();
  assert.equal(setup.told.connections.filter(({ state }) => state === "waiting").length, 1);
});

test("a relay that accepts and says nothing is left after 10 s", () => {
  const setup = new Setup();
  setup.socket.accept();
  setup.clock.pass(10_000);
  assert.equal(setup.spot.connection.state, "waiting");
  assert.equal(setup.spot.connection.code, "unreachable");
});

test("a machine that is online again does not wait for the pause to end", () => {
  const setup = new Setup();
  setup.open();
  setup.socket.fail();
  setup.events.dispatchEvent(new Event("online"));
  assert.equal(setup.tries, 2);
  setup.open();
  setup.events.dispatchEvent(new Event("online"));
  assert.equal(setup.tries, 2);
});

test("after close nothing goes on, not even what was on its way", async () => {
  const setup = new Setup();
  setup.socket.fail(); // its explanation is being asked for
  setup.spot.close();
  await settle();
  setup.events.dispatchEvent(new Event("online"));
  assert.equal(setup.tries, 1);
  assert.equal(setup.clock.timers.size, 0);
  assert.equal(setup.spot.connection.state, "closed");
});

test("the status of the relay before does not judge what a new one says", () => {
  const setup = new Setup();
  setup.open(null);
  setup.live("SPY");
  assert.equal(setup.code("SPY"), "no_daemon");
  setup.socket.fail();
  setup.clock.pass(500);
  setup.open();
  setup.tellPrice("SPY");
  assert.equal(setup.state("SPY"), "live");
});

test("what the relay says of itself in its hello is told as every later word of it", () => {
  const setup = new Setup();
  const away = { type: "relay", state: "redis_away", reason: "redis_away: no answer" };
  const ready = { type: "relay", state: "ready", reason: null };
  setup.open(null, { relay: away });
  assert.deepEqual(setup.told.relays, [away]);
  setup.socket.tell(ready);
  setup.socket.fail();
  setup.clock.pass(500);
  setup.open(setup.daemon(), { relay: ready });
  assert.deepEqual(setup.told.relays, [away, ready, ready]);
  assert.deepEqual(setup.spot.relay, ready);
});

test("a relay that says nothing of itself in its hello is told as nothing", () => {
  const setup = new Setup();
  setup.open();
  assert.deepEqual(setup.told.relays, []);
  assert.equal(setup.spot.relay, null);
});

test("each try is one socket", () => {
  const setup = new Setup();
  setup.spot.reconnect();
  setup.spot.reconnect();
  assert.equal(setup.tries, 3);
  assert.deepEqual(FakeSocket.made.map(({ closed }) => closed), [true, true, false]);
});
