#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Managed by gpufleet.metal.os_hardening.
# check_sshd FILE: would FILE, as a drop-in of sshd's configuration, be valid, have effect, and leave a way in?
set -u
file=${1:?usage: check_sshd FILE}
sshd=/usr/sbin/sshd
main=/etc/ssh/sshd_config

mkdir -p /run/sshd
"$sshd" -t -f "$file" || exit 1

if ! grep -Eqi '^[[:space:]]*Include[[:space:]]+"?(/etc/ssh/)?sshd_config\.d/\*\.conf' "$main"; then
  echo "$main does not read /etc/ssh/sshd_config.d/*.conf; put 'Include /etc/ssh/sshd_config.d/*.conf' at its beginning"
  exit 1
fi

# Whoever runs Ansible has to get in again, with a key.
login=${SUDO_USER:-$(id -un)}
home=$(getent passwd "$login" | cut -d: -f6)
settings=$("$sshd" -T -C "user=$login,host=localhost,addr=127.0.0.1") || exit 1
setting() { printf '%s\n' "$settings" | sed -n "s/^$1 //p"; }
case "$(setting authorizedkeyscommand) $(setting trustedusercakeys)" in
  "none none") ;;
  *) exit 0 ;; # Keys come from a command or a certificate authority, which only a login can prove.
esac
for path in $(setting authorizedkeysfile | sed "s|%h|$home|g; s|%u|$login|g; s|%%|%|g"); do
  case "$path" in
    /*) ;;
    *) path=$home/$path ;;
  esac
  if grep -Eqs '^[^#]*(ssh-|ecdsa-|sk-)' "$path"; then
    exit 0
  fi
done
echo "the user $login has no key in $(setting authorizedkeysfile) and could not log in any more: passwords will be refused." \
  "Install a public key for $login first"
exit 1
