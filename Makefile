# Every command of the platform, in the order of its life. `make` alone prints them.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

PYTHON ?= python3
UV_VERSION ?= 0.13.8
USECASE ?= flight_delay
AS_OF ?=
START ?=
END ?=
RATE ?= 200
VERSION ?=
REASON ?=
AGAIN ?=
WATCH ?=
REQUEST ?=
LABEL ?=
KEY ?=
# Which cluster the commands of a cluster mean. Empty: the one of `make cluster`, never another.
CONTEXT ?=
ENV ?=
REGION ?=
NAMESPACE ?= mlplatform
PROFILE ?= minimal
VALUES ?=
YES ?=
CLUSTER ?=
TRAIN ?=
# Where `make images` pushes to: the registry of `make cluster`.
REGISTRY ?= localhost:5001
CONTAINER_TOOL ?=
# More of them only help where there are more cores: many tests start servers.
TEST_PROCESSES ?= 2
# They need other tools, and have targets of their own.
ELSEWHERE := cluster delivery helm terraform
# Through the environment: whatever they hold, no shell reads it.
export REASON REQUEST

BOOTSTRAP := .bootstrap
# uv on PATH when there is one, else one of our own: a bare machine needs only Python.
UV := $(shell command -v uv || echo $(CURDIR)/$(BOOTSTRAP)/bin/uv)
BIN := .venv/bin

.PHONY: help
help: ## Print this list
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n%s\n", substr($$0, 5)} \
	  /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nVariables: USECASE=%s  AS_OF=<UTC time the run looks from>  RATE=%s (requests/s)\n' \
	  "$(USECASE)" "$(RATE)"

##@ Set up
.PHONY: setup
setup: .venv/.ready local/triton/.venv/.ready ## Install uv and every dependency into .venv (the other targets do it)

.venv/.ready: uv.lock pyproject.toml
	@if ! command -v $(UV) >/dev/null; then \
	  echo "installing uv $(UV_VERSION) into $(BOOTSTRAP)"; \
	  { $(PYTHON) -m venv $(BOOTSTRAP) && $(BOOTSTRAP)/bin/pip install --quiet uv==$(UV_VERSION); } || \
	  { rm -rf $(BOOTSTRAP); $(PYTHON) -m pip install --quiet --target $(BOOTSTRAP) uv==$(UV_VERSION); } || \
	  { echo "Python needs venv or pip: on Debian, apt install python3-venv" >&2; exit 1; }; \
	fi
	$(UV) sync --frozen --compile-bytecode
	@touch $@

# The model server needs an older numpy than the platform: an environment of its own.
local/triton/.venv/.ready: local/triton/uv.lock local/triton/pyproject.toml | .venv/.ready
	cd local/triton && $(UV) sync --frozen
	@du -shc .venv local/triton/.venv $(wildcard $(BOOTSTRAP)) | tail -n 1 | sed 's/total/on disk, all of it in this folder/'
	@touch $@

##@ Run the loop on this machine
.PHONY: demo
demo: setup ## The whole loop on real flights: train, serve, watch, retrain, roll out
	@$(BIN)/python -m local.demo --usecase $(USECASE) --rate $(RATE) $(if $(AS_OF),--as-of $(AS_OF))

.PHONY: serve
serve: setup ## Serve the model on this machine until Ctrl-C; prints a request that works
	@$(BIN)/python -m local.serve --usecase $(USECASE) $(if $(AS_OF),--as-of $(AS_OF))

.PHONY: rollout
rollout: setup ## Roll a version out while it is served: VERSION= (newest), REASON=, AGAIN=1
	@$(BIN)/python -m local.rollout rollout --usecase $(USECASE) $(if $(VERSION),--version $(VERSION)) $(if $(AGAIN),--again) --reason "$$REASON"

.PHONY: rollout-status
rollout-status: setup ## How far the rollout is: traffic, evidence, what it waits for; WATCH=1 stays
	@$(BIN)/python -m local.rollout status --usecase $(USECASE) $(if $(WATCH),--watch)

.PHONY: promote
promote: setup ## Send the new version on to its soak, or end the soak, without further evidence
	@$(BIN)/python -m local.rollout promote --usecase $(USECASE) --reason "$$REASON"

.PHONY: rollback
rollback: setup ## Give all traffic back to the version before, also after a promotion
	@$(BIN)/python -m local.rollout rollback --usecase $(USECASE) --reason "$$REASON"

.PHONY: abort
abort: setup ## End the rollout: no traffic for the new version
	@$(BIN)/python -m local.rollout abort --usecase $(USECASE) --reason "$$REASON"

.PHONY: pause
pause: setup ## Stay in this step; harm still ends the rollout
	@$(BIN)/python -m local.rollout pause --usecase $(USECASE) --reason "$$REASON"

.PHONY: resume
resume: setup ## Go on after a pause
	@$(BIN)/python -m local.rollout resume --usecase $(USECASE) --reason "$$REASON"

.PHONY: why
why: setup ## The story of a version, from the ledger: VERSION=
	@$(BIN)/python -m local.rollout why --usecase $(USECASE) --version $(or $(VERSION),$(error name the version: make why VERSION=2))

