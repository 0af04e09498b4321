#!/usr/bin/env bash
# Publishes layers in an account, one version per zip and region, and prints their ARNs, one a line. Needs the AWS CLI and credentials that allow
# lambda:PublishLayerVersion, lambda:ListLayerVersions, lambda:GetLayerVersion and, to share, lambda:AddLayerVersionPermission.
# A zip that is the newest version already is not published again, but shared as told.
# usage: publish.sh --regions REGION[,REGION…] [--name NAME] [--public | --organization ID | --accounts ID[,ID…]] [--dry-run] ZIP…
#   ZIP             what package.sh made, with its .sha256 beside it
#   --name          of the layers, followed by the architecture; outlast if left out
#   --public        anybody may use the version; --organization: those of an AWS organization; --accounts: these accounts. Only this account if left out
#   --dry-run       prints the commands that would change something, and runs none
set -euo pipefail

usage() {
  sed -n '5,9s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

fail() {
  echo "publish.sh: $*" >&2
  exit 1
}

regions=() zips=() shared=() name=outlast dry=
while [ $# -gt 0 ]; do
  case $1 in
  --regions) IFS=, read -ra regions <<<"${2:-}" && shift ;;
  --name) name=${2:-} && shift ;;
  --public) shared+=(everybody '*' '') ;;
  --organization) shared+=("organization-${2:-}" '*' "${2:-}") && shift ;;
  --accounts)
    IFS=, read -ra accounts <<<"${2:-}"
    for account in "${accounts[@]}"; do
      [[ $account =~ ^[0-9]{12}$ ]] || fail "$account is no account id"
      shared+=("account-$account" "$account" '')
    done
    shift
    ;;
  --dry-run) dry=1 ;;
  -*) usage ;;
  *) zips+=("$1") ;;
  esac
  shift || usage
done
[ ${#regions[@]} -gt 0 ] && [ ${#zips[@]} -gt 0 ] && [ -n "$name" ] || usage

# changes COMMAND...: runs it, or says it
changes() {
  if [ -n "$dry" ]; then
    printf 'would run:' >&2
    printf ' %q' "$@" >&2
    echo >&2
  else
    "$@"
  fi
}

# share LAYER REGION VERSION: lets others use it, unless they may already
share() {
  local i
  for ((i = 0; i < ${#shared[@]}; i += 3)); do
    local organization=()
    [ -z "${shared[i + 2]}" ] || organization=(--organization-id "${shared[i + 2]}")
    local problem
    problem=$( (changes aws lambda add-layer-version-permission --region "$2" --layer-name "$1" --version-number "$3" --statement-id "${shared[i]}" \
      --action lambda:GetLayerVersion --principal "${shared[i + 1]}" "${organization[@]}" --output text --query Statement >/dev/null) 2>&1) || {
      # A statement of that name, which says all of what it permits, is there.
      [[ $problem == *ResourceConflictException* ]] || fail "$2: version $3 of $1 is not shared: $problem"
      problem=
    }
    [ -z "$problem" ] || echo "$problem" >&2
  done
}

# Everything is looked at before anything is published.
for zip in "${zips[@]}"; do
  case $zip in
  *outlast-x86_64.zip | *outlast-arm64.zip) ;;
  *) fail "$zip is not called outlast-x86_64.zip or outlast-arm64.zip" ;;
  esac
  [ -f "$zip" ] || fail "there is no $zip: run layer/package.sh"
  (cd "$(dirname "$zip")" && sha256sum --quiet --check "$(basename "$zip").sha256") >&2 || fail "$zip is not what its .sha256 says"
done

for zip in "${zips[@]}"; do
  architecture=${zip##*outlast-}
  architecture=${architecture%.zip}
  layer=$name-$architecture
  hex=$(cut -d ' ' -f 1 "$zip.sha256")
  # As Lambda tells it.
  # shellcheck disable=SC2001 # what was matched is needed
  hash=$(printf '%b' "$(sed 's/../\\x&/g' <<<"$hex")" | base64)
  for region in "${regions[@]}"; do
    publish=(aws lambda publish-layer-version --region "$region" --layer-name "$layer" --zip-file "fileb://$zip"
      --compatible-architectures "$architecture" --license-info Apache-2.0 --description "Keeps telemetry through any backend outage ($hex)"
      --output text --query '[LayerVersionArn,Version,Content.CodeSha256]')
    if [ -n "$dry" ]; then
      changes "${publish[@]}"
      share "$layer" "$region" VERSION
      continue
    fi
    latest=$(aws lambda list-layer-versions --region "$region" --layer-name "$layer" --output text --query 'LayerVersions[0].[Version]')
    if [[ $latest =~ ^[0-9]+$ ]]; then
      read -r arn known < <(aws lambda get-layer-version --region "$region" --layer-name "$layer" --version-number "$latest" \
        --output text --query '[LayerVersionArn,Content.CodeSha256]')
      if [ "$known" = "$hash" ]; then
        echo "$region: version $latest is this zip already" >&2
        share "$layer" "$region" "$latest"
        echo "$arn"
        continue
      fi
    fi
    read -r arn version published < <("${publish[@]}")
    [ "${published:-}" = "$hash" ] || fail "$region: Lambda has ${published:-nothing} instead of $hash"
    share "$layer" "$region" "$version"
    echo "$arn"
  done
done
