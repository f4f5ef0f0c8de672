#!/bin/bash
# The guest: suite $1 into the folder $2 as vmlinuz, initrd and root.img, with the tools of $3.
# Direct kernel boot, no network, no udev; an agent runs what lies on the second disk.
# Exit code 75: the packages cannot be reached.
set -euo pipefail
suite=$1 out=$2 tools=$3 here=$(cd "$(dirname "$0")" && pwd)
packages=usr-is-merged,init-system-helpers,systemd,systemd-sysv,dbus,kmod,procps
packages+=,busybox-static,sqlite3,ffmpeg
exec 9>"$out.lock" && flock 9
[ -e "$out/.done" ] && exit
mirror=$(sed -n 's/^URIs: *//p' /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n 1)
mirror=${mirror:-http://deb.debian.org/debian}
rm -rf "$out" && mkdir -p "$out"
root=$out/root kernel=$out/kernel initrd=$out/i
export PATH=$tools/usr/bin:$PATH TMPDIR=$out

bootstrap() {
    # shellcheck disable=SC2016 # expanded inside
    mmdebstrap --quiet --mode=root --variant=minbase --format=directory \
        --hook-dir="$tools/usr/share/mmdebstrap/hooks/merged-usr" --include="$packages" \
        --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Retries "3"' \
        --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook='chroot "$1" sh -c "cd /tmp && apt-get -qq download \
            \$(apt-cache depends linux-image-cloud-amd64 | sed -n s/.*Depends:.//p)"' \
        --customize-hook="mv \"\$1\"/tmp/linux-image*.deb '$out/kernel.deb'" \
        "$suite" "$root" "$mirror"
}
if ! bootstrap >"$out/bootstrap.log" 2>&1; then
    tail -n 20 "$out/bootstrap.log" >&2
    grep -qE 'Failed to fetch|Could not (resolve|connect)|Temporary failure|timed out' \
        "$out/bootstrap.log" && exit 75
    exit 1
fi

# The kernel and its modules.
mkdir "$kernel" && dpkg-deb -x "$out/kernel.deb" "$kernel"
version=$(basename "$kernel"/boot/vmlinuz-*) version=${version#vmlinuz-}
mv "$kernel/boot/vmlinuz-$version" "$out/vmlinuz"
mkdir -p "$root/usr/lib/modules"
mv "$(find "$kernel" -type d -path "*/modules/$version")" "$root/usr/lib/modules/"
chroot "$root" depmod "$version"

# The first file system: busybox, and the modules that reach the disk.
mkdir -p "$initrd"/{bin,m,dev,newroot}
cp "$root/usr/bin/busybox" "$initrd/bin/" && ln -s busybox "$initrd/bin/sh"
install -m755 "$here/init.sh" "$initrd/init"
count=0
for module in virtio_pci virtio_mmio virtio_blk ext4; do
    chroot "$root" modprobe -S "$version" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
    to=$initrd/m/$(printf %02d "$count").ko count=$((count + 1))
    case $file in *.xz) xz -dc "$root$file" >"$to" ;; *) cp "$root$file" "$to" ;; esac
done
(cd "$initrd" && find . | "$root/usr/bin/busybox" cpio -o -H newc 2>/dev/null) >"$out/initrd"

# No login, nothing periodic, no mounts that the service does not need.
echo vm >"$root/etc/hostname"
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
echo '/dev/vda / ext4 rw 0 1' >"$root/etc/fstab"
passwd -R "$root" -d root >/dev/null 2>&1 || true
units=$root/etc/systemd/system
rm -f "$units"/{getty.target.wants,timers.target.wants}/*
for unit in e2scrub_reap.service systemd-pstore.service systemd-update-utmp.service \
    systemd-binfmt.service modprobe@.service dev-hugepages.mount sys-kernel-debug.mount \
    sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount; do
    ln -sf /dev/null "$units/$unit"
done
install -m755 "$here/agent.sh" "$root/usr/local/sbin/vm-agent"
install -m644 "$here/agent.service" "$units/vm-agent.service"
mkdir -p "$units/multi-user.target.wants"
ln -s ../vm-agent.service "$units/multi-user.target.wants/"
ln -sf /lib/systemd/system/multi-user.target "$units/default.target"

truncate -s 3G "$out/root.img" && mke2fs -q -t ext4 -F -d "$root" "$out/root.img"
rm -rf "$root" "$kernel" "$initrd" "$out/kernel.deb" && touch "$out/.done"
