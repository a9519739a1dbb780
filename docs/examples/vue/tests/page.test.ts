/** The whole page in a simulated browser, with the real spotd.js and a relay driven by hand. */

import { createPinia } from "pinia";
import { type App, createApp, nextTick } from "vue";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import Page from "../src/App.vue";
import { usePositions } from "../src/stores/positions";
import { Relay } from "./relay";

let relay: Relay;
let page: App;

const position = (id: number, underlying: string) => ({
  id,
  underlying,
  right: "put",
  strike: 650,
  expires_on: "2026-03-20",
  contracts: -2,
  spot_at_open: 600,
});

/** Open the page and let it load its positions. */
async function open(...underlyings: string[]): Promise<void> {
  relay.positions = underlyings.map((symbol, index) => position(index + 1, symbol));
  await openAsIs();
}

async function openAsIs(): Promise<void> {
  document.body.innerHTML = "<div id=app></div>";
  page = createApp(Page).use(createPinia());
  page.mount("#app");
  await settled();
}

/** Let answers arrive and gathered requests leave. */
const settled = async () => {
  await vi.advanceTimersByTimeAsync(300);
  await nextTick();
};

const card = (nth = 0) => document.querySelectorAll<HTMLElement>(".card")[nth]!;
const stateOf = (nth = 0) => card(nth).dataset["state"];
const textOf = (selector: string, within: ParentNode = document) =>
  within.querySelector(selector)?.textContent?.replace(/\s+/g, " ").trim();

/** The symbols that the websocket has been asked for and not given up. */
function subscribed(): string[] {
  const symbols = new Set<string>();
  for (const { action, symbols: named = [] } of relay.socket.sent) {
    for (const symbol of named) {
      if (action === "subscribe") symbols.add(symbol);
      else symbols.delete(symbol);
    }
  }
  return [...symbols];
}

beforeEach(() => {
  vi.useFakeTimers({ now: Date.parse("2026-01-20T15:00:00Z") });
  relay = new Relay();
});

