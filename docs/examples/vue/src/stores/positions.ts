/** Holds the open positions. Knows nothing of prices. */

import { defineStore } from "pinia";
import { computed, ref, shallowRef } from "vue";
import { fetchOpenPositions } from "../api";
import type { OpenPosition } from "../types";

export const usePositions = defineStore("positions", () => {
  const open = shallowRef<readonly OpenPosition[]>([]);
  const loading = ref(false);
  const error = ref<string | null>(null);

  /** The symbols whose prices the open positions need, each once. */
  const underlyings = computed(() => new Set(open.value.map(({ underlying }) => underlying)));

  async function load(): Promise<void> {
    loading.value = true;
    error.value = null;
    try {
      open.value = await fetchOpenPositions();
    } catch (failure) {
      error.value = failure instanceof Error ? failure.message : String(failure);
    } finally {
      loading.value = false;
    }
  }

  /** Take a position off the page. A real application asks its back end to close it first. */
  function close(id: number): void {
    open.value = open.value.filter((position) => position.id !== id);
  }

  return { open, loading, error, underlyings, load, close };
});
