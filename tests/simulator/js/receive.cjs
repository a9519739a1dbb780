// Subscribes to a simulator with Alpaca's JavaScript SDK and prints what it receives, one JSON
// object a line, until it has a quote and a trade of every symbol.
//
// node receive.cjs <stream url> <key> <secret> <symbol>...
// The SDK is found below the working directory.

const { createRequire } = require("node:module");
const { pathToFileURL } = require("node:url");

const sdk = createRequire(`${process.cwd()}/`)("@alpacahq/alpaca-trade-api");
const [url, key, secret, ...symbols] = process.argv.slice(2);
const say = (kind, value) => console.log(JSON.stringify({ kind, value }));
const missing = new Set(symbols.flatMap((symbol) => [`quote ${symbol}`, `trade ${symbol}`]));

const { StockDataStream } = sdk.streaming;
const stream = new StockDataStream({ credentials: { keyId: key, secret }, url, reconnect: false });

function received(kind, message) {
    say(kind, message);
    missing.delete(`${kind} ${message.symbol}`);
    if (missing.size === 0) stream.disconnect();
}

stream.onQuote((quote) => received("quote", quote));
stream.onTrade((trade) => received("trade", trade));
stream.onStatus((status) => say("status", status));
stream.onError((message) => say("error", String(message)));
stream.on(sdk.streaming.EVENT.SUBSCRIPTION, (all) => say("subscription", all));
stream.subscribeForQuotes(symbols);
stream.subscribeForTrades(symbols);
stream.subscribeForStatuses(["*"]);
stream.connect();
