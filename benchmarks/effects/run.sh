#!/bin/sh
# Run all experiments of this directory into a directory (experiments by default); repeat the command to continue.
set -u
here=$(dirname "$0")
target=${1:-experiments}
failed=0
for file in "$here"/*.yaml; do
  name=$(basename "$file" .yaml)
  [ "$name" = base ] && continue
  gptkit compare "$file" -o "$target/$name" || { echo "run.sh: $name did not finish" >&2; failed=1; }
done
exit $failed
