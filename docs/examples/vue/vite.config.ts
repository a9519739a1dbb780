/** How `spotd` is found, and where the relay is. Nothing else here is special to spotd. */

import { fileURLToPath } from "node:url";
import vue from "@vitejs/plugin-vue";
import { defineConfig } from "vitest/config";

// `spotd relay`, or a FastAPI application with spotd's router.
const RELAY = process.env.SPOTD_RELAY_URL ?? "http://127.0.0.1:9811";
const SPOTD_JS = fileURLToPath(new URL("../../../spotd/relay/static/spotd.js", import.meta.url));

// The relay accepts pages of its own origin, so it must see the Host that the browser sees.
const toRelay = { target: RELAY, changeOrigin: false, ws: true };

export default defineConfig(({ command }) => ({
  plugins: [vue()],
  // While developing and testing, `spotd` is the file of this checkout …
  resolve: { alias: command === "serve" ? { spotd: SPOTD_JS } : {} },
  // … and in production it is the one that the relay serves: it always fits that relay.
  build: {
    rollupOptions: { external: ["spotd"], output: { paths: { spotd: "/spotd.js" } } },
  },
  server: {
    proxy: {
      "/ws": toRelay,
      "/spotd.js": toRelay,
      "/api/positions/subscribe-spot-prices": toRelay,
    },
    fs: { allow: [".", SPOTD_JS] },
  },
  test: {
    environment: "happy-dom",
    environmentOptions: { happyDOM: { url: "http://positions.test" } },
  },
}));
