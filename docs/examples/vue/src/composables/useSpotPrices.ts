/** Keeps the subscriptions equal to the underlyings of the open positions. Shows nothing. */

import { onScopeDispose, ref, watch } from "vue";
import { connect } from "spotd";
import { subscribeSpotPrices } from "../api";
import { messageRouter } from "../messageRouter";
import { useSpotPriceCache } from "../stores/spotPriceCache";

const RETRY_MS = 5_000;
const CLOCK_MS = 1_000;

/**
 * Connect, and follow what `underlyings` returns until the component is gone. Prices arrive in
 * the store `spotPriceCache`. Returns the relay's time of day for ages, and `reconnect`.
 */
export function useSpotPrices(underlyings: () => ReadonlySet<string>) {
  const cache = useSpotPriceCache();
  const spot = connect("/", messageRouter(cache));
  const followed = new Set<string>();
  const nowMs = ref(spot.now());
  const clock = setInterval(() => (nowMs.value = spot.now()), CLOCK_MS);
  let retry: ReturnType<typeof setTimeout> | undefined;

  watch(
    underlyings,
    (wanted) => {
      const added = [...wanted].filter((symbol) => !followed.has(symbol));
      const closed = [...followed].filter((symbol) => !wanted.has(symbol));
      for (const symbol of added) followed.add(symbol);
      for (const symbol of closed) followed.delete(symbol);
      spot.unsubscribe(closed);
      cache.forget(closed);
      spot.subscribe(added);
      if (added.length > 0) void demand(added);
    },
    { immediate: true },
  );

  /** The websocket brings the prices. The POST tells at once what the server refuses, and why. */
  async function demand(symbols: readonly string[]): Promise<void> {
    const answer = await subscribeSpotPrices(symbols);
    for (const symbol of symbols) {
      const reason = answer.refused[symbol];
      // Meanwhile the position may have been closed.
      if (reason !== undefined && followed.has(symbol)) cache.refused.set(symbol, reason);
      else cache.refused.delete(symbol);
    }
    const failed = answer.status === "error" && Object.keys(answer.refused).length === 0;
    cache.problem = failed ? answer.message : null;
    clearTimeout(retry);
    if (failed && followed.size > 0) retry = setTimeout(() => demand([...followed]), RETRY_MS);
  }

  onScopeDispose(() => {
    spot.close();
    clearInterval(clock);
    clearTimeout(retry);
    cache.forget(followed);
    followed.clear();
  });

  return { nowMs, reconnect: () => spot.reconnect() };
}
