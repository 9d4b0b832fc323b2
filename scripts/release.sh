#!/usr/bin/env bash
# Makes a release: `scripts/release.sh [--dry-run] 0.3.0`, or `make release VERSION=0.3.0`.
#
# It looks that nothing is uncommitted and that CHANGELOG.md has a section for the version. Then, in a checkout of its
# own, it writes the version where it stands and today's date into the section, commits, builds an sdist and a wheel,
# installs the wheel and asks it for its version and its table of statuses. Only then the branch gets the commit and the
# tag. Nothing is pushed. With --dry-run all of it is done but the last step, and what was built is thrown away.
#
# It does not run the tests: release what CI has passed.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() { echo "usage: $0 [--dry-run] VERSION" >&2; exit 2; }
fail() { echo "release: $*" >&2; exit 1; }

is_dry=false version=
for word in "$@"; do
    case $word in
        --dry-run) is_dry=true ;;
        -*) usage ;;
        *) test -z "$version" || usage; version=$word ;;
    esac
done
[[ $version =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]] || usage
python=$PWD/.venv/bin/python
"$python" -c 'import build' 2> /dev/null || fail "the builder is missing: make .venv/made-tools"

# What may not be released ---------------------------------------------------------------------------------------------

current=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
newest=$(printf '%s\n' "$current" "$version" | sort --version-sort | tail -1)
test "$newest" = "$version" || fail "$version is older than $current, the version in pyproject.toml"
test -z "$(git status --porcelain)" || fail "there are uncommitted changes: git status"
test -z "$(git tag --list "v$version")" || fail "there is a tag v$version already"
# shellcheck disable=SC2016
section='index($0, "## ") == 1 { inside = index($0, begin) == 1; next } inside'
notes=$(awk -v begin="## [$version]" "$section" CHANGELOG.md | sed -e '/./,$!d')
test -n "$notes" || fail "CHANGELOG.md has no section ## [$version], or nothing in it"

# The version, in every place where it stands --------------------------------------------------------------------------

bump() {
    sed -i "s/^version = \".*\"$/version = \"$version\"/" pyproject.toml
    # What the service says when it is not installed.
    grep -rlE '^ +VERSION = "[0-9.]+"$' src | xargs sed -i -E "s/^( +VERSION = )\"[0-9.]+\"$/\1\"$version\"/"
    sed -i "s/^## \[$version\] - [Uu]nreleased$/## [$version] - $(date +%F)/" CHANGELOG.md
    sed -i -E "/^info:/,/^[a-z]/ s/^(  version: ).*/\1$version/" docs/openapi.yaml
}

scratch=$(mktemp -d)
checkout=$scratch/orders-$version
trap 'git worktree remove --force "$checkout" 2> /dev/null; rm -rf "$scratch"' EXIT
git worktree add --quiet --detach "$checkout"
(
    cd "$checkout"
    bump
    if ! git diff --quiet; then
        git --no-pager diff --stat
        git commit --quiet --all --message "Version $version"
    fi
    echo "release: building from $(git rev-parse --short HEAD)"
    "$python" -m build --outdir "$scratch/dist" . > "$scratch/said" 2>&1 || { cat "$scratch/said"; exit 1; }
    "$python" -m venv "$scratch/venv"
    "$scratch/venv/bin/pip" install --quiet --disable-pip-version-check "$scratch"/dist/*.whl
    cd /  # not in the checkout: what was installed is asked
    said=$("$scratch/venv/bin/orders" --version)
    test "$said" = "orders $version" || fail "what was built says that it is $said"
    "$scratch/venv/bin/orders" workflow > /dev/null || fail "what was built has no table of statuses"
)
commit=$(git -C "$checkout" rev-parse HEAD)
echo "release: $(cd "$scratch/dist" && echo ./*) install and say that they are $version"
printf 'release: the notes of v%s:\n%s\n' "$version" "$notes"
if $is_dry; then
    echo "release: a dry run; nothing was changed"
    exit
fi

git merge --quiet --ff-only "$commit"
git tag --annotate --cleanup=verbatim --message "Version $version" --message "$notes" "v$version" "$commit"
mkdir -p dist
cp "$scratch"/dist/* dist/
echo "release: made the tag v$version and dist/; now: git push --follow-tags"
