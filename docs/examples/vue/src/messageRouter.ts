/** Decides which message goes to which place of the price cache. Holds nothing itself. */

import type { ConnectOptions } from "spotd";
import type { SpotPriceCache } from "./stores/spotPriceCache";

/**
 * Return the callbacks for `connect` of spotd.js, which has parsed the messages, dropped old ones
 * and judged what they mean for each symbol. Messages of your own back end belong here as well.
 */
export function messageRouter(cache: SpotPriceCache): ConnectOptions {
  return {
    onSpotPriceUpdate: (update) => cache.prices.set(update.symbol, update),
    onState: (state) => cache.states.set(state.symbol, state),
    onConnection: (connection) => {
      cache.connection = connection;
      // A next try says nothing yet: the reason of the last failure holds until one succeeds.
      if (connection.state !== "connecting") cache.loss = connection.reason;
    },
    onStatus: (status) => {
      cache.status = status;
    },
    onGap: (gap) => {
      cache.gap = gap;
    },
    onError: (message) => console.warn(`spotd: ${message}`),
  };
}
