/** What the page says of its connection: the mark at the top, and the notice when it is not well. */

import * as format from "./format.js";

const LINK_WORDS = {
  connecting: "Connecting",
  open: "Connected",
  waiting: "Disconnected",
  refused: "Refused",
};

const GENERAL = {
  daemon_silent: "The daemon says nothing",
  relay_silent: "The relay says nothing",
};

/** Whether the notice says why, once for all symbols, so that no row need say it. */
export function isGeneral({ state, code }) {
  return state === "disconnected" || code in GENERAL || code === "no_daemon" || code === "redis_away";
}

export class Link {
  #spot;
  #sentToken;
  #everOpen = false;
  #retryAt = null; // performance.now() of the next try
  #parts = {};
  #shown = null;

  constructor(spot, { sentToken, onToken }) {
    this.#spot = spot;
    this.#sentToken = sentToken;
    for (const id of [
      "link",
      "link-word",
      "feed",
      "feed-note",
      "gap",
      "notice",
      "notice-headline",
      "notice-text",
      "token",
      "token-value",
      "retry",
      "symbols",
    ]) {
      this.#parts[id] = document.getElementById(id);
    }
    this.#parts.retry.addEventListener("click", () => this.#spot.reconnect());
    this.#parts.token.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#sentToken = true;
      onToken(this.#parts["token-value"].value.trim());
    });
    setInterval(() => this.#count(), 1000);
  }

  /** Show how things are now. Called after every change of any state. */
  show() {
    const { connection } = this.#spot;
    if (connection.state === "open") this.#everOpen = true;
    if (connection !== this.#shown) {
      this.#shown = connection;
      const { retryInMs } = connection;
      this.#retryAt = retryInMs === null ? null : performance.now() + retryInMs;
    }
    // A try that goes on does not take away what is said of the last one.
    if (connection.state === "connecting" && !this.#parts.notice.hidden) return;
    const trouble = this.#trouble();
    this.#parts.link.dataset.state = connection.state;
    this.#write("link-word", LINK_WORDS[connection.state]);
    if (connection.state === "open") this.#showFeed();
    this.#showGap();
    if (trouble === null) {
      // A focus within what vanishes would be lost.
      if (this.#parts.notice.contains(document.activeElement)) this.#parts.symbols.focus();
      this.#parts.notice.hidden = true;
      this.#parts.token.hidden = true;
      return;
    }
    this.#parts.notice.hidden = false;
    this.#parts.notice.dataset.kind = trouble.kind;
    this.#write("notice-headline", trouble.headline);
    this.#write("notice-text", trouble.text);
    const focusToken = trouble.token && this.#parts.token.hidden;
    this.#parts.token.hidden = !trouble.token;
    this.#parts.retry.hidden = !trouble.retry;
    if (focusToken) this.#parts["token-value"].focus();
    this.#count();
  }

  #trouble() {
    const { connection, status, hello, relay } = this.#spot;
    // The page does as it is told: that need not be said.
    const reason = `${format.sentence(connection.reason?.replace(/, try again$/, ""))}.`;
    if (connection.code === "unauthorized") {
      const headline = this.#sentToken ? "The token was refused" : "This relay needs a token";
      const text = "Whoever runs the relay knows it. It is kept until this tab is closed.";
      return { kind: "refused", headline, text, token: true };
    }
    if (connection.state === "refused") {
      const text = `${reason} The page does not try again by itself.`;
      return { kind: "refused", headline: "The relay refused", text, retry: true };
    }
    if (connection.state === "waiting") {
      const headline = this.#everOpen ? "Disconnected" : "No connection";
      const kept = this.#everOpen ? " The prices shown may be old." : "";
      return { kind: "down", headline, text: reason + kept, retry: true };
    }
    if (relay?.state === "redis_away") {
      const text = "Prices go on as soon as it is back.";
      return { kind: "down", headline: "The relay has lost Redis", text };
    }
    if (connection.state === "open" && status === null && hello?.daemon !== undefined) {
      const text = "Prices arrive as soon as a spotd daemon runs.";
      return { kind: "down", headline: "No spotd daemon runs", text };
    }
    for (const { code } of this.#spot.states.values()) {
      if (code in GENERAL) {
        const text = "The prices shown may be old.";
        return { kind: "down", headline: GENERAL[code], text };
      }
    }
    if (status?.state === "waiting") {
      const text = `${format.sentence(status.reason)}.`;
      const redis = status.code === "redis_away";
      const headline = redis ? "The daemon has lost Redis" : "The stream is interrupted";
      return { kind: "down", headline, text };
    }
    return null;
  }

  #showFeed() {
    const { hello, status } = this.#spot;
    const feed = status?.feed ?? hello?.feed;
    // hello tells the delay of the feed that was in use then.
    const delay_s = feed === hello?.feed ? hello?.delay_s : undefined;
    const { short, note } = format.feed(feed, delay_s, hello?.simulated);
    const market = format.market(status?.market, status?.market_changes_at, this.#spot.now());
    const lag = format.lag(status?.lag_ms, delay_s);
    this.#write("feed", [short, market, lag].filter(Boolean).join(" \u00b7 "));
    this.#write("feed-note", note);
  }

  #showGap() {
    const { gap } = this.#spot;
    this.#parts.gap.hidden = gap === null;
    if (gap !== null) this.#write("gap", format.gap(gap, this.#spot.now()));
  }

  /** The seconds until the next try, on the button that does not wait for it. */
  #count() {
    if (this.#retryAt === null) {
      this.#write("retry", "Try now");
      return;
    }
    const seconds = Math.max(0, Math.ceil((this.#retryAt - performance.now()) / 1000));
    this.#write("retry", seconds > 1 ? `Try now (${seconds})` : "Try now");
  }

  #write(id, text) {
    if (this.#parts[id].textContent !== text) this.#parts[id].textContent = text;
  }
}
