/** Talks HTTP to the back end. Must not touch the stores. */

import type { OpenPosition, SubscribeSpotPricesResponse } from "./types";

/** Return the open positions. Throws an Error with a message for a person. */
export async function fetchOpenPositions(): Promise<OpenPosition[]> {
  const answer = await fetch("/api/positions").catch(() => null);
  if (answer === null) throw new Error("The server cannot be reached.");
  if (!answer.ok) throw new Error(`The server answered with HTTP ${answer.status}.`);
  return (await answer.json()) as OpenPosition[];
}

/** Ask the server to stream these symbols. A failure is an answer, too: this never throws. */
export async function subscribeSpotPrices(
  symbols: readonly string[],
): Promise<SubscribeSpotPricesResponse> {
  const failed = { status: "error", symbols: [], refused: {} } as const;
  try {
    const answer = await fetch("/api/positions/subscribe-spot-prices", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ symbols }),
    });
    const message = `The server answered with HTTP ${answer.status}`;
    // spotd's errors are JSON of this shape. Those of a proxy before it may be anything.
    const body = (await answer.json().catch(() => ({}))) as Partial<SubscribeSpotPricesResponse>;
    return { ...failed, message, ...body };
  } catch {
    return { ...failed, message: "The server cannot be reached" };
  }
}
