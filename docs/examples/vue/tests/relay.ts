/** The relay's end of the websocket, and the back end's HTTP, driven by hand. */

import { vi } from "vitest";

const NOW = "2026-01-20T15:00:00.000000Z";

/** A websocket as far as spotd.js uses one. */
class Socket {
  readyState = 0;
  onopen: ((event: object) => void) | null = null;
  onmessage: ((event: object) => void) | null = null;
  onclose: ((event: object) => void) | null = null;
  readonly sent: { action: string; symbols?: string[] }[] = [];

  constructor(readonly address: string) {}

  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }

  close(): void {
    this.readyState = 3;
  }
}

export class Relay {
  readonly sockets: Socket[] = [];
  /** The symbols of each POST. */
  readonly posts: string[][] = [];
  /** The answers to the next POSTs; without one: success. */
  readonly answers: (object | Promise<object>)[] = [];
  positions: object[] | null = [];
  #seq = 1;

  constructor() {
    const { sockets } = this;
    const Made = function (address: string) {
      sockets.push(new Socket(address));
      return sockets.at(-1);
    };
    vi.stubGlobal("WebSocket", Made);
    vi.stubGlobal("fetch", (path: string, init?: { body: string }) => this.#answer(path, init));
  }

  get socket(): Socket {
    return this.sockets.at(-1)!;
  }

  /** Accept the newest connection, and say hello for a daemon that streams. */
  accept(): void {
    this.socket.readyState = 1;
    this.socket.onopen!({});
    const daemon = { type: "daemon", state: "streaming", feed: "iex", at: NOW };
    this.tell({ type: "hello", version: 1, timestamp: NOW, daemon });
  }

  tell(message: object): void {
    this.socket.onmessage!({ data: JSON.stringify(message) });
  }

  /** Tell a status of the daemon, a second younger than the one before. */
  daemon(more: object): void {
    const at = new Date(Date.parse(NOW) + 1_000 * this.#seq++).toISOString();
    this.tell({ type: "daemon", state: "streaming", feed: "iex", at, ...more });
  }

  price(symbol: string, mid_price: number, timestamp = NOW): void {
    const [bid_price, ask_price] = [mid_price - 0.01, mid_price + 0.01];
    const update = { symbol, bid_price, ask_price, mid_price, last_price: null, timestamp };
    const message = { ...update, seq: this.#seq++ };
    this.tell({ type: "spot_price_update", update: message, timestamp: NOW });
  }

  state(symbol: string, state: string, detail: string | null = null): void {
    this.tell({ type: "symbol", symbol, state, reason: null, detail, since: NOW });
  }

  fail(code: number, reason: string): void {
    this.socket.onclose!({ code, reason });
  }

  async #answer(path: string, init?: { body: string }): Promise<Response> {
    if (path === "/api/positions") {
      return this.positions === null
        ? new Response("", { status: 500 })
        : Response.json(this.positions);
    }
    const { symbols } = JSON.parse(init!.body) as { symbols: string[] };
    this.posts.push(symbols);
    const success = { status: "success", message: "", symbols, refused: {} };
    return Response.json((await this.answers.shift()) ?? success);
  }
}
