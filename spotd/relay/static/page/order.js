/** Decides the order of rows, and which entries a text names. Must not touch the document. */

const ENTRY_CHARS = 64; // as spotd cuts what is no symbol

// What needs attention comes first.
const ATTENTION = ["halted", "stale", "disconnected", "refused", "loading", "closed", "live"];

const KEYS = {
  symbol: (row) => row.symbol,
  price: (row) => row.price,
  change: (row) => row.change,
  state: (row) => ATTENTION.indexOf(row.state),
};

/**
 * Return the rows in order. `by` is `{key, descending}`, or null for the order in which they were
 * added. A row without a number comes last, whatever the direction; equal rows keep their order.
 */
export function ordered(rows, by) {
  if (by === null) return [...rows];
  const value = KEYS[by.key];
  const direction = by.descending ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    if (x === y) return 0;
    return x < y ? -direction : direction;
  });
}

/** The next order when a header is pressed: ascending, descending, as added. */
export function pressed(by, key) {
  // Of numbers the largest is wanted first.
  const descending = key === "price" || key === "change";
  if (by?.key !== key) return { key, descending };
  return by.descending === descending ? { key, descending: !descending } : null;
}

/** The entries of a text that people write: separated by commas, semicolons or spaces. */
export function entries(text) {
  const found = text
    .split(/[\s,;]+/)
    .filter(Boolean)
    .map((entry) => entry.replace(/[a-z]/g, (letter) => letter.toUpperCase()).slice(0, ENTRY_CHARS));
  return [...new Set(found)];
}
