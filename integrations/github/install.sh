#!/usr/bin/env bash
# The first step of action.yml: parentage, in an environment of its own.
set -euo pipefail

refuse() {
    echo "::error title=parentage::$1"
    exit 2
}

[[ $PARENTAGE_EXTRAS =~ ^([a-z0-9]+(,[a-z0-9]+)*)?$ ]] || refuse "extras: names with commas between, as recompute,hub"
[[ $PARENTAGE_VERSION =~ ^([0-9][0-9A-Za-z.+!-]*)?$ ]] || refuse "version: a version, as 0.1.0"
extras=${PARENTAGE_EXTRAS:+[$PARENTAGE_EXTRAS]}
source="$GITHUB_ACTION_PATH$extras"
if [[ -n $PARENTAGE_VERSION ]]; then
    source="parentage$extras==$PARENTAGE_VERSION"
fi
home="$RUNNER_TEMP/parentage"
"$PARENTAGE_PYTHON" -m venv "$home"
"$home/bin/python" -m pip install --disable-pip-version-check --quiet -- "$source"
"$home/bin/parentage" --version
