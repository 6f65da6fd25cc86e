#!/bin/sh
# Process 1 of a sandbox of the test cluster: what it starts sees files of its own under /etc, /var, /opt and
# /run, and ends with it. Called in new namespaces, as
#
#   sandbox.sh outside DIRECTORY [USR]   around the whole cluster; USR is a tree to lay over /usr
#   sandbox.sh machine DIRECTORY         one machine within it
#
# DIRECTORY/root       files that are laid over the machine's when it starts for the first time
# DIRECTORY/setup      a script to run before the services
# DIRECTORY/services   a file for each program to run, and to run again when it ends: one argument a line
# DIRECTORY/log        what they wrote
set -eu
kind=$1 directory=$2 usr=${3:-}

mount --make-rprivate /
mkdir -p "$directory/cgroup" "$directory/root" "$directory/services" "$directory/log"
# A process namespace has its own /proc, a network namespace its own /sys, and the control groups stay.
mount -t proc proc /proc
mount --rbind /sys/fs/cgroup "$directory/cgroup"
mount -t sysfs sysfs /sys
mount --rbind "$directory/cgroup" /sys/fs/cgroup
umount -l "$directory/cgroup"
mount -t tmpfs -o mode=755 tmpfs /run

case $kind in
outside)
  [ -z "$usr" ] || mount -t overlay -o "lowerdir=$usr:/usr" overlay /usr
  ;;
machine)
  for own in etc var opt; do
    mkdir -p "$directory/overlay/$own" "$directory/work/$own"
    mount -t overlay -o "lowerdir=/$own,upperdir=$directory/overlay/$own,workdir=$directory/work/$own" overlay "/$own"
  done
  # containerd lays an overlay upon its directory, and those do not stack as deep.
  for plain in containerd kubelet; do
    mkdir -p "$directory/$plain" "/var/lib/$plain"
    mount --bind "$directory/$plain" "/var/lib/$plain"
  done
  hostname "${directory##*/}"
  # As systemd has it: Pods may see mounts of the node, and make some.
  mount --make-rshared /
  ;;
esac
# Once: what was changed since stays over a reboot, as on a disk.
[ -e "$directory/laid" ] || cp -a "$directory/root/." /
: >"$directory/laid"
[ ! -e "$directory/setup" ] || sh -eu "$directory/setup"

serve() {
  while :; do
    "$@" || true
    echo "--- ended, and is started again"
    sleep 0.3
  done
}
for service in "$directory"/services/*; do
  [ -e "$service" ] || continue
  set --
  while IFS= read -r argument; do set -- "$@" "$argument"; done <"$service"
  serve "$@" </dev/null >>"$directory/log/${service##*/}.log" 2>&1 &
done
echo ready

# Whatever has lost its parent is this one's to bury, which is what `wait` does meanwhile.
sleep infinity &
while :; do wait || true; done
