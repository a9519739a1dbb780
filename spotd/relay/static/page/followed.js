/** Which symbols the page follows: in its address, so that it can be shared, and remembered. */

import { entries } from "./order.js";

const REMEMBERED = "spotd.symbols";
const TOKEN = "spotd.token";

/** A browser may forbid storage. The page works without. */
function allowed(use) {
  try {
    return use();
  } catch {
    return null;
  }
}

export function followedAtFirst() {
  const named = new URL(location.href).searchParams.get("symbols");
  return entries(named ?? allowed(() => localStorage.getItem(REMEMBERED)) ?? "");
}

export function remember(symbols) {
  const address = new URL(location.href);
  address.searchParams.delete("symbols");
  const others = address.search ? `${address.search}&` : "?";
  const own = symbols.length > 0 ? `${others}symbols=${symbols.map(encodeURIComponent).join(",")}` : address.search;
  history.replaceState(null, "", address.pathname + own + address.hash);
  allowed(() => localStorage.setItem(REMEMBERED, symbols.join(",")));
}

export function rememberedToken() {
  return allowed(() => sessionStorage.getItem(TOKEN));
}

export function rememberToken(token) {
  allowed(() => sessionStorage.setItem(TOKEN, token));
}
