// Load from k6, independent of our own clients: browsers' websockets with 10 of 500 symbols each.
// Started by `python -m tests.bench.relay --k6 PATH`, which sets the environment.
//
// The `seq` of an update is the time of its publication in monotonic microseconds. OFFSET_MS turns
// it into unix milliseconds, the finest clock that k6 has.

import { Counter, Trend } from "k6/metrics";
import { WebSocket } from "k6/experimental/websockets";

const CLIENTS = Number(__ENV.CLIENTS);
const SECONDS = Number(__ENV.SECONDS);
const WARM_UP_S = Number(__ENV.WARM_UP_S);
const OFFSET_MS = Number(__ENV.OFFSET_MS);
const SYMBOLS = __ENV.SYMBOLS.split(",");
const EACH = 10;
const SEQ = /"seq":(\d+)/g;

const age = new Trend("age_ms");
const updates = new Counter("price_updates");
const closed = new Counter("closed_early");

export const options = {
  scenarios: {
    browsers: {
      executor: "per-vu-iterations",
      vus: CLIENTS,
      iterations: 1,
      maxDuration: `${2 * WARM_UP_S + SECONDS + 30}s`,
    },
  },
  summaryTrendStats: ["med", "p(99)", "max"],
};

export default function () {
  const first = (__VU * EACH) % SYMBOLS.length;
  const symbols = Array.from({ length: EACH }, (_, i) => SYMBOLS[(first + i) % SYMBOLS.length]);
  const begun = Date.now();
  const from = begun + WARM_UP_S * 1000;
  const until = from + SECONDS * 1000;
  const socket = new WebSocket(__ENV.URL);
  let ended = false;
  socket.onopen = () => socket.send(JSON.stringify({ action: "subscribe", symbols }));
  socket.onmessage = ({ data }) => {
    const now = Date.now();
    if (now < from || now >= until) return;
    for (const [, seq] of data.matchAll(SEQ)) {
      age.add(now - OFFSET_MS - Number(seq) / 1000);
      updates.add(1);
    }
  };
  socket.onclose = () => {
    if (!ended) closed.add(1);
  };
  setTimeout(() => {
    ended = true;
    socket.close();
  }, until - begun);
}
