/**
 * spotd.js: live spot prices from a spotd relay, in a browser or any other JavaScript program.
 *
 *     import { connect } from "https://prices.example.com/spotd.js";
 *     const spot = connect("https://prices.example.com", { onSpotPriceUpdate: console.log });
 *     spot.subscribe(["SPY", "QQQ"]);
 *
 * One websocket, whatever the number of symbols. It reconnects, subscribes again, drops what is
 * older than what it holds, and says of every symbol how far its price can be trusted. It shows
 * nothing itself. Types: spotd.d.ts. Messages and close codes: section 8 of spotd's contract.
 */

// A relay that says nothing for this long is asked whether it is there …
const SILENCE_MS = 20_000;
// … and given up without an answer after this long.
const PONG_MS = 5_000;
// The daemon writes its status every 5 s. One that is older than this proves nothing any more.
const STATUS_MS = 15_000;
// Two were missed by now. Nothing else may come either, since all data comes from the daemon: the
// relay is asked, and without its pong it is the relay that is silent.
const STATUS_MISSED_MS = 10_000;
// While the market is closed, a price that is older than this is its last one.
const OLD_MS = 60_000;
const HANDSHAKE_MS = 10_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
// A connection that held this long was a good one: the next pause is the first again.
const STEADY_MS = 5_000;
// Changes of the subscriptions are gathered, since relays limit messages by rate and by size.
const BETWEEN_REQUESTS_MS = 250;
const SYMBOLS_PER_REQUEST = 50;
// Close codes that say not to try again, beside 4100 to 4199: our messages are at fault.
const FINAL_CODES = new Set([1002, 1007, 1009]);
const SYMBOL = /^[A-Z]{1,8}(\.[A-Z]{1,4})?$/;
const ENTRY_CHARS = 64;
const UNREACHABLE = { code: "unreachable", reason: "the relay cannot be reached" };

/** Connect to a relay. See spotd.d.ts for the options and for what is returned. */
export function connect(url, options) {
  return new SpotPrices(url, options);
}

class SpotPrices {
  #options;
  #clock;
  #address;
  #token;
  #entries = new Map(); // symbol -> what is known of it
  #prices = new Map();
  #states = new Map();
  #requests = new Requests();
  #requestTimer = null;
  #requestedAt = -Infinity;
  #socket = null;
  #connection = connectionState({ state: "connecting" });
  #loss = null; // how the last connection failed; null once another one is open
  #attempt = 0;
  #failures = 0;
  #answered = false; // whether the relay answered the request after the last handshake that failed
  #openedAt = 0;
  #heardAt = 0;
  #pingedAt = null;
  #asked = false; // whether a ping asks whose silence it is, since anything was heard
  #checkTimer = null;
  #retryTimer = null;
  #hello = null;
  #relay = null; // what the relay says of itself
  #status; // undefined until the relay has told one, null while no daemon runs
  #statusAt = 0;
  #statusSilent = false;
  #gap = null; // the last one
  #stopListening = () => {};

  constructor(url, options = {}) {
    this.#options = options;
    this.#clock = new Clock(options);
    if (typeof (options.WebSocket ?? globalThis.WebSocket) !== "function") {
      throw new Error(
        "spotd.js needs a WebSocket, and this environment has none: use Node.js 22 or later, or " +
          'pass one, connect(url, { WebSocket }), e.g. that of the package "ws"',
      );
    }
    this.#address = websocketAddress(url);
    this.#token = options.token ?? null;
    const events = options.events ?? globalThis;
    if (typeof events.addEventListener === "function") {
      const online = () => this.#connection.state === "waiting" && this.#open();
      events.addEventListener("online", online);
      this.#stopListening = () => events.removeEventListener("online", online);
    }
    this.#open();
  }

  get prices() {
    return this.#prices;
  }

  get states() {
    return this.#states;
  }

  get connection() {
    return this.#connection;
  }

  get status() {
    return this.#status ?? null;
  }

  get gap() {
    return this.#gap;
  }

  get relay() {
    return this.#relay;
  }

