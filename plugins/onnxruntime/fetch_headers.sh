#!/bin/sh
# fetch_headers.sh DIR: unpack the headers of Debian's libonnxruntime-dev into DIR, without installing anything.
# Nothing outside DIR changes: apt works on private lists, with this machine's own mirrors and keys.
set -eu
into=$1
suite=trixie # the first Debian with ONNX Runtime; its headers work with every newer runtime

command -v apt-get > /dev/null || { echo "This system has no apt-get to fetch ONNX Runtime's headers with."; exit 1; }
mkdir -p "$into/apt/lists/partial" "$into/apt/archives/partial"

# The mirror that this machine takes Debian from.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -E '/debian/?$' | head -n 1)
[ -n "$mirror" ] || { echo "This machine's package sources hold no Debian mirror to take ONNX Runtime's headers from."; exit 1; }
keys=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keys] $mirror $suite main" > "$into/apt/sources.list"

private="-o Dir::Etc::sourcelist=$into/apt/sources.list -o Dir::Etc::sourceparts=- -o Dir::State=$into/apt
  -o Dir::State::status=/dev/null -o Dir::Cache=$into/apt -o APT::Sandbox::User= -o Acquire::Languages=none
  -o Acquire::Retries=3"
# shellcheck disable=SC2086 # the options are words
apt-get $private --quiet=2 update
cd "$into"
# shellcheck disable=SC2086
apt-get $private --quiet=2 download libonnxruntime-dev
dpkg-deb --extract libonnxruntime-dev_*.deb .
rm -rf apt libonnxruntime-dev_*.deb
