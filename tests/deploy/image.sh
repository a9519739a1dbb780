#!/usr/bin/env bash
# Builds the image with buildah, which needs no engine, and runs it as its own user.
#
#   SPOTD_TEST_IMAGE_BASE      the base; without it a Debian with Python is made by debootstrap
#   SPOTD_TEST_IMAGE_CACHE     keeps that base and the images, default: a folder under TMPDIR
#   SPOTD_TEST_IMAGE_SECONDS   how long the demo runs, default: 5
#
# Needs root, buildah, and debootstrap for the base. pip inside of the build gets this machine's
# pip configuration and certificates, by mounts that leave nothing in the image.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
cache=${SPOTD_TEST_IMAGE_CACHE:-${TMPDIR:-/tmp}/spotd-test-image}
seconds=${SPOTD_TEST_IMAGE_SECONDS:-5}
base=${SPOTD_TEST_IMAGE_BASE:-localhost/spotd-test-base}
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

if [[ -z ${SPOTD_TEST_IMAGE_BASE:-} ]] && ! buildah inspect --type image "$base" >/dev/null 2>&1; then
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
