/** Decides how numbers, ages and positions are written. */

import type { Gap } from "spotd";
import type { OpenPosition } from "./types";

const MINUS = "\u2212";
const two = new Intl.NumberFormat("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
const day = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeZone: "UTC" });
const minute = new Intl.DateTimeFormat("en-GB", { timeStyle: "short" });

/** A price in USD, or a percentage, with two decimals. */
export function decimal(value: number): string {
  return two.format(value).replace("-", MINUS);
}

/** The same with its sign; what is written as zero has none. */
export function signed(value: number): string {
  const digits = two.format(Math.abs(value));
  if (!/[1-9]/.test(digits)) return digits;
  return (value > 0 ? "+" : MINUS) + digits;
}

/** An age in its two largest units: `8 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`. */
export function age(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000));
  const minutes = Math.floor(seconds / 60);
  const hours = Math.floor(minutes / 60);
  if (minutes === 0) return `${seconds} s`;
  if (hours === 0) return `${minutes} min ${seconds % 60} s`;
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** How far prices are behind the exchange: `12 s behind`; empty within a second. */
export function lagText(lagMs: number | null | undefined): string {
  return (lagMs ?? 0) < 1000 ? "" : `${age(lagMs!)} behind`;
}

/** A gap in words: `No prices for 3 min 5 s until 15:04: the connection was lost`. */
export function gapText({ from, to, reason }: Pick<Gap, "from" | "to" | "reason">): string {
  const ended = new Date(to);
  const lasted = age(ended.getTime() - Date.parse(from));
  return `No prices for ${lasted} until ${minute.format(ended)}: ${reason}`;
}

/** A position in words: `Sold 2 puts 650, 20 Mar 2026`. */
export function positionTitle({ right, strike, contracts, expires_on }: OpenPosition): string {
  const count = Math.abs(contracts);
  const verb = contracts < 0 ? "Sold" : "Bought";
  const noun = count === 1 ? right : `${right}s`;
  return `${verb} ${count} ${noun} ${strike}, ${day.format(new Date(expires_on))}`;
}

/** A reason as the beginning of a sentence. `invalid_symbol` becomes `Invalid symbol`. */
export function sentence(reason: string): string {
  const words = /^\w+$/.test(reason) ? reason.replaceAll("_", " ") : reason;
  return words.charAt(0).toUpperCase() + words.slice(1);
}
