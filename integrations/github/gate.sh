#!/usr/bin/env bash
# The second step of action.yml: asks the gate, and hands its answer to the workflow.
# Inputs are read from the environment only; none of them is ever part of a command's text.
set -euo pipefail

refuse() {
    echo "::error title=parentage::$1"
    exit 2
}

case $PARENTAGE_MODE in
    upload | download | benchmark) ;;
    *) refuse "mode: upload, download or benchmark" ;;
esac
home="$RUNNER_TEMP/parentage"
mkdir -p "$home"
report="$home/report.json"
rm -f "$report"

arguments=("gate" "$PARENTAGE_MODE" "--gate=$PARENTAGE_GATE" "--output=json=$report")
arguments+=("--output=github=$home/annotations" "--output=markdown=$home/summary.md")
each() { # OPTION LINES: give an option once for every line
    local line
    while IFS= read -r line; do
        line=${line%$'\r'}
        if [[ -n $line ]]; then arguments+=("$1=$line"); fi
    done <<<"$2"
}
each --parent "$PARENTAGE_PARENTS"
each --key "$PARENTAGE_KEYS"
if [[ -n $PARENTAGE_RELEASE ]]; then arguments+=("--release=$PARENTAGE_RELEASE"); fi
if [[ -n $PARENTAGE_SAMPLES ]]; then arguments+=("--samples-file=$PARENTAGE_SAMPLES"); fi
if [[ -n $PARENTAGE_DEVICE ]]; then arguments+=("--device=$PARENTAGE_DEVICE"); fi
if [[ -n $PARENTAGE_SARIF ]]; then arguments+=("--output=sarif=$PARENTAGE_SARIF"); fi
if [[ -n $PARENTAGE_JUNIT ]]; then arguments+=("--output=junit=$PARENTAGE_JUNIT"); fi
if [[ -n $PARENTAGE_HF_ENDPOINT ]]; then export HF_ENDPOINT=$PARENTAGE_HF_ENDPOINT; fi
if [[ -n $PARENTAGE_HF_TOKEN ]]; then export HF_TOKEN=$PARENTAGE_HF_TOKEN; fi
unset PARENTAGE_HF_TOKEN

# What is printed quotes strangers: until it is over, the runner reads no commands from it.
quiet=$("$home/bin/python" -c "import secrets; print(secrets.token_hex(16))")
echo "::stop-commands::$quiet"
code=0
"$home/bin/parentage" "${arguments[@]}" -- "$PARENTAGE_TARGET" || code=$?
echo
echo "::$quiet::"

if [[ -f $home/annotations ]]; then cat "$home/annotations"; fi
if [[ $PARENTAGE_SUMMARY == true && -f $home/summary.md ]]; then
    cat "$home/summary.md" >>"$GITHUB_STEP_SUMMARY"
fi
"$home/bin/python" "$GITHUB_ACTION_PATH/integrations/github/outputs.py" "$report" "$code" >>"$GITHUB_OUTPUT"
if [[ $PARENTAGE_EXIT_ZERO == true ]]; then exit 0; fi
exit "$code"
