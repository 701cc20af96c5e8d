#!/bin/sh
# The machine of `cargo xtask vm-test`: a Debian with systemd and cgroup v2, from Debian's packages alone.
# This file is the recipe: the image is kept under the hash of its text.
#
# usage: image.sh build OUT       makes OUT/{root.ext4,vmlinuz,initrd.img}; root, mmdebstrap, mke2fs
#        image.sh initrd ROOT     (hook) before the kernel is installed, which makes the initrd
#        image.sh finish ROOT     (hook) the last thing
set -eu

packages=systemd-sysv,dbus,dbus-user-session,libpam-systemd,udev,kmod,procps,uidmap,initramfs-tools,linux-image-cloud-amd64

case $1 in
build)
  # Directories of files that nobody reads here: a third of the image.
  exec mmdebstrap --mode=root --variant=minbase --include="$packages" --format=null \
    --aptopt='Apt::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook="sh '$0' initrd \"\$1\"" \
    --customize-hook="OUT='$2' sh '$0' finish \"\$1\"" \
    bookworm - # no mirror named: Debian's default and security suites
  ;;

initrd)
  # Only what finds the disk.
  root=$2
  mkdir -p "$root/etc/initramfs-tools/conf.d"
  printf 'MODULES=list\nCOMPRESS=zstd\nRESUME=none\n' >"$root/etc/initramfs-tools/conf.d/vm"
  printf 'virtio_pci\nvirtio_blk\next4\n' >"$root/etc/initramfs-tools/modules"
  ;;

finish)
  root=$2
  # An ordinary user whose service manager runs without a login, and one whose doesn't.
  for user in demo other; do chroot "$root" useradd -m -s /bin/bash $user; done
  mkdir -p "$root/var/lib/systemd/linger"
  : >"$root/var/lib/systemd/linger/demo"
  echo missiond-vm >"$root/etc/hostname"
  : >"$root/etc/machine-id"
  : >"$root/etc/fstab"
  # What takes time without hardware support and isn't looked at.
  for unit in systemd-timesyncd.service systemd-networkd-wait-online.service apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_reap.service e2scrub_all.timer fstrim.timer \
    man-db.timer getty@tty1.service serial-getty@ttyS0.service systemd-boot-update.service \
    systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-hwdb-update.service \
    ldconfig.service systemd-journal-flush.service systemd-binfmt.service; do
    ln -sf /dev/null "$root/etc/systemd/system/$unit"
  done
  mkdir -p "$root/etc/systemd/journald.conf.d" "$root/etc/systemd/system/multi-user.target.wants"
  printf '[Journal]\nStorage=volatile\n' >"$root/etc/systemd/journald.conf.d/vm.conf"
  # The second disk is a tar: it is unpacked and its `run` started, as root, once the users are there.
  cat >"$root/etc/systemd/system/vm-test.service" <<'UNIT'
[Unit]
Description=the tests on the second disk
Wants=user@1000.service
After=user@1000.service
[Service]
Type=exec
Environment=HOME=/root
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStart=/bin/sh -c 'mkdir -p /payload && tar -C /payload -xf /dev/vdb; /payload/run; sync; exec poweroff -f -f'
TimeoutStartSec=infinity
UNIT
  ln -sf ../vm-test.service "$root/etc/systemd/system/multi-user.target.wants/vm-test.service"
  ln -sf /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
  cp "$root"/boot/vmlinuz-* "$OUT/vmlinuz"
  cp "$root"/boot/initrd.img-* "$OUT/initrd.img"
  rm -f "$root"/boot/initrd.img-* "$root"/var/cache/apt/*.bin
  truncate -s 2G "$OUT/root.ext4"
  # As it is on the disk: /proc and the like are mounted in it now.
  mkdir "$OUT/root"
  unshare --mount --propagation private sh -c '
    mount --bind "$1" "$2/root" &&
      mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1,nodiscard -d "$2/root" "$2/root.ext4"
  ' sh "$root" "$OUT"
  rmdir "$OUT/root"
  ;;
esac