.PHONY: retrain
retrain: setup ## Train anew within the limits: REASON="a new route"; none: go on with what is asked
	@$(BIN)/python -m local.retraining retrain --usecase $(USECASE) --reason "$$REASON"

.PHONY: trigger
trigger: setup ## How the retraining trigger stands: windows, what it waits for, budget, requests
	@$(BIN)/python -m local.retraining trigger --usecase $(USECASE)

.PHONY: approve
approve: setup ## Let the request run that waits for approval: KEY= (the one that waits), REASON=
	@$(BIN)/python -m local.retraining approve --usecase $(USECASE) $(if $(KEY),--key $(KEY)) --reason "$$REASON"

.PHONY: deny
deny: setup ## Refuse the request that waits for approval: KEY= (the one that waits), REASON=
	@$(BIN)/python -m local.retraining deny --usecase $(USECASE) $(if $(KEY),--key $(KEY)) --reason "$$REASON"

.PHONY: reset-trigger
reset-trigger: setup ## Let the trigger train again after runs that brought no better model
	@$(BIN)/python -m local.retraining reset --usecase $(USECASE) --reason "$$REASON"

.PHONY: review
review: setup ## Decisions that wait for a person; REQUEST= LABEL=1, 0 or none, REASON= answers one
	@$(BIN)/python -m local.retraining review --usecase $(USECASE) --request "$$REQUEST" $(if $(LABEL),--label $(LABEL)) $(if $(AGAIN),--again) --note "$$REASON"

.PHONY: experiment
experiment: setup ## Plan or read an A/B experiment: ARGS="size --baseline 0.2 --effect 0.01", ARGS=read
	@$(BIN)/python -m local.experiment $(or $(ARGS),--help)

.PHONY: batch-score
batch-score: setup ## Score a window with the registered model, to Parquet (after `make demo`)
	@$(BIN)/python -m local.batch_score --usecase $(USECASE) $(if $(START),--start $(START)) $(if $(END),--end $(END))

.PHONY: mlflow-ui
mlflow-ui: setup ## Serve the MLflow UI over what the demo left, until Ctrl-C
	@$(BIN)/python -m local.demo --ui

.PHONY: compile
compile: setup ## Compile the pipelines to build/pipelines
	@$(BIN)/python -m pipelines.compile

##@ Run it in a cluster
PLACE = --namespace $(NAMESPACE) $(if $(CONTEXT),--context $(CONTEXT)) $(if $(ENV),--env $(ENV))
WHAT = --profile $(PROFILE) $(if $(VALUES),--values $(VALUES))

.PHONY: cluster
cluster: setup ## A kind cluster with a registry of its own, for `make deploy`
	@$(BIN)/python -m deploy cluster $(if $(CONTAINER_TOOL),--tool $(CONTAINER_TOOL))

.PHONY: images
images: setup ## Build and push one image for each role: REGISTRY=, CONTAINER_TOOL=docker or podman
	@$(BIN)/python -m deploy images --registry $(REGISTRY) $(if $(CONTAINER_TOOL),--tool $(CONTAINER_TOOL)) $(ARGS)

.PHONY: deploy
deploy: setup ## Install or change the platform: PROFILE=minimal, full, gpu; CONTEXT= or ENV=, VALUES=file
	@$(BIN)/python -m deploy deploy $(PLACE) $(WHAT) $(if $(filter 0,$(TRAIN)),--no-train)

.PHONY: status
status: setup ## How the platform is: workloads, rollouts, what each waits for, runs
	@$(BIN)/python -m deploy status $(PLACE)

.PHONY: doctor
doctor: setup ## What keeps it from running: versions, room, volumes, images; each pending pod in words
	@$(BIN)/python -m deploy doctor $(PLACE) $(WHAT)

.PHONY: submit
submit: setup ## Train in the cluster: AS_OF=, KEY= (a second one of a key starts nothing)
	@$(BIN)/python -m deploy submit $(PLACE) --usecase $(USECASE) $(if $(AS_OF),--as-of $(AS_OF)) $(if $(KEY),--key $(KEY))

.PHONY: upload
upload: setup ## Give Kubeflow the pipelines of this code, each version under its own name
	@$(BIN)/python -m deploy upload $(PLACE)

.PHONY: predict
predict: setup ## Ask the gateway for one prediction, and refuse one that no model gave
	@$(BIN)/python -m deploy predict $(PLACE) --usecase $(USECASE)

.PHONY: ui
ui: setup ## Ports to its pages, and a page of links, until Ctrl-C
	@$(BIN)/python -m deploy ui $(PLACE)

.PHONY: upgrade
upgrade: setup ## Show what `make deploy` would change, ask (YES=1: do not), and do it
	@$(BIN)/python -m deploy upgrade $(PLACE) $(WHAT) $(if $(YES),--yes)

.PHONY: backup
backup: setup ## Copy what cannot be made again out of the cluster: OUT=folder, SECRETS=1 (the Secrets too)
	@$(BIN)/python -m deploy backup $(PLACE) $(if $(OUT),--out $(OUT)) $(if $(SECRETS),--with-secrets)

