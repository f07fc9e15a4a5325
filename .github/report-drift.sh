#!/usr/bin/env bash
# Keeps one issue for each environment: open while its infrastructure differs from its description.
# Wants ENVIRONMENT, OUTCOME (of `make infra-drift`), and gh with GH_TOKEN and GH_REPO.
set -euo pipefail

label=infrastructure-drift
export TITLE="The infrastructure of $ENVIRONMENT differs from its description"
difference=build/infra/$ENVIRONMENT/drift.md

if [ "$OUTCOME" != success ] && [ ! -s "$difference" ]; then
  echo "::error::${ENVIRONMENT} could not be compared: the step before says why"
  exit 1
fi

number=$(gh issue list --label "$label" --state open --limit 100 --json number,title \
  --jq 'map(select(.title == env.TITLE))[0].number // empty')

if [ "$OUTCOME" = success ]; then
  echo "The infrastructure of $ENVIRONMENT equals its description." | tee -a "$GITHUB_STEP_SUMMARY"
  if [ -n "$number" ]; then
    gh issue close "$number" --comment "Tonight there is no difference any more."
  fi
  exit 0
fi

cat "$difference" >>"$GITHUB_STEP_SUMMARY"
echo "::warning::$TITLE"
if [ -n "$number" ]; then
  gh issue edit "$number" --body-file "$difference"
else
  gh label create "$label" --description "Found by the nightly comparison" --force
  gh issue create --title "$TITLE" --label "$label" --body-file "$difference"
fi
