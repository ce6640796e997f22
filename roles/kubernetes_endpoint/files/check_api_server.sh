#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What keepalived and the role ask on a control plane.
#   alive PORT        does HAProxy know an API server that is ready? keepalived asks each second
#   serves PORT FILE  does HAProxy serve this file, and not an older one? it may take a moment
#   keepalived FILE   does keepalived accept this file?
set -u

ask() {
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf 'GET %s HTTP/1.0\r\n\r\n' "$2" >&3
    cat <&3
    exec 3>&-
}

case $1 in
    alive)
        [[ $(ask "$2" /alive) == HTTP/*' 200 '* ]]
        ;;
    serves)
        build=$(sed -n 's/^# build: //p' "$3")
        # A file of the distribution has none.
        [ -n "$build" ] || exit 0
        for _ in {1..50}; do
            answer=$(ask "$2" /build 2>/dev/null)
            if [[ $answer == *"$build"* ]]; then exit 0; fi
            sleep 0.2
        done
        echo "HAProxy does not serve $3, which it was told 10 s ago. It says:" >&2
        journalctl --unit=haproxy.service --lines=20 --output=cat >&2
        exit 1
        ;;
    keepalived)
        # keepalived 2.2.7 (Debian 12) sends itself SIGTERM in the middle of its own test, unless that is ignored.
        trap '' TERM
        exec keepalived --config-test --use-file="$2"
        ;;
    *)
        echo "usage: $0 alive PORT | serves PORT FILE | keepalived FILE" >&2
        exit 2
        ;;
esac
