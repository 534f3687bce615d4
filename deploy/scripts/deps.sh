#!/bin/sh
# Installs the system packages that are missing, with apt; on other systems says what is missing and stops.
#
#   deps.sh run     what a cluster needs
#   deps.sh build   what building needs as well
#   deps.sh test    what the tests need as well
set -eu

stage=${1:-run}

# Lines of: the earliest stage that needs it, a program or file that shows that it is there, packages that have it.
wanted='
run   containerd                      containerd
run   runc                            runc
run   /usr/lib/cni/ptp,/opt/cni/bin/ptp  containernetworking-plugins
run   nft                             nftables
run   ip                              iproute2
run   conntrack                       conntrack
build cc                              gcc
build /usr/include/stdio.h            libc6-dev
build protoc                          protobuf-compiler
build /usr/include/google/protobuf/descriptor.proto,/usr/local/include/google/protobuf/descriptor.proto  libprotobuf-dev
test  etcd                            etcd-server,etcd
test  etcdctl                         etcd-client
test  /bin/busybox                    busybox-static
test  script                          bsdutils
test  ps                              procps
test  openssl                         openssl
test  git                             git
test  /usr/share/python-wheels          python3-venv
'

# Is one of these programs (also where administrators' programs lie) or files there?
present() {
    for one in $(echo "$1" | tr , ' '); do
        case $one in
        /*) [ -e "$one" ] && return 0 ;;
        *) PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin command -v "$one" >/dev/null 2>&1 && return 0 ;;
        esac
    done
    return 1
}

applies() {
    case $stage:$1 in
    test:* | build:build | build:run | run:run) return 0 ;;
    *) return 1 ;;
    esac
}

missing=''
while read -r needed shown packages; do
    [ -n "$needed" ] || continue
    applies "$needed" || continue
    present "$shown" || missing="$missing $packages"
done <<EOF
$wanted
EOF

[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
    echo "These are missing, and this script knows only apt (names are Debian's):$missing" >&2
    exit 1
fi

as_root=''
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || {
        echo "These packages are missing, and installing them needs root or sudo:$missing" >&2
        exit 1
    }
    as_root=sudo
fi

echo "installing:$missing"
$as_root apt-get update -q || echo "apt-get update failed; trying with the lists that are there" >&2

# A package may be called differently in other releases: the first one that there is.
names=''
for packages in $missing; do
    found=''
    for one in $(echo "$packages" | tr , ' '); do
        if apt-cache show "$one" >/dev/null 2>&1; then
            found=$one
            break
        fi
    done
    [ -n "$found" ] || {
        echo "no package of these is known to apt: $packages" >&2
        exit 1
    }
    names="$names $found"
done

# The packages of etcd and containerd start services of the whole machine, which nobody asked for: a cluster starts
# its own. While a policy says so, nothing is started; one that is there already stays as it is.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '$as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod 755 "$policy"
fi
# shellcheck disable=SC2086  # both are lists of words
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $names

# What was not started now would be at the next boot.
if [ -d /run/systemd/system ]; then
    for service in etcd containerd; do
        case $names in
        *$service*) $as_root systemctl disable --quiet "$service.service" || true ;;
        esac
    done
fi