afterEach(() => {
  page.unmount();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

test("each underlying is subscribed once, however many positions it has", async () => {
  await open("SPY", "SPY", "QQQ");
  relay.accept();
  await settled();

  expect(relay.posts).toEqual([["SPY", "QQQ"]]);
  expect(subscribed()).toEqual(["SPY", "QQQ"]);
});

test("an underlying is given up with its last position, and no sooner", async () => {
  await open("SPY", "SPY", "QQQ");
  relay.accept();
  await settled();

  card(0).querySelector("button")!.click();
  await settled();
  expect(subscribed()).toEqual(["SPY", "QQQ"]);

  card(0).querySelector("button")!.click();
  await settled();
  expect(subscribed()).toEqual(["QQQ"]);
  expect(document.querySelectorAll(".card")).toHaveLength(1);
});

test("a position that is opened again later does not begin with its old price", async () => {
  await open("SPY");
  relay.accept();
  relay.price("SPY", 606);
  await settled();
  card().querySelector("button")!.click();
  await settled();

  await usePositions().load();
  await nextTick();
  expect(stateOf()).toBe("loading");
  expect(textOf(".mid", card())).toBeUndefined();
});

test("a card loads until the first price, then shows each newer one with its direction", async () => {
  await open("SPY");
  expect(stateOf()).toBe("loading");
  relay.accept();
  await settled();
  expect(stateOf()).toBe("loading");
  expect(card().querySelector(".placeholder")).not.toBeNull();

  relay.price("SPY", 606);
  await nextTick();
  expect(stateOf()).toBe("live");
  expect(textOf(".mid", card())).toBe("606.00");
  expect(textOf(".since-open", card())).toBe("+6.00 (+1.00%)");
  expect(textOf("dl", card())).toContain("44.00 below");

  relay.price("SPY", 605.5);
  await nextTick();
  expect(textOf(".mid", card())).toBe("605.50");
  expect(card().dataset["step"]).toBe("down");
});

test.each(["stale", "halted"])(
  "a card that is %s keeps its price, says why and how old",
  async (state) => {
    await open("SPY");
    relay.accept();
    relay.price("SPY", 606);
    relay.state("SPY", state, "nothing came for 10 s");
    await vi.advanceTimersByTimeAsync(8_000);

    expect(stateOf()).toBe(state);
    expect(textOf(".mid", card())).toBe("606.00");
    expect(textOf(".remark", card())).toMatch(/^\d+ s old · Nothing came for 10 s$/);

    relay.state("SPY", "live");
    await nextTick();
    expect(stateOf()).toBe("live");
    expect(textOf(".remark", card())).toBe("Opened at 600.00");
  },
);

test("what the POST refuses is shown before the websocket is there", async () => {
  const refused = { SPYX: "symbol_limit" };
  relay.answers.push({ status: "success", message: "", symbols: ["SPY"], refused });
  await open("SPY", "SPYX");

  expect([stateOf(0), stateOf(1)]).toEqual(["loading", "refused"]);
  expect(textOf(".remark", card(1))).toBe("Symbol limit");
});

test("a refusal that comes after its position was closed means nothing to the next one", async () => {
  let answer = (_: object) => {};
  relay.answers.push(new Promise<object>((resolve) => (answer = resolve)));
  await open("SPY");
  card().querySelector("button")!.click();
  await nextTick();
  answer({ status: "error", message: "", symbols: [], refused: { SPY: "symbol_limit" } });
  await settled();

  await usePositions().load();
  await nextTick();
  expect(stateOf()).toBe("loading");
});

test("what the stream says of a symbol counts more than a refusal of the POST before", async () => {
  relay.answers.push({
    status: "error",
    message: "",
    symbols: [],
    refused: { SPY: "symbol_limit" },
  });
  await open("SPY");
  relay.accept();
  relay.price("SPY", 606);
  await nextTick();

  expect(stateOf()).toBe("live");
});

test("a POST that fails is told, and tried again until it succeeds", async () => {
  const away = { status: "error", message: "Redis is away", symbols: [], refused: {} };
  relay.answers.push(away, away);
  await open("SPY");
  relay.accept();
  await settled();
  expect(textOf(".notice")).toBe("Redis is away.");

  await vi.advanceTimersByTimeAsync(10_000);
  expect(relay.posts).toEqual([["SPY"], ["SPY"], ["SPY"]]);
  expect(document.querySelector(".notice")).toBeNull();
});

test("a lost connection is shown on page and cards, and mends itself", async () => {
  await open("SPY");
  relay.accept();
  relay.price("SPY", 606);
  relay.fail(4001, "the relay stops");
  await nextTick();
  expect(stateOf()).toBe("disconnected");
  expect(textOf(".mid", card())).toBe("606.00");
  expect(textOf(".notice p")).toBe("No new prices: the relay stops.");

  await vi.advanceTimersByTimeAsync(1_000);
  expect(relay.sockets).toHaveLength(2);
  expect(textOf(".notice p")).toBe("No new prices: the relay stops.");
  relay.accept();
  relay.price("SPY", 607);
  await settled();
  expect(stateOf()).toBe("live");
  expect(subscribed()).toEqual(["SPY"]);
  expect(document.querySelector(".notice")).toBeNull();
});

test("a refused connection waits for a person, whose button connects again", async () => {
  await open("SPY");
  relay.accept();
  relay.fail(4101, "too many messages");
  await vi.advanceTimersByTimeAsync(60_000);
  expect(relay.sockets).toHaveLength(1);

  document.querySelector<HTMLElement>(".notice button")!.click();
  relay.accept();
  await settled();
  expect(textOf(".link")).toBe("Connected");
  expect(subscribed()).toEqual(["SPY"]);
});

test("a lag is told beside the feed", async () => {
  await open("SPY");
  relay.accept();
  relay.daemon({ market: "open", lag_ms: 250 });
  await nextTick();
  expect(textOf(".feed")).toBe("IEX");
  relay.daemon({ market: "open", lag_ms: 12_400 });
  await nextTick();
  expect(textOf(".feed")).toBe("IEX, 12 s behind");
});

test("a closed market is told with the feed, and makes an old price a closed one", async () => {
  await open("SPY");
  relay.accept();
  relay.price("SPY", 606);
  relay.daemon({ market: "closed" });
  await nextTick();
  expect(textOf(".feed")).toBe("IEX, market closed");
  expect(stateOf()).toBe("live");
  await vi.advanceTimersByTimeAsync(10_000);
  relay.price("SPY", 606, "2026-01-20T14:50:00.000000Z");
  relay.daemon({ market: "closed" });
  await nextTick();
  expect(stateOf()).toBe("closed");
  expect(textOf(".remark", card())).toMatch(/old · The market is closed$/);
});

test("the last time without prices is told below the cards", async () => {
  await open("SPY");
  relay.accept();
  expect(document.querySelector(".gap")).toBeNull();
  const [from, to] = ["2026-01-20T14:29:00Z", "2026-01-20T14:29:05Z"];
  relay.tell({ type: "gap", from, to, reason: "the connection was lost", symbols: 3 });
  await nextTick();
  expect(textOf(".gap")).toMatch(/^No prices for 5 s until \d\d:29: the connection was lost\.$/);
});

test("a card says that its symbol waits for its first quote", async () => {
  await open("SPY");
  relay.accept();
  relay.state("SPY", "live", "waiting for its first quote");
  await nextTick();
  expect(stateOf()).toBe("loading");
  expect(textOf(".remark", card())).toBe("Waiting for its first quote");
});

test("positions that do not load are told, and the button loads them again", async () => {
  relay.positions = null;
  await openAsIs();
  expect(textOf(".empty p")).toContain("HTTP 500");

  relay.positions = [position(1, "SPY")];
  document.querySelector<HTMLElement>(".empty button")!.click();
  await settled();
  expect(document.querySelectorAll(".card")).toHaveLength(1);
});

test("when the page is gone, its connection is closed and no timer runs on", async () => {
  await open("SPY");
  relay.accept();
  await settled();
  page.unmount();

  expect(relay.socket.readyState).toBe(3);
  expect(vi.getTimerCount()).toBe(0);
  page = createApp({ render: () => null }); // for afterEach
  page.mount(document.createElement("div"));
});
