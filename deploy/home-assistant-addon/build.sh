#!/bin/sh
# Makes the add-on's folder with a program that is not released: sh deploy/home-assistant-addon/build.sh BINARY FOLDER
# The Supervisor builds with nothing but that folder, so what it needs has to be in it.
set -eu

binary=$1
folder=$2
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
# The machine an ELF file is for: byte 18 of its head.
case $(od -An -tx1 -j18 -N1 "$binary" | tr -d ' ') in
3e) arch=amd64 ;;
b7) arch=aarch64 ;;
*) echo "$binary is for neither amd64 nor aarch64" >&2 && exit 1 ;;
esac
mkdir -p "$folder/translations"
for file in apparmor.txt CHANGELOG.md DOCS.md icon.png logo.png options.jq README.md run.sh translations/en.yaml
do
    install -m 644 "$here/$file" "$folder/$file"
done
sed "s/^arch: .*/arch: [$arch]/" "$here/config.yaml" >"$folder/config.yaml"
sed 's|^FROM .* AS program$|FROM scratch AS program\nCOPY gsdk2mqtt /usr/bin/gsdk2mqtt|' "$here/Dockerfile" >"$folder/Dockerfile"
install -m 755 "$binary" "$folder/gsdk2mqtt"
cat "$root/LICENSE-MIT" "$root/LICENSE-APACHE" >"$folder/LICENSE"
