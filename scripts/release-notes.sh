#!/bin/sh
# Prints the changelog's section of a release: sh scripts/release-notes.sh v1.2.3 [CARGO_TOML CHANGELOG]
# Fails where the tag is not the manifest's version, or the changelog has nothing to say of it.
set -eu

tag=$1
manifest=${2:-Cargo.toml}
changelog=${3:-CHANGELOG.md}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$manifest" | head -n 1)
if [ "$tag" != "v$version" ]; then
    echo "the tag is $tag and the version in $manifest is $version; the tag must be v$version" >&2
    exit 1
fi
# Its heading is "## 1.2.3", with a date after it or without.
notes=$(awk -v version="$version" '
    $1 == "##" { inside = ($2 == version); next }
    inside { print }
' "$changelog")
if [ -z "$notes" ]; then
    echo "$changelog has no section \"## $version\"; rename \"## Unreleased\"" >&2
    exit 1
fi
printf '%s\n' "$notes"
