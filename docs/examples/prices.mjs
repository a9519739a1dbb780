// Prints each price of a symbol, the newest known one first, and each state of it.
//
// usage: node prices.mjs [SYMBOL]; SPOTD_REDIS_URL names Redis. Needs node-redis: npm install redis
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { createClient } from "redis";

const symbol = process.argv[2] ?? "SPY";
const lease = `${symbol}@node:${hostname()}-${process.pid}-${randomBytes(2).toString("hex")}`;

const client = createClient({ url: process.env.SPOTD_REDIS_URL ?? "redis://127.0.0.1:6379/0" });
const subscriber = client.duplicate(); // a connection that subscribes does nothing else
for (const each of [client, subscriber]) {
  each.on("error", (error) => console.error(`Redis: ${error.message}`));
}

// Demand the symbol for 60 s, by the clock of Redis; in seconds, not milliseconds.
async function renew() {
  const [seconds] = await client.sendCommand(["TIME"]);
  await client.zAdd("spotd:leases", { score: Number(seconds) + 60, value: lease });
}

let held = -1;
function take(json) {
  const update = JSON.parse(json);
  if (update.seq <= held) return; // it is older than what is held
  held = update.seq;
  console.log(update.symbol, update.mid_price, update.timestamp);
}

async function takeStored() {
  const json = await client.hGet("spotd:last", symbol);
  if (json) take(json);
}

await client.connect();
await renew();
await client.publish("spotd:wake", ""); // optional: spotd reads the demand at once
const renewing = setInterval(() => renew().catch(() => {}), 20_000);

await subscriber.connect();
await subscriber.subscribe(`spot:${symbol}`, take);
await subscriber.subscribe("spotd:events", (json) => {
  const event = JSON.parse(json);
  if (event.type === "symbol" && event.symbol === symbol) console.log(symbol, event.state);
});
await takeStored();
// It has subscribed again after an interruption. What was published meanwhile is stored.
subscriber.on("ready", () => takeStored().catch(() => {}));

for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, async () => {
    clearInterval(renewing);
    await client.zRem("spotd:leases", lease).catch(() => {});
    process.exit(0);
  });
}
