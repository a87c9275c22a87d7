#!/usr/bin/env bash
# Makes a machine ready for sweeps; run on every node, as often as you like. See cluster/README.md.
#
#   setup.sh [--nfs SERVER:/EXPORT] [--shared FOLDER] [--venv FOLDER] [--extras NAME,NAME] [--installed]
#
#   --nfs        mounts this NFS export at the shared folder, unless something is mounted there already
#   --shared     the folder that every node sees at the same path; default /mnt/qa-sweeps
#   --venv       where the Python environment is made; default ~/qa-sweeps-venv
#   --extras     extras of the package beside `cluster`, such as aws
#   --installed  installs nothing: the `python` on the path, of a pinned image, has all that the project needs
#
# QA_SWEEPS_KERNELS=no leaves out the CUDA kernels of Mamba, which have to be compiled and need nvcc.
set -euo pipefail

fail() { echo "setup.sh: $*" >&2; exit 1; }

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
shared=/mnt/qa-sweeps venv=$HOME/qa-sweeps-venv nfs="" extras="" installed=no
while (($#)); do
    case $1 in
        --nfs) nfs=$2; shift 2 ;;
        --shared) shared=$2; shift 2 ;;
        --venv) venv=$2; shift 2 ;;
        --extras) extras=$2; shift 2 ;;
        --installed) installed=yes; shift ;;
        *) fail "unknown option '$1' (allowed: --nfs --shared --venv --extras --installed)" ;;
    esac
done
as_root() { if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n "$@"; fi; }

# Packages of the system that are missing, on Debian and Ubuntu; elsewhere their absence is said by name below.
system_packages() {
    command -v apt-get > /dev/null || return 0
    # An image may still be installing its own updates after it has started.
    as_root apt-get -o DPkg::Lock::Timeout=300 -qq update
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq install -y "$@"
}

mount_shared() {
    as_root mkdir -p "$shared"
    if ! mountpoint -q "$shared"; then
        command -v mount.nfs4 > /dev/null || system_packages nfs-common
        as_root mount -t nfs4 -o nfsvers=4.1,rsize=1048576,wsize=1048576,hard,timeo=600,retrans=2,noresvport,lookupcache=positive \
            "$nfs" "$shared" || fail "--nfs $nfs cannot be mounted at $shared"
    fi
    # The root of a new export belongs to root.
    [[ -w $shared ]] || as_root chown "$(id -u):$(id -g)" "$shared"
}

# Without it each node would train into a folder of its own, and the head would miss the results.
check_shared() {
    [[ -d $shared ]] || fail "--shared $shared: is not there; mount it on every node at this path"
    local token
    token=$(mktemp "$shared/.written-XXXXXX") || fail "--shared $shared: cannot be written"
    echo "$token" > "$token" && [[ $(cat "$token") == "$token" ]] || fail "--shared $shared: does not give back what is written"
    rm -f "$token"
}

find_python() {
    local name
    for name in python3.11 python3.12 python3.13 python3; do
        if command -v "$name" > /dev/null && "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "$name"
            return
        fi
    done
    fail "no Python 3.11 or newer on the path (found: $(python3 --version 2>&1 || echo none)); use another image"
}

install() {
    local python wanted
    python=$(find_python)
    "$python" -c 'import ensurepip' 2> /dev/null || system_packages "$(basename "$(readlink -f "$(command -v "$python")")")-venv"
    [[ -x $venv/bin/python ]] || "$python" -m venv "$venv" || fail "$python -m venv $venv failed"
    PATH=$venv/bin:$PATH
    wanted=$(cat "$project/pyproject.toml" "$project/constraints.txt" <(echo "$extras") | sha256sum)
    if [[ $(cat "$venv/.installed-from" 2> /dev/null) != "$wanted" ]]; then
        pip install --quiet --disable-pip-version-check -c "$project/constraints.txt" \
            -e "$project[cluster${extras:+,$extras}]" || fail "pip install failed"
        echo "$wanted" > "$venv/.installed-from"
    fi
    install_kernels
}

install_kernels() {
    command -v nvidia-smi > /dev/null && [[ ${QA_SWEEPS_KERNELS:-yes} != no ]] || return 0
    python -c 'import mamba_ssm, causal_conv1d' 2> /dev/null && return
    command -v nvcc > /dev/null || PATH=$PATH:/usr/local/cuda/bin
    command -v nvcc > /dev/null || fail "there is a GPU and no nvcc, which Mamba's kernels need; take an image with the CUDA toolkit, or set QA_SWEEPS_KERNELS=no: Mamba then trains without them, slower"
    pip install --quiet --disable-pip-version-check --no-build-isolation -c "$project/constraints.txt" \
        -e "$project[gpu]" || fail "Mamba's kernels cannot be built; QA_SWEEPS_KERNELS=no leaves them out"
}

# What Ray's processes and every login shell of this node read. `sweeps/nodes/ray_environment.py` is the one home of Ray's settings.
write_environment() {
    local file=$HOME/.qa-sweeps.env line='[ -f ~/.qa-sweeps.env ] && . ~/.qa-sweeps.env'
    {
        if [[ $installed == yes ]]; then
            echo "export PYTHONPATH=$project"  # this copy of the project, not one that the image holds
        else
            echo "export PATH=$venv/bin:\$PATH"
        fi
        echo "export RAY_AUTH_MODE=token"
        echo "export QA_SWEEPS_CACHE=\${QA_SWEEPS_CACHE:-$shared/cache}"
        python -c 'from sweeps.nodes.ray_environment import RAY_ENVIRONMENT as e; print(*(f"export {k}={v}" for k, v in e.items()), sep="\n")'
    } > "$file.tmp"
    mv "$file.tmp" "$file"
    # At the top: on Ubuntu the rest is for interactive shells alone.
    if ! grep -qxF "$line" "$HOME/.bashrc" 2> /dev/null; then
        { echo "$line"; cat "$HOME/.bashrc" 2> /dev/null || true; } > "$HOME/.bashrc.tmp"
        mv "$HOME/.bashrc.tmp" "$HOME/.bashrc"
    fi
}

check_token() {
    local token=$HOME/.ray/auth_token
    [[ -n ${RAY_AUTH_TOKEN:-} || -s $token ]] || fail "$token: there is no token; see 'The token' in cluster/README.md"
    [[ ! -f $token ]] || chmod 600 "$token"
}

[[ -z $nfs ]] || mount_shared
check_shared
[[ $installed == yes ]] || install
cd "$project"
python -c 'import qa_core, sweeps' || fail "the package cannot be imported by $(command -v python || echo 'no python')"
write_environment
check_token
python -m sweeps.cli doctor | grep -E '^(system|cpu|gpu|precision|kernels|warning|package: (ray|torch|transformers|mlflow|pyarrow) )' || fail "doctor failed"
echo "setup.sh: ready; shared folder $shared, $(python --version)"
