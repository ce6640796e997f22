#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Stands in for the kernel in a test: "load" makes the installed version the running one, "reboot" gives a new boot id besides.
# CUDA does not start with the version that the file cuda_fails_with names.
set -eu
host=/srv/simulated_host
if [ "$1" = reboot ]; then
  cat /proc/sys/kernel/random/uuid > $host/boot_id
  echo reboot >> $host/reboots
fi
mkdir -p $host/sys/module/nvidia $host/proc/driver/nvidia
cat /usr/share/simulated_nvidia/version > $host/sys/module/nvidia/version
echo "NVRM version: NVIDIA UNIX Open Kernel Module (simulated)" > $host/proc/driver/nvidia/version
if [ -e $host/cuda_fails_with ]; then
  if cmp -s $host/cuda_fails_with /usr/share/simulated_nvidia/version; then echo 802 > $host/cuda; else echo 0 > $host/cuda; fi
fi
