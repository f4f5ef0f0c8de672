#!/bin/busybox sh
# The first program of the guest: the root disk, then systemd.
b=/bin/busybox
$b mount -t devtmpfs dev /dev
for module in /m/*.ko; do $b insmod "$module"; done
tries=0
until [ -b /dev/vda ]; do
    $b sleep 0.1
    tries=$((tries + 1))
    [ $tries -gt 100 ] && break
done
$b mount -t ext4 /dev/vda /newroot || $b poweroff -f
$b mount --move /dev /newroot/dev
exec $b switch_root /newroot /sbin/init
