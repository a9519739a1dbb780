// Compiled by tests/relay/test_js.py, never run: what a program in TypeScript may write.

import {
  connect,
  type ConnectionState,
  type DaemonStatus,
  type Gap,
  type RelayMessage,
  type SpotPrices,
  type SpotPriceUpdate,
  type SpotPriceUpdateMessage,
  type SpotState,
  type SpotStateName,
  type SymbolState,
} from "../../../spotd/relay/static/spotd.js";

const cache = new Map<string, SpotPriceUpdate>();
const ages: Array<number | null> = [];

const spot: SpotPrices = connect("https://prices.example.com", {
  onSpotPriceUpdate: (update) => cache.set(update.symbol, update),
  onState: (state: SpotState) => console.log(label(state.state), state.code, state.reason),
  onStatus: (status: DaemonStatus | null) => console.log(status?.market ?? "unknown"),
  onGap: (gap: Gap) => console.log(gap.from, gap.to, gap.code ?? "", gap.symbols),
  onConnection: (connection: ConnectionState) => console.log(connection.retryInMs ?? 0),
  onRelay: (relay) => console.log(relay.state, relay.reason ?? ""),
  onError: (message) => console.error(message.toUpperCase()),
  token: "secret",
  maxHz: 5,
});
connect();
connect(new URL("https://prices.example.com/spot/ws"), { WebSocket, fetch, setTimeout, clearTimeout });

spot.subscribe("SPY");
spot.subscribe(new Set(["SPY", "QQQ"]), { maxHz: 1 });
spot.unsubscribe(["SPY"]);
for (const [symbol, update] of spot.prices) ages.push(spot.ageMs(symbol), update.mid_price);
spot.reconnect({ token: null });
spot.close();

// @ts-expect-error: prices are read, not written
spot.prices.set("SPY", cache.get("SPY"));
// @ts-expect-error: there is no such state
const wrong: SpotStateName = "alive";
// @ts-expect-error: last_price may be null
const last: number = cache.get("SPY")!.last_price;

/** A new state must be an error here. */
function label(state: SpotStateName): string {
  switch (state) {
    case "loading":
      return "…";
    case "live":
    case "closed":
      return "fine";
    case "stale":
    case "halted":
    case "disconnected":
      return "suspect";
    case "refused":
      return "none";
  }
}

/** A router of raw messages, as a program without spotd.js writes one. */
export function route(message: RelayMessage): SpotPriceUpdate | SymbolState | null {
  switch (message.type) {
    case "spot_price_update": {
      const one: SpotPriceUpdateMessage = message;
      return one.update;
    }
    case "spot_price_update_batch":
      return message.updates[0] ?? null;
    case "symbol":
      return message;
    case "daemon":
      console.log(message.state === "absent" ? message.reason : message.feed);
      return null;
    default:
      return null;
  }
}

export { last, wrong };
