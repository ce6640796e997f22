# SPDX-License-Identifier: Apache-2.0
"""A stand-in for crictl: the containers of a control plane's static Pods, and an end to one of them."""

from __future__ import annotations

import common
from common import CONTAINERS, SimulatedError

SOCKET = "unix:///run/containerd/containerd.sock"


def main(argv: list[str]) -> None:
    """Do what is asked for."""
    if argv[:2] != ["--runtime-endpoint", SOCKET]:
        raise SimulatedError(f"stand-in: wanted --runtime-endpoint {SOCKET}")
    rest = argv[2:]
    names = {path.name: found[0] for path in sorted(CONTAINERS.glob("*")) if (found := common.running(path.name))}
    label = "io.kubernetes.container.name="
    if rest[:4] == ["ps", "--state", "running", "--label"] and rest[5:] == ["--quiet"] and rest[4].startswith(label):
        common.say(names.get(rest[4].removeprefix(label), ""))
    elif rest[:1] == ["stop"] and rest[1:2] == ["--timeout"] and len(rest) == 4:
        mine = [component for component, name in names.items() if name == rest[3]]
        if not mine:
            raise SimulatedError(
                f'rpc error: code = NotFound desc = an error occurred when try to find container "{rest[3]}"'
            )
        # kubelet starts it again.
        (CONTAINERS / mine[0]).unlink()
        common.say(rest[3])
    else:
        raise SimulatedError(f"stand-in: crictl {' '.join(rest)} is not simulated")


if __name__ == "__main__":
    common.main(main)
