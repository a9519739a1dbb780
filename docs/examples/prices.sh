#!/usr/bin/env bash
# Print each price of a symbol as one line of JSON, the newest known one first.
#
# usage: prices.sh [SYMBOL]; SPOTD_REDIS_URL names Redis. Needs bash and redis-cli.
set -euo pipefail
symbol=${1:-SPY}
lease="$symbol@shell:$(hostname)-$$-$RANDOM"

redis() { redis-cli -u "${SPOTD_REDIS_URL:-redis://127.0.0.1:6379/0}" "$@"; }

# Demand the symbol for 60 s, by the clock of Redis.
renew() {
  local now
  now=$(redis TIME | head -n 1) && redis ZADD spotd:leases $((now + 60)) "$lease" >/dev/null
}

# Keep the demand alive until this script ends, then take it back.
{ while :; do renew || true; sleep 20; done; } >/dev/null &
renewing=$!
trap 'kill "$renewing" || true; redis ZREM spotd:leases "$lease" >/dev/null || true' EXIT
trap 'exit 130' INT TERM

held=0
show() { # what is newer than what was shown
  local seq=${1##*\"seq\":}
  seq=${seq%%[!0-9]*}
  if ((seq > held)); then
    held=$seq
    printf '%s\n' "$1"
  fi
}

while :; do
  while IFS= read -r line; do
    case $line in
      # The subscription stands: whatever is published from now on comes. So read what was before.
      subscribe) last=$(redis HGET spotd:last "$symbol") && [ -n "$last" ] && show "$last" ;;
      '{'*) show "$line" ;;
    esac
  done < <(redis SUBSCRIBE "spot:$symbol")
  sleep 1 # Redis is away
done
