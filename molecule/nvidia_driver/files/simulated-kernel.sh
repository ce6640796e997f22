#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Stands in for the kernel in a test: "load" makes the installed module the running one, "reboot" gives a new boot id besides, and starts
# the container engine anew, as a boot does; engines_at_boot counts the engines that came up with it.
# CUDA does not start with the version that the file cuda_fails_with names.
set -eu
host=/srv/simulated_host
if [ "$1" = reboot ]; then
  cat /proc/sys/kernel/random/uuid > $host/boot_id
  echo reboot >> $host/reboots
  if command -v docker > /dev/null; then
    systemctl restart docker.service
    docker ps --quiet --filter label=gpufleet.instance | wc -l >> $host/engines_at_boot
  fi
fi
mkdir -p $host/sys/module/nvidia $host/proc/driver/nvidia
cat /usr/share/simulated_nvidia/version > $host/sys/module/nvidia/version
case $(cat /usr/share/simulated_nvidia/kind) in
open) echo "NVRM version: NVIDIA UNIX Open Kernel Module (simulated)" ;;
*) echo "NVRM version: NVIDIA UNIX Kernel Module (simulated)" ;;
esac > $host/proc/driver/nvidia/version
if [ -e $host/cuda_fails_with ]; then
  if cmp -s $host/cuda_fails_with /usr/share/simulated_nvidia/version; then echo 802 > $host/cuda; else echo 0 > $host/cuda; fi
fi