  get hello() {
    return this.#hello;
  }

  now() {
    return this.#clock.relayNow();
  }

  ageMs(symbol) {
    const price = this.#prices.get(symbol);
    return price === undefined ? null : Math.max(0, this.now() - Date.parse(price.timestamp));
  }

  subscribe(symbols, { maxHz = this.#options.maxHz ?? null } = {}) {
    for (const symbol of entriesOf(symbols)) {
      const entry = this.#entries.get(symbol);
      if (entry?.maxHz === maxHz) continue;
      if (entry) entry.maxHz = maxHz;
      else this.#entries.set(symbol, { symbol, maxHz, told: false, wire: localRefusal(symbol) });
      if (SYMBOL.test(symbol)) this.#requests.subscribe(symbol);
      this.#judge(symbol);
    }
    this.#requestSoon();
  }

  unsubscribe(symbols) {
    const left = entriesOf(symbols).filter((symbol) => this.#entries.delete(symbol));
    for (const symbol of left) {
      this.#prices.delete(symbol);
      this.#states.delete(symbol);
      this.#requests.unsubscribe(symbol);
    }
    if (left.length > 0) this.#askAgain();
    this.#requestSoon();
  }

  reconnect({ token = this.#token } = {}) {
    this.#token = token;
    this.#failures = 0;
    this.#open();
  }

  close() {
    this.#stopListening();
    this.#release();
    this.#lose({ state: "closed", code: "closed", reason: "closed by this program" });
  }

  // Connection: connecting -> open -> waiting -> connecting …, refused and closed are ends.

  #open() {
    this.#release();
    this.#setConnection({ state: "connecting" });
    const Socket = this.#options.WebSocket ?? globalThis.WebSocket;
    const socket = new Socket(this.#address, subprotocols(this.#token));
    this.#socket = socket;
    this.#openedAt = this.#clock.now();
    let accepted = false;
    socket.onopen = () => {
      accepted = true;
      this.#answered = false;
      this.#heardAt = this.#clock.now();
      this.#requests.all(this.#entries.keys());
      this.#request();
    };
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onerror = () => {
      if (accepted) return; // its close follows, and says more
      // Node.js 20 and 22 fire no close for a failed handshake (nodejs/undici#3546).
      this.#release();
      this.#failedHandshake();
    };
    socket.onclose = (event) => {
      this.#release();
      if (!accepted) this.#failedHandshake();
      else if (isFinal(event.code)) this.#refuse(`code_${event.code}`, event.reason);
      else this.#retry(`code_${event.code}`, event.reason || "the connection was lost");
    };
    this.#check();
  }

  /** Let go of the socket, without waiting for its close handshake, and of all timers. */
  #release() {
    const socket = this.#socket;
    this.#socket = null;
    this.#attempt += 1;
    this.#pingedAt = null;
    this.#asked = false;
    for (const timer of [this.#checkTimer, this.#retryTimer, this.#requestTimer]) {
      if (timer !== null) this.#clock.clearTimeout(timer);
    }
    this.#checkTimer = this.#retryTimer = this.#requestTimer = null;
    this.#requests.forget();
    if (socket === null) return;
    socket.onopen = socket.onmessage = socket.onerror = socket.onclose = null;
    socket.close();
  }

  #retry(code, reason, atLeastMs = 0) {
    this.#release();
    const held = this.#connection.state === "open" && this.#clock.now() - this.#openedAt;
    this.#failures = held >= STEADY_MS ? 1 : this.#failures + 1;
    const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (this.#failures - 1));
    // Jitter spreads the clients of a relay that went away.
    const jittered = pause * (0.5 + this.#clock.random() / 2);
    const retryInMs = Math.max(atLeastMs, Math.round(jittered));
    this.#retryTimer = this.#clock.setTimeout(() => this.#open(), retryInMs);
    this.#lose({ state: "waiting", code, reason, retryInMs });
  }

  #refuse(code, reason) {
    this.#release();
    this.#lose({ state: "refused", code, reason: reason || "the relay refused" });
  }

  #lose(connection) {
    this.#loss = connection;
    for (const entry of this.#entries.values()) {
      entry.told = false;
      if (entry.wire?.state !== "refused") entry.wire = null;
    }
    this.#setConnection(connection);
  }

  async #failedHandshake() {
    const attempt = this.#attempt;
    const found = await diagnosis(this.#address, this.#token, this.#clock, this.#options.fetch);
    if (attempt !== this.#attempt) return; // meanwhile something else happened
    // Once is no proof: a relay may come back between the handshake and the request after it.
    const { code, reason, final, pauseMs } =
      found.code === "websocket_blocked" && !this.#answered ? UNREACHABLE : found;
    this.#answered = found.code === "websocket_blocked";
    if (final) this.#refuse(code, reason);
    else this.#retry(code, reason, pauseMs);
  }

  #setConnection(connection) {
    this.#connection = connectionState(connection);
    this.#judgeAll();
    this.#call("onConnection", this.#connection);
  }

  // Time: one timer, set to the first moment at which silence would mean something.

  #check() {
    this.#checkTimer = null;
    const now = this.#clock.now();
    const deadlines = [];
    if (this.#connection.state === "connecting") {
      const deadline = this.#openedAt + HANDSHAKE_MS;
      if (now >= deadline) return this.#retry("unreachable", "the relay does not answer");
      deadlines.push(deadline);
    } else {
      if (this.#pingedAt !== null && now >= this.#pingedAt + PONG_MS) {
        return this.#retry("relay_silent", "the relay fell silent");
      }
      if (this.#pingedAt === null && now >= this.#heardAt + SILENCE_MS) {
        this.#pingedAt = now;
        this.#send({ action: "ping" });
      }
      deadlines.push(
        this.#pingedAt === null ? this.#heardAt + SILENCE_MS : this.#pingedAt + PONG_MS,
      );
      if (this.#status && !this.#asked) {
        const deadline = this.#heardAt + STATUS_MISSED_MS;
        if (now >= deadline) {
          this.#asked = true;
          this.#send({ action: "ping" });
        } else deadlines.push(deadline);
      }
      if (this.#status && !this.#statusSilent) {
        const deadline = this.#statusAt + STATUS_MS;
        if (now >= deadline) {
          this.#statusSilent = true;
          this.#judgeAll();
        } else deadlines.push(deadline);
      }
    }
    const wait = Math.min(...deadlines) - now;
    this.#checkTimer = this.#clock.setTimeout(() => this.#check(), wait);
    return undefined;
  }

  /** A deadline may be nearer than the one that the timer is set to. */
  #checkAnew() {
    if (this.#checkTimer !== null) this.#clock.clearTimeout(this.#checkTimer);
    this.#check();
  }

  // Requests

  #requestSoon() {
    if (this.#socket?.readyState !== 1 || this.#requestTimer !== null) return;
    const wait = Math.max(0, this.#requestedAt + BETWEEN_REQUESTS_MS - this.#clock.now());
    this.#requestTimer = this.#clock.setTimeout(() => this.#request(), wait);
  }

  /** Ask again for symbols that the relay had no room for: there may be room now. */
  #askAgain() {
    for (const entry of this.#entries.values()) {
      if (!entry.wire?.byRelay) continue;
      entry.wire = null;
      this.#requests.subscribe(entry.symbol);
      this.#judge(entry.symbol);
    }
  }

  #request() {
    this.#requestTimer = null;
    const messages = this.#requests.take((symbol) => this.#entries.get(symbol).maxHz);
    if (messages.length > 0) this.#requestedAt = this.#clock.now();
    for (const message of messages) this.#send(message);
  }

