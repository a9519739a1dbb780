/** How numbers, ages and positions are written. */

import { expect, test } from "vitest";
import { age, positionTitle, sentence, signed } from "../src/format";

test.each([
  [1234.5, "+1,234.50"],
  [-0.126, "\u22120.13"],
  [-0.001, "0.00"],
])("%d with its sign is %s", (value, written) => {
  expect(signed(value)).toBe(written);
});

test.each([
  [8_999, "8 s"],
  [185_000, "3 min 5 s"],
  [7_800_000, "2 h 10 min"],
  [356_400_000, "4 d 3 h"],
  [-5, "0 s"],
])("an age of %d ms is %s", (ms, written) => {
  expect(age(ms)).toBe(written);
});

test("a position is written as a person says it", () => {
  const position = {
    id: 1,
    underlying: "SPY",
    right: "put",
    strike: 650,
    spot_at_open: 600,
  } as const;
  const sold = { ...position, contracts: -2, expires_on: "2026-03-20" };
  expect(positionTitle(sold)).toBe("Sold 2 puts 650, 20 Mar 2026");
  expect(positionTitle({ ...sold, contracts: 1 })).toBe("Bought 1 put 650, 20 Mar 2026");
});

test("a code of a reason is written in words", () => {
  expect(sentence("invalid_symbol")).toBe("Invalid symbol");
  expect(sentence("volatility pause")).toBe("Volatility pause");
});
