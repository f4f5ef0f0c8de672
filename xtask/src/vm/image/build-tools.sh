#!/bin/bash
# QEMU and mmdebstrap from Debian's packages, unpacked into $1: what is installed here stays as it
# is. Exit code 75: the packages cannot be reached.
set -euo pipefail
tools=$1 debs=$1.debs
exec 9>"$1.lock" && flock 9
[ -e "$tools/.done" ] && exit
rm -rf "$tools" && mkdir -p "$tools" "$debs/partial"
# Lists that are there may be enough.
apt-get update -qq || echo "apt-get update failed, its old lists are used" >&2
wanted=(qemu-system-x86 mmdebstrap)
command -v qemu-img >/dev/null || wanted+=(qemu-utils)
apt-get install -y -qq --no-install-recommends --download-only --reinstall \
    -o Dir::Cache::archives="$debs" "${wanted[@]}" >/dev/null || exit 75
for deb in "$debs"/*.deb; do dpkg-deb -x "$deb" "$tools"; done
rm -rf "$debs" && touch "$tools/.done"