  #send(message) {
    this.#socket.send(JSON.stringify(message));
  }

  // Messages of the relay

  #receive(text) {
    this.#heardAt = this.#clock.now();
    this.#pingedAt = null;
    this.#asked = false;
    const message = parsed(text);
    if (message === null) {
      this.#call("onError", "the relay sent something that is not a JSON object");
      return;
    }
    this.#clock.hear(message.timestamp);
    if (this.#connection.state === "connecting") {
      this.#loss = null;
      this.#connection = connectionState({ state: "open" });
      if (message.type === "hello") this.#hear(message);
      this.#setConnection(this.#connection);
      this.#checkAnew();
    }
    if (message.type === "spot_price_update") this.#price(message.update);
    else if (message.type === "spot_price_update_batch") {
      for (const update of message.updates) this.#price(update);
    } else if (message.type === "symbol") this.#symbolState(message);
    else if (message.type === "daemon") this.#daemonStatus(message);
    else if (message.type === "relay") this.#relayStatus(message);
    else if (message.type === "gap") this.#heardGap(message);
    else if (message.type === "pong") this.#judgeAll();
    else if (message.type === "error") this.#error(message);
  }

  #hear(hello) {
    this.#hello = hello;
    this.#relay = hello.relay ?? null;
    this.#status = undefined; // what the relay before told may not hold for this one
    if (hello.daemon !== undefined) this.#daemonStatus(hello.daemon);
    if (this.#relay !== null) this.#call("onRelay", this.#relay);
  }

  #price(update) {
    const entry = this.#entries.get(update.symbol);
    if (entry === undefined) return; // it was on its way when we unsubscribed
    const held = this.#prices.get(update.symbol);
    const newer = held === undefined || update.seq > held.seq;
    if (newer) this.#prices.set(update.symbol, update);
    // A price may come although the market is closed.
    const closed = this.#states.get(update.symbol)?.state === "closed";
    if (held === undefined || !entry.told || closed) {
      entry.told = true;
      this.#judge(update.symbol);
    }
    if (newer) this.#call("onSpotPriceUpdate", update);
  }

  #symbolState(wire) {
    const entry = this.#entries.get(wire.symbol);
    if (entry === undefined) return;
    entry.wire = wire;
    entry.told = true;
    this.#judge(wire.symbol);
  }

  #daemonStatus(status) {
    const told = status === null || status.state === "absent" ? null : status;
    this.#clock.hear(told?.at);
    if (told === null || told.at !== this.#status?.at) {
      this.#statusAt = this.#clock.now();
      this.#statusSilent = false;
    }
    this.#status = told;
    this.#judgeAll();
    this.#call("onStatus", told);
    this.#checkAnew();
  }

  #relayStatus(status) {
    this.#relay = status;
    this.#judgeAll();
    this.#call("onRelay", status);
  }

  #heardGap(gap) {
    this.#gap = gap;
    this.#call("onGap", gap);
  }

  #error({ message, refused = {} }) {
    for (const [symbol, reason] of Object.entries(refused)) {
      this.#symbolState({ symbol, state: "refused", reason, detail: message, byRelay: true });
    }
    this.#call("onError", message);
  }

  // Judgement

  #judgeAll() {
    for (const symbol of this.#entries.keys()) this.#judge(symbol);
  }

  #judge(symbol) {
    const entry = this.#entries.get(symbol);
    const [state, code, reason, since] = this.#verdict(entry);
    const before = this.#states.get(symbol);
    if (before?.state === state && before.code === code && before.reason === reason) return;
    const told = { symbol, state, code, reason, since: since ?? this.now() };
    this.#states.set(symbol, told);
    this.#call("onState", told);
  }

  /** Return [state, code, reason, since]: how far the price of one symbol can be trusted now. */
  #verdict({ symbol, wire, told }) {
    const held = this.#prices.has(symbol);
    if (wire?.state === "refused") {
      return ["refused", wire.code ?? wire.reason, wire.detail ?? wire.reason, moment(wire.since)];
    }
    if (this.#loss !== null) return ["disconnected", this.#loss.code, this.#loss.reason];
    if (this.#connection.state !== "open") return ["loading", "connecting", null];
    const suspect = held ? "stale" : "loading";
    if (this.#relay !== null && this.#relay.state !== "ready") {
      // Its reasons begin with their code.
      return [suspect, this.#relay.state, this.#relay.reason?.replace(/^\w+: /, "") ?? null];
    }
    if (this.#status === null) return [suspect, "no_daemon", "no spotd daemon runs"];
    if (this.#statusSilent) {
      return this.#clock.now() - this.#heardAt >= STATUS_MISSED_MS
        ? [suspect, "relay_silent", "the relay says nothing"]
        : [suspect, "daemon_silent", "the daemon says nothing"];
    }
    const said = [wire?.code ?? wire?.reason ?? null, wire?.detail ?? wire?.reason ?? null];
    const since = moment(wire?.since);
    if (wire?.state === "halted") return ["halted", ...said, since];
    if (wire?.state === "ended") return [suspect, "ended", "nobody streams it any more"];
    if (!held) return ["loading", ...said];
    if (!told) return ["stale", "rejoining", "connected again, no newer price yet"];
    if (wire?.state === "stale") return ["stale", ...said, since];
    if (wire?.state === "pending") return ["stale", "pending", "not confirmed by Alpaca yet"];
    if (this.#status?.market === "closed" && this.ageMs(symbol) >= OLD_MS) {
      return ["closed", "market_closed", "the market is closed"];
    }
    return ["live", ...said, since];
  }

  #call(name, value) {
    try {
      this.#options[name]?.(value);
    } catch (error) {
      // A defect of the page must not end its stream, and must be seen.
      (this.#options.reportError ?? reportError)(error);
    }
  }
}

/** What the relay is still to be told of the subscriptions. */
class Requests {
  #sent = new Set();
  #subscribe = new Set();
  #unsubscribe = new Set();

  subscribe(symbol) {
    this.#subscribe.add(symbol);
  }

  unsubscribe(symbol) {
    this.#subscribe.delete(symbol);
    if (this.#sent.has(symbol)) this.#unsubscribe.add(symbol);
  }

  /** A new connection knows nothing: ask for all of these. */
  all(symbols) {
    this.forget();
    for (const symbol of symbols) if (SYMBOL.test(symbol)) this.#subscribe.add(symbol);
  }

  forget() {
    this.#sent.clear();
    this.#unsubscribe.clear();
    this.#subscribe.clear();
  }

  /**
   * Return the messages, and hold them as sent. A symbol that was given up and taken again is in
   * both, in this order: the relay tells the newest value of what is new to it.
   */
  take(maxHz) {
    const messages = slices([...this.#unsubscribe]).map((symbols) => ({
      action: "unsubscribe",
      symbols,
    }));
    for (const [hz, symbols] of grouped(this.#subscribe, maxHz)) {
      for (const slice of slices(symbols)) {
        const message = { action: "subscribe", symbols: slice, batch: true };
        messages.push(hz === null ? message : { ...message, max_hz: hz });
      }
    }
    for (const symbol of this.#unsubscribe) this.#sent.delete(symbol);
    for (const symbol of this.#subscribe) this.#sent.add(symbol);
    this.#unsubscribe.clear();
    this.#subscribe.clear();
    return messages;
  }
}

/** The injected clock, timers and random numbers, and the time of day of relay and daemon. */
class Clock {
  #ahead = -Infinity; // how far their unix time is ahead of our monotonic clock

  constructor({ now, wall, setTimeout, clearTimeout, random }) {
    this.now = now ?? (() => performance.now());
    this.wall = wall ?? Date.now;
    this.setTimeout = setTimeout ?? ((run, ms) => globalThis.setTimeout(run, ms));
    this.clearTimeout = clearTimeout ?? ((timer) => globalThis.clearTimeout(timer));
    this.random = random ?? Math.random;
  }

  /** A time that they have written is past when it arrives: the latest is the nearest. */
  hear(timestamp) {
    const ahead = moment(timestamp) - this.now();
    if (ahead > this.#ahead) this.#ahead = ahead;
  }

  /** Unix time in ms by their clocks; by our own before they have told any. */
  relayNow() {
    return this.#ahead === -Infinity ? this.wall() : this.now() + this.#ahead;
  }
}

function isFinal(closeCode) {
  return FINAL_CODES.has(closeCode) || (closeCode >= 4100 && closeCode <= 4199);
}

function reportError(error) {
  if (typeof globalThis.reportError === "function") globalThis.reportError(error);
  else console.error(error);
}

function connectionState(known) {
  return { code: null, reason: null, retryInMs: null, ...known };
}

function websocketAddress(url) {
  const base = globalThis.document?.baseURI ?? import.meta.url;
  const address = new URL(url ?? new URL(".", import.meta.url), base);
  address.protocol = address.protocol.replace(/^http/, "ws");
  if (!address.pathname.endsWith("/ws")) {
    address.pathname = `${address.pathname.replace(/\/$/, "")}/ws`;
  }
  address.hash = "";
  return address.href;
}

/** A browser does not tell why a handshake failed. An ordinary request to the same relay does. */
async function diagnosis(address, token, clock, fetch = globalThis.fetch) {
  if (typeof fetch !== "function") return UNREACHABLE;
  const abort = new AbortController();
  const timer = clock.setTimeout(() => abort.abort(), HANDSHAKE_MS);
  let answer;
  try {
    answer = await fetch(probeAddress(address), {
      headers: token === null ? {} : { Authorization: `Bearer ${token}` },
      cache: "no-store",
      signal: abort.signal,
    });
  } catch {
    return UNREACHABLE;
  } finally {
    clock.clearTimeout(timer);
  }
  if (answer.status === 401 || answer.status === 403) {
    const reason = token === null ? "the relay needs a token" : "the relay refuses this token";
    return { code: "unauthorized", reason, final: true };
  }
  const retryAfter = answer.status === 503 ? answer.headers.get("Retry-After") : null;
  if (retryAfter !== null) {
    const pauseMs = 1000 * (Number(retryAfter) || 0);
    return { code: "relay_unavailable", reason: "the relay is full or not ready", pauseMs };
  }
  // The relay's own 503 says when to try again. Without that, a proxy answers for an absent relay.
  if (answer.status >= 500) return UNREACHABLE;
  const reason = "the relay answers, but no websocket comes through";
  return { code: "websocket_blocked", reason };
}

function probeAddress(address) {
  const probe = new URL(address);
  probe.protocol = probe.protocol.replace(/^ws/, "http");
  probe.pathname = probe.pathname.replace(/\/ws$/, "/api/spot-prices");
  probe.search = "?symbols=";
  return probe.href;
}

/** The token goes as a subprotocol: an address would stand in logs and histories. */
function subprotocols(token) {
  if (token === null) return ["spotd.v1"];
  const bytes = String.fromCharCode(...new TextEncoder().encode(token));
  const encoded = btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  return ["spotd.v1", `bearer.${encoded}`];
}

function entriesOf(symbols) {
  const entries = typeof symbols === "string" ? [symbols] : [...symbols];
  // Only ASCII is upper-cased, as in the daemon: "ß".toUpperCase() would be another symbol, "SS".
  const upper = (entry) => entry.replace(/[a-z]/g, (letter) => letter.toUpperCase());
  return entries.map((entry) => upper(entry.trim()).slice(0, ENTRY_CHARS));
}

/** Return the object of a message; null for any other text. */
function parsed(text) {
  try {
    const message = JSON.parse(text);
    return typeof message === "object" ? message : null;
  } catch {
    return null;
  }
}

function localRefusal(symbol) {
  if (SYMBOL.test(symbol)) return null;
  const detail = `${JSON.stringify(symbol)} is not a symbol`;
  return { state: "refused", reason: "invalid_symbol", detail };
}

function moment(timestamp) {
  return timestamp === undefined || timestamp === null ? undefined : Date.parse(timestamp);
}

function slices(symbols) {
  const found = [];
  for (let from = 0; from < symbols.length; from += SYMBOLS_PER_REQUEST) {
    found.push(symbols.slice(from, from + SYMBOLS_PER_REQUEST));
  }
  return found;
}

function grouped(symbols, keyOf) {
  const groups = new Map();
  for (const symbol of symbols) {
    const key = keyOf(symbol);
    if (groups.has(key)) groups.get(key).push(symbol);
    else groups.set(key, [symbol]);
  }
  return groups;
}
