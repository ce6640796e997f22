#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Managed by gpufleet.metal.os_hardening.
# check_sshd FILE: would FILE, as a drop-in of sshd's configuration, be valid, be read, and leave a way in?
# check_sshd --effective FILE: does sshd do what FILE, which is in place, says? It takes the first value that it reads.
set -u
sshd=/usr/sbin/sshd
main=/etc/ssh/sshd_config
parts=/etc/ssh/sshd_config.d

# values SETTINGS OPTION: what the output of sshd -T says of an option; some have several lines.
values() { printf '%s\n' "$1" | sed -n "s/^$2 //p" | LC_ALL=C sort | paste -s -d ' ' -; }

# lines OPTION FILE [NAME]: where the file sets an option for everybody, as 'NAME line NUMBER'.
lines() {
  awk -v option="$1" -v name="${3:-$2}" '
    { sub(/^[ \t]+/, ""); split($0, words, /[ \t=]+/); word = tolower(words[1]) }
    word == "match" { exit }
    word == option { print name " line " NR }' "$2"
}

# earlier OPTION FILE: the first place but FILE where an option is set, in the order in which sshd reads.
earlier() {
  {
    sed '/^[[:space:]]*[Ii]nclude[[:space:]]/q' "$main" | lines "$1" - "$main"
    for part in "$parts"/*.conf; do [ "$part" = "$2" ] || lines "$1" "$part"; done
    lines "$1" "$main"
  } | head -n 1
}

effective() {
  wanted=$("$sshd" -T -f "$1") || exit 1
  found=$("$sshd" -T) || exit 1
  options=$(sed -n 's/^\([A-Za-z0-9][A-Za-z0-9]*\) .*/\1/p' "$1")
  status=0
  for option in $options; do
    key=$(printf '%s' "$option" | tr '[:upper:]' '[:lower:]')
    is=$(values "$found" "$key")
    should=$(values "$wanted" "$key")
    [ "$is" = "$should" ] && continue
    place=$(earlier "$key" "$1")
    echo "$option is '$is', wanted '$should': ${place:-something that is not in $main or $parts} wins over $1;" \
      "take that line out, or move it behind the Include of $parts"
    status=1
  done
  exit "$status"
}

if [ "${1-}" = --effective ]; then
  effective "${2:?usage: check_sshd --effective FILE}"
fi
file=${1:?usage: check_sshd FILE}
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
