# Runs as the first process of new network, mount and process namespaces: a root folder over this machine's own, whose
# changes are in memory, with /data of a given size, stand-ins for Android's own programs, and Debian's real adbd.
# Arguments: the folder of the test, the unpacked packages, MB of /data.
set -eu
work=$1 packages=$2 megabytes=$3
mount --make-rprivate /
mount -t tmpfs tmpfs "$work/memory"
mkdir "$work/memory/up" "$work/memory/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/memory/up,workdir=$work/memory/work" "$work/root"
for part in proc dev sys; do mount --rbind "/$part" "$work/root/$part"; done
mount -t proc proc "$work/root/proc"
mkdir -p "$work/root/data" "$work/root/run/phone"
mount -t tmpfs -o "size=${megabytes}m" tmpfs "$work/root/data"
mkdir -p "$work/root/data/local/tmp"
mount --bind "$work/socket" "$work/root/run/phone"
mkdir -p "$work/root/run/programs" "$work/root/run/packages"
mount --bind "$work/programs" "$work/root/run/programs"
mount --bind "$packages" "$work/root/run/packages"
exec chroot "$work/root" /bin/sh -c '
ip link set lo up 2>/dev/null || python3 -c "
import fcntl, socket, struct
fcntl.ioctl(socket.socket(), 0x8914, struct.pack(\"16sh\", b\"lo\", 0x41))"
library=/run/packages/usr/lib/x86_64-linux-gnu:/run/packages/usr/lib/x86_64-linux-gnu/android
tools=/run/packages/usr/lib/android-sdk/platform-tools
run() { /run/packages/lib64/ld-linux-x86-64.so.2 --library-path "$library:$tools" "$@"; }
export HOME=/run/phone PATH=/run/programs:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin ADB_VENDOR_KEYS=/run/phone
cd /data/local/tmp
for port in $(cat /run/phone/ports); do
    (while :; do
        ADBD_PORT=$port run $tools/adbd >/run/phone/adbd-$port.log 2>&1 || :
        [ -e /run/phone/restart ] || exit 0 # a phone that is plugged in again
    done) &
done
run $tools/adb -L localfilesystem:/run/phone/adb nodaemon server >/run/phone/server.log 2>&1 &
while read -r line; do :; done
'
