/** Holds the newest price and state of each followed symbol. Talks to nobody. */

import { defineStore } from "pinia";
import { ref, shallowReactive, shallowRef } from "vue";
import type { ConnectionState, DaemonStatus, Gap, SpotPriceUpdate, SpotState } from "spotd";

export const useSpotPriceCache = defineStore("spotPriceCache", () => {
  // Shallow: a price is replaced as a whole, and only the card of its symbol renders again.
  const prices = shallowReactive(new Map<string, SpotPriceUpdate>());
  const states = shallowReactive(new Map<string, SpotState>());
  const refused = shallowReactive(new Map<string, string>()); // symbol to reason, told by the POST
  const connection = shallowRef<ConnectionState | null>(null);
  const loss = ref<string | null>(null); // why there is no connection; null: there is one
  const status = shallowRef<DaemonStatus | null>(null);
  const gap = shallowRef<Gap | null>(null); // the last time in which no prices came
  const problem = ref<string | null>(null); // why the last POST failed; null: it did not

  /** How far the price of a symbol can be trusted. The stream knows more than the POST's answer. */
  function stateOf(symbol: string): Pick<SpotState, "state" | "reason"> {
    const told = states.get(symbol);
    const refusal = refused.get(symbol);
    if (refusal !== undefined && (told === undefined || told.state === "loading")) {
      return { state: "refused", reason: refusal };
    }
    return told ?? { state: "loading", reason: null };
  }

  function forget(symbols: Iterable<string>): void {
    for (const symbol of symbols) {
      prices.delete(symbol);
      states.delete(symbol);
      refused.delete(symbol);
    }
  }

  return { prices, states, refused, connection, loss, status, gap, problem, stateOf, forget };
});

export type SpotPriceCache = ReturnType<typeof useSpotPriceCache>;
