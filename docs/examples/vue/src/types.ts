/** Shapes of this application's own data. Those of prices and states come from spotd.d.ts. */

/** One option position, as `GET /api/positions` returns it. Prices are USD. */
export interface OpenPosition {
  readonly id: number;
  /** The symbol whose spot price matters, in upper case. */
  readonly underlying: string;
  readonly right: "call" | "put";
  readonly strike: number;
  /** A day, e.g. "2026-03-20". */
  readonly expires_on: string;
  /** Negative: sold. */
  readonly contracts: number;
  /** Mid price of the underlying when the position was opened. */
  readonly spot_at_open: number;
}

/** The answer of `POST /api/positions/subscribe-spot-prices`, whatever its HTTP status. */
export interface SubscribeSpotPricesResponse {
  readonly status: "success" | "error";
  /** For a person. */
  readonly message: string;
  readonly symbols: readonly string[];
  /** Symbol to reason, e.g. `invalid_symbol`. */
  readonly refused: Readonly<Record<string, string>>;
}
