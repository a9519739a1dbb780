// A relay and a clock that a test drives by hand. Nothing here waits for real time.

import { connect } from "../../../spotd/relay/static/spotd.js";

export const RELAY = "http://relay.test";
const UNIX_MS = Date.parse("2026-01-20T14:30:00Z");

/** Time that only `pass` moves. It runs what falls due, in order. */
export class ManualClock {
  ms = 0;
  timers = new Map();
  #next = 1;

  now = () => this.ms;
  wall = () => UNIX_MS + this.ms;
  setTimeout = (run, ms) => {
    this.timers.set(this.#next, { run, at: this.ms + ms });
    return this.#next++;
  };
  clearTimeout = (timer) => this.timers.delete(timer);

  pass(ms) {
    const end = this.ms + ms;
    for (;;) {
      const due = [...this.timers].filter(([, { at }]) => at <= end);
      if (due.length === 0) break;
      const [timer, { run, at }] = due.reduce((a, b) => (b[1].at < a[1].at ? b : a));
      this.timers.delete(timer);
      this.ms = Math.max(this.ms, at);
      run();
    }
    this.ms = end;
  }

  timestamp() {
    return new Date(this.wall()).toISOString();
  }
}

/** The relay's end of one connection. */
export class FakeSocket {
  static made = [];
  readyState = 0;
  sent = [];
  closed = false;

  constructor(address, protocols) {
    this.address = address;
    this.protocols = protocols;
    FakeSocket.made.push(this);
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closed = true;
    this.readyState = 3;
  }

  accept() {
    this.readyState = 1;
    this.onopen({});
  }

  tell(message) {
    this.onmessage({ data: typeof message === "string" ? message : JSON.stringify(message) });
  }

  fail(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }

  /** What was sent since the last call. */
  requests() {
    return this.sent.splice(0);
  }
}

/** A program that uses spotd.js, with everything that it was told. */
export class Setup {
  clock = new ManualClock();
  told = { updates: [], states: [], statuses: [], relays: [], connections: [], errors: [], gaps: [] };
  answers = []; // what fetch answers next; an Error: unreachable
  probes = [];
  events = new EventTarget();
  #seq = 1;

  constructor(options = {}, url = RELAY) {
    FakeSocket.made = [];
    this.spot = connect(url, {
      WebSocket: FakeSocket,
      now: this.clock.now,
      wall: this.clock.wall,
      setTimeout: this.clock.setTimeout,
      clearTimeout: this.clock.clearTimeout,
      random: () => 1,
      events: this.events,
      fetch: async (address, init) => {
        this.probes.push({ address, ...init });
        const answer = this.answers.shift() ?? new Error("refused");
        if (answer instanceof Error) throw answer;
        return answer;
      },
      onSpotPriceUpdate: (update) => this.told.updates.push(update),
      onState: (state) => this.told.states.push(state),
      onStatus: (status) => this.told.statuses.push(status),
      onRelay: (relay) => this.told.relays.push(relay),
      onConnection: (connection) => this.told.connections.push(connection),
      onGap: (gap) => this.told.gaps.push(gap),
      onError: (message) => this.told.errors.push(message),
      ...options,
    });
  }

  /** The newest connection's relay end. */
  get socket() {
    return FakeSocket.made.at(-1);
  }

  get tries() {
    return FakeSocket.made.length;
  }

  /** Accept the newest connection and say hello. */
  open(daemon = this.daemon(), more = {}) {
    this.socket.accept();
    this.socket.tell({ type: "hello", version: 1, limits: {}, daemon, ...more });
  }

  daemon(more = {}) {
    const at = this.clock.timestamp();
    return { type: "daemon", state: "streaming", feed: "iex", at, ...more };
  }

  price(symbol, more = {}) {
    const timestamp = this.clock.timestamp();
    const seq = this.#seq++;
    const update = { symbol, bid_price: 1, ask_price: 3, mid_price: 2, last_price: null };
    return { ...update, timestamp, seq, ...more };
  }

  tellPrice(symbol, more) {
    const update = this.price(symbol, more);
    const timestamp = this.clock.timestamp();
    this.socket.tell({ type: "spot_price_update", update, timestamp });
    return update;
  }

  tellState(symbol, state, more = {}) {
    const since = this.clock.timestamp();
    this.socket.tell({ type: "symbol", symbol, state, reason: null, since, ...more });
  }

  /** A symbol that is live, on an open connection. */
  live(symbol) {
    this.spot.subscribe(symbol);
    this.clock.pass(250);
    this.tellState(symbol, "live");
    this.tellPrice(symbol);
  }

  state(symbol) {
    return this.spot.states.get(symbol)?.state;
  }

  code(symbol) {
    return this.spot.states.get(symbol)?.code;
  }
}

/** Let promises that are settled run on. */
export const settle = () => new Promise((resolve) => setImmediate(resolve));
