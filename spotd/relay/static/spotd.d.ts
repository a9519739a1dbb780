/** Types of spotd.js, and of what a spotd relay sends. Fields may be added at any time. */

/** RFC 3339 in UTC with microseconds, e.g. "2026-01-20T05:12:00.000000Z". */
export type Timestamp = string;

/** The newest price of one symbol. Prices are USD. */
export interface SpotPriceUpdate {
  readonly symbol: string;
  readonly bid_price: number;
  readonly ask_price: number;
  /** (bid + ask) / 2, rounded to 6 decimals. */
  readonly mid_price: number;
  /** The newest trade that sets the last sale; null until one is known. */
  readonly last_price: number | null;
  /** Exchange time of the newest quote or trade that the update reflects. */
  readonly timestamp: Timestamp;
  /** Rises strictly per symbol. */
  readonly seq: number;
}

export interface SpotPriceUpdateMessage {
  readonly type: "spot_price_update";
  readonly update: SpotPriceUpdate;
  readonly timestamp: Timestamp;
}

export interface SpotPriceUpdateBatchMessage {
  readonly type: "spot_price_update_batch";
  readonly updates: readonly SpotPriceUpdate[];
  readonly timestamp: Timestamp;
}

/** What spotd says of one symbol. `SpotState` is what follows from it for a reader. */
export interface SymbolState {
  readonly type: "symbol";
  readonly symbol: string;
  readonly state: "pending" | "live" | "stale" | "halted" | "ended" | "refused";
  readonly reason: string | null;
  readonly code?: string | null;
  readonly detail?: string | null;
  readonly since: Timestamp;
}

/** What spotd says of itself. */
export interface DaemonStatus {
  readonly type: "daemon";
  readonly state:
    | "starting"
    | "standby"
    | "idle"
    | "connecting"
    | "streaming"
    | "waiting"
    | "stopping";
  readonly reason: string | null;
  readonly code?: string | null;
  readonly instance: string;
  readonly version: string;
  readonly feed: string;
  readonly since: Timestamp;
  readonly at: Timestamp;
  readonly symbols: Readonly<Record<string, number>>;
  readonly last_message_at: Timestamp | null;
  readonly lag_ms: number | null;
  readonly breaker: "closed" | "open" | "half_open";
  readonly quotes_received: number;
  readonly updates_published: number;
  readonly reconnects: number;
  /** By the exchange's calendar; null where it is not known. */
  readonly market?: "open" | "extended" | "closed" | null;
  readonly market_changes_at?: Timestamp | null;
  /** The newest gaps that this daemon stated since it started, the oldest first. */
  readonly gaps?: readonly Gap[];
}

/** The relay sends it in place of a DaemonStatus while no daemon runs. */
export interface DaemonAbsent {
  readonly type: "daemon";
  readonly state: "absent";
  readonly code: "no_daemon";
  /** For a person. */
  readonly reason: string;
}

/** No prices came between two times. */
export interface Gap {
  readonly type: "gap";
  readonly from: Timestamp;
  readonly to: Timestamp;
  /** For a person. */
  readonly reason: string;
  /** For programs: `interrupted`, `mute`, `redis_away`, `leader_changed`, … */
  readonly code?: string | null;
  /** How many symbols it concerns. */
  readonly symbols: number;
}

/** What the relay says of itself. */
export interface RelayStatus {
  readonly type: "relay";
  /** `ready`, or the code of what is wrong, e.g. `redis_away`. */
  readonly state: string;
  readonly reason: string | null;
}

export interface HelloMessage {
  readonly type: "hello";
  readonly version: number;
  readonly limits: Readonly<Record<string, number | null>>;
  /** Alpaca's feed; null while no daemon runs. */
  readonly feed?: string | null;
  /** How much later than the exchange the feed is. */
  readonly delay_s?: number | null;
  /** True: the prices are made up (`spotd demo`), whatever `feed` says. */
  readonly simulated?: boolean;
  readonly daemon: DaemonStatus | null;
  readonly relay?: RelayStatus;
}

export interface ErrorMessage {
  readonly type: "error";
  readonly message: string;
  readonly code?: string;
  /** Symbol, or entry as written, to reason. */
  readonly refused?: Readonly<Record<string, string>>;
}

export interface PongMessage {
  readonly type: "pong";
}

export type RelayMessage =
  | HelloMessage
  | SpotPriceUpdateMessage
  | SpotPriceUpdateBatchMessage
  | SymbolState
  | DaemonStatus
  | DaemonAbsent
  | Gap
  | RelayStatus
  | ErrorMessage
  | PongMessage;

/**
 * - `loading`: no price yet.
 * - `live`: the price is the newest there is.
 * - `stale`: a price is held, and newer ones may exist. `ageMs(symbol)` is its age.
 * - `closed`: the market is closed, and the price is older than a minute: its last one.
 * - `halted`: trading in the symbol is halted.
 * - `refused`: there will be no price, the reason says why.
 * - `disconnected`: there is no connection to the relay. A price that is held is suspect.
 */
export type SpotStateName =
  | "loading"
  | "live"
  | "stale"
  | "closed"
  | "halted"
  | "refused"
  | "disconnected";

