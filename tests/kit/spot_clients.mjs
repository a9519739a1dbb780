// Clients of one relay, each a connection of spotd.js, in a process that a test watches.
//
//     node spot_clients.mjs URL NUMBER EACH SYMBOL...
//
// Each follows EACH of the symbols. Writes a line of JSON at each change: {client, at_s, state,
// code} of a connection; {client, at_s, live}: whether all its symbols are. Answers each line of
// stdin with {prices: [{symbol: [seq, mid price]} of each client]}. Ends with stdin.

import { createInterface } from "node:readline";

import { connect } from "../../spotd/relay/static/spotd.js";

const [url, number, each, ...symbols] = process.argv.slice(2);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
// The clock of Python's time.monotonic().
const now = () => Number(process.hrtime.bigint()) / 1e9;

const clients = Array.from({ length: Number(number) }, (_, client) => {
  const wanted = Array.from(
    { length: Number(each) },
    (_, index) => symbols[(client * Number(each) + index) % symbols.length],
  );
  let live = false;
  const spot = connect(url, {
    onConnection: ({ state, code }) => say({ client, at_s: now(), state, code }),
    onState: () => {
      const all = wanted.every((one) => spot.states.get(one)?.state === "live");
      if (all === live) return;
      live = all;
      say({ client, at_s: now(), live });
    },
  });
  spot.subscribe(wanted);
  return spot;
});

const commands = createInterface({ input: process.stdin });
commands.on("line", () => {
  const pricesOf = (spot) =>
    Object.fromEntries(Array.from(spot.prices, ([symbol, price]) => [symbol, [price.seq, price.mid_price]]));
  say({ prices: clients.map(pricesOf) });
});
commands.on("close", () => process.exit(0));
