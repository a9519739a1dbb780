/** Decides how numbers, times and states are written. Must not touch the document. */

const MINUS = "\u2212";
const CENTS = new Intl.NumberFormat("en-US", {
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
});
const SMALL = new Intl.NumberFormat("en-US", {
  minimumFractionDigits: 4,
  maximumFractionDigits: 4,
});

export const WORDS = {
  loading: "Loading",
  live: "Live",
  stale: "Stale",
  closed: "Closed",
  halted: "Halted",
  refused: "Refused",
  disconnected: "Disconnected",
};

const FEEDS = {
  iex: ["IEX", "Prices come from one exchange, IEX, and may differ from those of the whole market."],
  sip: ["SIP", "Prices come from all US exchanges (SIP)."],
  delayed_sip: ["SIP", "Prices come from all US exchanges (SIP)."],
  boats: ["BOATS", "Prices come from the overnight market Blue Ocean ATS."],
  overnight: ["Overnight", "Prices are Alpaca's indicative overnight prices."],
  test: ["Test", "Prices come from Alpaca's test feed: they are not real."],
};

/** Prices below a dollar are quoted in hundredths of a cent. */
export function price(value) {
  return (Math.abs(value) < 1 ? SMALL : CENTS).format(value);
}

/** A difference with its sign; `like` is the price whose number of decimals it takes. */
export function difference(value, like) {
  const digits = (Math.abs(like) < 1 ? SMALL : CENTS).format(Math.abs(value));
  return sign(value, digits) + digits;
}

export function percent(value) {
  const digits = CENTS.format(Math.abs(value));
  return `${sign(value, digits)}${digits}%`;
}

/** What is written as zero has no sign. */
function sign(value, digits) {
  if (!/[1-9]/.test(digits)) return "";
  return value > 0 ? "+" : MINUS;
}

/** An age, in at most two units: `8 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`. */
export function age(ms) {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return two(minutes, "min", seconds % 60, "s");
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return two(hours, "h", minutes % 60, "min");
  return two(Math.floor(hours / 24), "d", hours % 24, "h");
}

function two(large, unit, small, smaller) {
  return small === 0 ? `${large} ${unit}` : `${large} ${unit} ${small} ${smaller}`;
}

export function clockTime(unixMs) {
  return new Date(unixMs).toLocaleTimeString("en-GB");
}

/** The time alone for today, with the day for any other day. */
export function moment(unixMs, nowMs) {
  const then = new Date(unixMs);
  const time = then.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  if (then.toDateString() === new Date(nowMs).toDateString()) return time;
  return `${then.toLocaleDateString("en-US", { month: "short", day: "numeric" })}, ${time}`;
}

const SIMULATED = {
  short: "Simulated",
  note: "These prices are simulated: they come from no exchange, and are not real.",
};

/** The feed's short name with its delay, and a sentence about it. */
export function feed(name, delay_s, simulated = false) {
  if (!name) return { short: "", note: "" };
  if (simulated) return SIMULATED;
  const [short, origin] = FEEDS[name] ?? [name, `Prices come from the feed ${name}.`];
  const delay = delay_s ?? (name === "delayed_sip" ? 900 : 0);
  if (delay === 0) return { short: `${short}, real time`, note: origin };
  const late = `${Math.round(delay / 60)} min late`;
  return { short: `${short}, ${late}`, note: `${origin} They are ${late}.` };
}

/** What the market does, and until when; empty while nobody knows. */
export function market(state, changesAt, nowMs) {
  const word = { open: "Market open", extended: "Extended hours", closed: "Market closed" }[state];
  if (word === undefined) return "";
  return changesAt ? `${word} until ${moment(Date.parse(changesAt), nowMs)}` : word;
}

/** How far prices are behind the exchange, beyond the feed's own delay; empty within a second. */
export function lag(lag_ms, delay_s = 0) {
  const seconds = ((lag_ms ?? 0) - 1000 * (delay_s ?? 0)) / 1000;
  if (seconds < 1) return "";
  return `${seconds < 10 ? seconds.toFixed(1) + " s" : age(1000 * seconds)} behind`;
}

/** A gap in words: between which times no prices came, and why. */
export function gap({ from, to, reason, symbols }, nowMs) {
  const [began, ended] = [Date.parse(from), Date.parse(to)];
  const subject = symbols === 1 ? "1 symbol" : `${symbols} symbols`;
  const lasted = age(ended - began);
  return `Last gap: no prices of ${subject} for ${lasted} until ${moment(ended, nowMs)}. ${sentence(reason)}.`;
}

/** How many symbols are in which state: `12 symbols: 10 live, 1 halted, 1 refused`. */
export function counts(states) {
  const total = states.length;
  if (total === 0) return "";
  const found = new Map();
  for (const state of states) found.set(state, (found.get(state) ?? 0) + 1);
  const parts = Object.keys(WORDS)
    .sort((a, b) => (found.get(b) ?? 0) - (found.get(a) ?? 0))
    .filter((state) => found.has(state))
    .map((state) => `${found.get(state)} ${state}`);
  return `${total} ${total === 1 ? "symbol" : "symbols"}: ${parts.join(", ")}`;
}

/** What a screen reader says of states that changed: each symbol, or how many. */
export function announcement(states) {
  const byState = new Map();
  for (const { symbol, state, reason } of states) {
    const told = WORDS[state].toLowerCase() + (state === "live" || !reason ? "" : `: ${reason}`);
    byState.set(told, [...(byState.get(told) ?? []), symbol]);
  }
  return [...byState]
    .map(([told, symbols]) => {
      const subject = symbols.length > 4 ? `${symbols.length} symbols` : symbols.join(", ");
      return `${subject} ${told}.`;
    })
    .join(" ");
}

/** A reason as the beginning of a sentence, without its full stop: that of the system has one. */
export function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1).replace(/\.$/, "") : "";
}