/** How far the price of one symbol can be trusted. A new object at each change. */
export interface SpotState {
  readonly symbol: string;
  readonly state: SpotStateName;
  /**
   * For programs. From spotd (`symbol_limit`, `mute`, …), or of spotd.js: `connecting`,
   * `no_daemon`, `relay_silent`, `daemon_silent`, `ended`, `rejoining`, `pending`,
   * `invalid_symbol`, `market_closed`, and the codes of `ConnectionState`.
   */
  readonly code: string | null;
  /** For a person. */
  readonly reason: string | null;
  /** Unix time in ms, by the relay's clock. */
  readonly since: number;
}

/**
 * - `connecting`: a connection is being made.
 * - `open`: the relay has said hello.
 * - `waiting`: the connection failed, the next try comes after `retryInMs`.
 * - `refused`: the relay said not to try again. `reconnect()` tries nevertheless.
 * - `closed`: `close()` was called.
 */
export interface ConnectionState {
  readonly state: "connecting" | "open" | "waiting" | "refused" | "closed";
  /**
   * `unreachable`, `unauthorized`, `relay_unavailable`, `websocket_blocked`, `relay_silent`,
   * `closed`, or `code_4001` for the relay's close code 4001. `unreachable` also where a proxy
   * answers for a relay that is away.
   */
  readonly code: string | null;
  /** For a person. */
  readonly reason: string | null;
  readonly retryInMs: number | null;
}

export interface ConnectOptions {
  /** Called with each newer price of a subscribed symbol; the stored one comes first. */
  readonly onSpotPriceUpdate?: (update: SpotPriceUpdate) => void;
  /** Called when the state, code or reason of a symbol changes. */
  readonly onState?: (state: SpotState) => void;
  /** Called with what the daemon says of itself; null: no daemon runs. */
  readonly onStatus?: (status: DaemonStatus | null) => void;
  /** Called after each time in which no prices came, once they come again. */
  readonly onGap?: (gap: Gap) => void;
  readonly onConnection?: (connection: ConnectionState) => void;
  /**
   * Called with what the relay says of itself, e.g. that Redis is away: at the start of each
   * connection, and at every change.
   */
  readonly onRelay?: (relay: RelayStatus) => void;
  /** Called with the relay's complaint about a message of ours. */
  readonly onError?: (message: string) => void;
  /** The relay's token. It is sent as a subprotocol, never in the address. */
  readonly token?: string | null;
  /** At most this many updates per second and symbol; the newest is never lost. */
  readonly maxHz?: number | null;

  // For tests, and for programs without these.
  readonly WebSocket?: WebSocketConstructor;
  readonly fetch?: (address: string, init: object) => Promise<ProbeAnswer>;
  /** Monotonic milliseconds. */
  readonly now?: () => number;
  /** Unix milliseconds. */
  readonly wall?: () => number;
  readonly setTimeout?: (run: () => void, ms: number) => unknown;
  // A timer is what setTimeout returned, whatever its type.
  readonly clearTimeout?: (timer: any) => void;
  /** From 0 up to, but not including, 1. */
  readonly random?: () => number;
  /** What to do with an error that a callback throws; without it, as the browser reports errors. */
  readonly reportError?: (error: unknown) => void;
  /** Where the event `online` comes from. */
  readonly events?: Partial<Pick<EventTarget, "addEventListener" | "removeEventListener">>;
}

/** The part of a WebSocket that spotd.js uses. */
export interface WebSocketLike {
  readonly readyState: number;
  onopen: ((event: any) => void) | null;
  onmessage: ((event: any) => void) | null;
  /** Not needed where a failed handshake fires a close, as in browsers. */
  onerror?: ((event: any) => void) | null;
  onclose: ((event: any) => void) | null;
  send(text: string): void;
  close(): void;
}

export type WebSocketConstructor = new (address: string, protocols: string[]) => WebSocketLike;

export interface ProbeAnswer {
  readonly status: number;
  readonly headers: { get(name: string): string | null };
}

export interface SpotPrices {
  /** The newest price of each subscribed symbol that has one. */
  readonly prices: ReadonlyMap<string, SpotPriceUpdate>;
  /** The state of each subscribed symbol. */
  readonly states: ReadonlyMap<string, SpotState>;
  readonly connection: ConnectionState;
  /** The daemon's newest status; null while no daemon runs, and before the relay has told. */
  readonly status: DaemonStatus | null;
  /** The last gap that this connection, or one before it, was told of; null before the first. */
  readonly gap: Gap | null;
  /** What the relay said of itself last; null where it says nothing. */
  readonly relay: RelayStatus | null;
  /** What the relay said at the start of the newest connection; null before the first. */
  readonly hello: HelloMessage | null;

  /** Follow these symbols, in any case. Those that are followed already are left alone. */
  subscribe(symbols: string | Iterable<string>, options?: { maxHz?: number | null }): void;
  /** Follow these no longer, and forget their prices. */
  unsubscribe(symbols: string | Iterable<string>): void;
  /** Milliseconds since the exchange time of the price; null without a price. */
  ageMs(symbol: string): number | null;
  /** Unix time in ms by the relay's clock. */
  now(): number;
  /** Connect now, whatever the connection's state; with another token, if one is given. */
  reconnect(options?: { token?: string | null }): void;
  /** Close the connection for good. */
  close(): void;
}

/**
 * Connect to a relay. `url` is its address (`https://…`, or relative), or that of its websocket
 * (`…/ws`); without one, the relay that spotd.js came from. Throws where an address is not valid.
 */
export function connect(url?: string | URL | null, options?: ConnectOptions): SpotPrices;