.PHONY: restore
restore: setup ## Put a backup back: FROM=folder, PARTS="ledger registry", REPLACE=1, SECRETS=1 (these alone)
	@$(BIN)/python -m deploy restore $(PLACE) $(or $(FROM),$(error name the backup: make restore FROM=folder)) $(if $(PARTS),--parts $(PARTS)) $(if $(REPLACE),--replace) $(if $(SECRETS),--secrets)

.PHONY: destroy
destroy: setup ## Remove the platform and its data: asks (YES=1: does not); CLUSTER=1 the kind cluster too
	@$(BIN)/python -m deploy destroy $(PLACE) $(if $(YES),--yes) $(if $(CLUSTER),--cluster $(if $(CONTAINER_TOOL),--tool $(CONTAINER_TOOL)))

##@ Cloud
IN = $(or $(ENV),$(error name the environment: ENV=dev or ENV=prod)) $(if $(REGION),--region $(REGION))

.PHONY: infra-plan
infra-plan: setup ## What would change in AWS, and what a month would cost: ENV=dev or prod; needs terraform
	@$(BIN)/python -m deploy.infra plan $(IN)

.PHONY: infra-apply
infra-apply: setup ## Make it so, after a look: asks (YES=1: does not); writes what `make deploy ENV=` needs
	@$(BIN)/python -m deploy.infra apply $(IN) $(if $(YES),--yes)

.PHONY: infra-drift
infra-drift: setup ## Does AWS still equal its description? A difference fails, and is in build/infra
	@$(BIN)/python -m deploy.infra drift $(IN)

.PHONY: infra-destroy
infra-destroy: setup ## Remove it with its data, load balancers and GPU nodes first: asks (YES=1: does not)
	@$(BIN)/python -m deploy.infra destroy $(IN) $(if $(YES),--yes)

##@ Deliver
.PHONY: scan
scan: setup ## What is in each image, and which known vulnerabilities: needs trivy
	@$(BIN)/python -m deploy.provenance scan

.PHONY: sign
sign: setup ## Sign the images without a key: from a workflow; needs cosign
	@$(BIN)/python -m deploy.provenance sign

.PHONY: verify
verify: setup ## Refuse images that SIGNER_IDENTITY has not signed: needs cosign
	@$(BIN)/python -m deploy.provenance verify

##@ Check
.PHONY: lint
lint: setup ## Style, types, import rules, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m mlplatform.spec check usecases/*/usecase.yaml
	$(BIN)/python -m mlplatform.spec schema --check

.PHONY: format
format: setup ## Rewrite the code in the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: golden
golden: setup ## Rewrite the golden files of pipelines, alerts and chart; review the difference
	$(BIN)/python -m tests.contract.golden
	$(BIN)/python -m tests.helm.golden

.PHONY: test
test: setup ## Every test of the code, the whole loop with real servers included
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ELSEWHERE:%=--ignore=tests/%)

.PHONY: test-core
test-core: setup ## The tests that take seconds
	$(BIN)/pytest -m "not loop" $(ELSEWHERE:%=--ignore=tests/%)

.PHONY: test-helm
test-helm: setup ## The chart: golden renders, schemas, security; needs helm
	$(BIN)/pytest tests/helm

.PHONY: test-delivery
test-delivery: setup ## The workflows: linters, permissions, pins; needs go and uv
	$(BIN)/pytest tests/delivery

.PHONY: test-cluster
test-cluster: images ## The platform in a real cluster, faults included: the one of KUBECONFIG
	$(BIN)/pytest tests/cluster --cluster

.PHONY: test-infra
test-infra: setup ## Terraform without an account: apply and destroy on loopback, checkov; needs terraform
	$(BIN)/pytest tests/terraform

.PHONY: test-thorough
test-thorough: setup ## The point-in-time join against its oracle, ten thousand examples
	HYPOTHESIS_PROFILE=thorough $(BIN)/pytest tests/unit/joins

##@ Measure
.PHONY: bench-pit
bench-pit: setup ## The training-set build beside Feast's stores and plain DuckDB
	@$(BIN)/python -m bench.pit

.PHONY: bench-serving
bench-serving: setup ## Feature reads and whole requests beside Feast and MLflow (after `make demo`)
	@$(BIN)/python -m bench.serving

.PHONY: bench-faults
bench-faults: setup ## Kill, stop and pause the servers under 100 requests/s (after `make demo`)
	@$(BIN)/python -m bench.faults

.PHONY: bench-feeds
bench-feeds: setup ## Broken feeds, true shifts and unchanged days through the monitor
	@$(BIN)/python -m bench.feeds

.PHONY: bench-rollout
bench-rollout: setup ## Simulated rollouts, 10,000 of each class, beside Argo's and Flagger's rules
	@$(BIN)/python -m bench.rollout

.PHONY: bench-drift
bench-drift: setup ## False alarms and planted shifts of the drift detector, beside Evidently's defaults
	@$(BIN)/python -m bench.drift

##@ Clean up
.PHONY: clean
clean: ## Remove what runs have written (build/), not the installation
	rm -rf build
