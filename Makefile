# Antipode's development loop; `make` alone lists the targets.
#
# Tools are pinned here and installed into .tools/, never into the system, except for what only a distribution
# packages (see .ci/packages).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory --no-builtin-rules
.DEFAULT_GOAL := help

MODULE := github.com/antipode-registry/antipode
BIN := $(CURDIR)/.tools/bin
STAMPS := $(CURDIR)/.tools/versions
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
DAEMONS := primaryd secondaryd

# Flags for one's own runs, such as `make test-fast TEST_FLAGS='-run Retag' PACKAGES=./e2e`.
PACKAGES ?= ./...
TEST_FLAGS ?=

# The generators and the libraries that their output runs on must agree.
GATEWAY := github.com/grpc-ecosystem/grpc-gateway/v2
PROTOBUF_VERSION := $(shell awk '$$1 == "google.golang.org/protobuf" { print $$2; exit }' go.mod)
GATEWAY_VERSION := $(shell awk '$$1 == "$(GATEWAY)" { print $$2; exit }' go.mod)

# NAME=PACKAGE@VERSION. A changed version installs the tool again.
PINNED := \
	registry=github.com/distribution/distribution/v3/cmd/registry@v3.1.2 \
	buf=github.com/bufbuild/buf/cmd/buf@v1.75.0 \
	protoc-gen-go=google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOBUF_VERSION) \
	protoc-gen-go-grpc=google.golang.org/grpc/cmd/protoc-gen-go-grpc@v1.6.2 \
	protoc-gen-grpc-gateway=$(GATEWAY)/protoc-gen-grpc-gateway@$(GATEWAY_VERSION) \
	protoc-gen-openapiv2=$(GATEWAY)/protoc-gen-openapiv2@$(GATEWAY_VERSION) \
	gofumpt=mvdan.cc/gofumpt@v0.12.0 \
	golangci-lint=github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0 \
	grpcurl=github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.4 \
	crane=github.com/google/go-containerregistry/cmd/crane@v0.22.1

# name, package and version of a NAME=PACKAGE@VERSION; a stamp is NAME@VERSION.
name = $(firstword $(subst =, ,$(1)))
package = $(lastword $(subst =, ,$(firstword $(subst @, ,$(1)))))
version = $(lastword $(subst @, ,$(1)))
stamp = $(STAMPS)/$(call name,$(1))@$(call version,$(1))
pinned = $(filter $(1)=%,$(PINNED))

# Each variable ending in _STAMPS is what a target needs of the tools.
ALL_STAMPS := $(foreach tool,$(PINNED),$(call stamp,$(tool)))
GENERATORS := protoc-gen-go protoc-gen-go-grpc protoc-gen-grpc-gateway protoc-gen-openapiv2
PROTO_STAMPS := $(foreach tool,buf $(GENERATORS),$(call stamp,$(call pinned,$(tool))))
LINT_STAMPS := $(PROTO_STAMPS) $(foreach tool,gofumpt golangci-lint,$(call stamp,$(call pinned,$(tool))))
DEMO_STAMPS := $(foreach tool,registry grpcurl,$(call stamp,$(call pinned,$(tool))))

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: tools
tools: $(ALL_STAMPS) ## Install the pinned tools, and what the tests need of the system
	@.ci/packages

define install
$(call stamp,$(1)):
	@echo "install $(call name,$(1)) $(call version,$(1))"
	@mkdir -p $(STAMPS)
	@GOBIN=$(BIN) GOFLAGS= go install $(call package,$(1))@$(call version,$(1))
	@rm -f $(STAMPS)/$(call name,$(1))@*
	@touch $$@
endef
$(foreach tool,$(PINNED),$(eval $(call install,$(tool))))

.PHONY: build
build: ## Build bin/primaryd and bin/secondaryd
	@echo "build $(DAEMONS) $(VERSION)"
	@go build -trimpath -ldflags '-X $(MODULE)/internal/telemetry.version=$(VERSION)' -o bin/ $(DAEMONS:%=./%)

.PHONY: generate
generate: $(PROTO_STAMPS) ## Generate gen/ and the OpenAPI documents from proto/
	@echo "generate gen"
	@$(BIN)/buf generate

# What the references of keys and metrics are made by, and compared by.
REFERENCES := go test -count=1 -p 1 -run '(Configuration|Metrics)(Is|Are)Documented' $(DAEMONS:%=./%)

.PHONY: docs
docs: ## Generate the tables of docs/configuration.md and docs/metrics.md from the code
	@echo "generate docs"
	@ANTIPODE_DOCS=write $(REFERENCES)

.PHONY: lint
lint: $(LINT_STAMPS) ## Check formatting, lint rules, protos, and that gen/ and the references in docs/ are current
	@echo "lint formatting"
	@unformatted=$$(find . \( -name '.?*' -o -path ./gen \) -prune -o -name '*.go' -print0 \
		| xargs -0 $(BIN)/gofumpt -l); \
	if [[ -n $$unformatted ]]; then echo "run gofumpt -w on:" $$unformatted >&2; exit 1; fi
	@echo "lint code"
	@$(BIN)/golangci-lint run ./...
	@echo "lint protos"
	@$(BIN)/buf lint
	@BUF=$(BIN)/buf .ci/breaking
	@echo "lint generated code"
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(BIN)/buf generate -o "$$fresh"; \
	for made in gen internal/gateway/openapi; do diff -rq "$$made" "$$fresh/$$made" >&2 || \
		{ echo "$$made/ is not what proto/ says: run make generate" >&2; exit 1; }; done
	@echo "lint generated docs"
	@$(REFERENCES)

.PHONY: test
test: tools build lint ## Everything: build, lint, vet, and all tests under the race detector
	@echo "vet"
	@go vet ./...
	@echo "test with the race detector"
	@go test -race -timeout 25m -p 2 $(TEST_FLAGS) $(PACKAGES)

.PHONY: test-fast
test-fast: tools ## The tests alone, without the race detector
	@go test -timeout 10m $(TEST_FLAGS) $(PACKAGES)

FUZZTIME ?= 30s
FUZZERS := internal/config:FuzzLoad $(DAEMONS:%=%:FuzzSettings) \
	$(foreach target,Envelope Webhooks CloudEvents,primaryd/internal/notification:Fuzz$(target)) \
	$(foreach side,primaryd secondaryd,$(side)/internal/service:FuzzPage) \
	primaryd/internal/node:FuzzGrants \
	$(foreach target,Document Graph,internal/transfer:Fuzz$(target)) \
	$(foreach target,Listings Manifest Headers References,internal/registry:Fuzz$(target))

.PHONY: fuzz
fuzz: ## Let each fuzzer look for new failures; FUZZTIME=5m for longer
	@for fuzzer in $(FUZZERS); do \
		echo "fuzz $$fuzzer for $(FUZZTIME)"; \
		nice go test ./$${fuzzer%:*} -run '^$$' -fuzz "^$${fuzzer#*:}$$" -fuzztime $(FUZZTIME); \
	done

.PHONY: audit
audit: ## Compare what is built in with the known vulnerabilities; needs https://vuln.go.dev
	@GOFLAGS= go run golang.org/x/vuln/cmd/govulncheck@v1.1.4 ./...

.PHONY: sbom
sbom: build ## Say what each daemon is made of, as CycloneDX: bin/DAEMON.cdx.json
	@echo "sbom $(DAEMONS:%=bin/%.cdx.json)"
	@go run ./deploy/sbom $(DAEMONS:%=bin/%)

.PHONY: demo
demo: $(DEMO_STAMPS) build ## Show two registries and both daemons at work; ONESHOT=1 checks and exits
	@ONESHOT='$(ONESHOT)' go run ./demo

# What `make bench` measures beside the pair; skopeo is a distribution's to install.
PEERS := \
	regsync=github.com/regclient/regclient/cmd/regsync@v0.11.7 \
	oras=oras.land/oras/cmd/oras@v1.3.6
$(foreach tool,$(PEERS),$(eval $(call install,$(tool))))
WORKLOADS ?= W1,W2,W3,W4,W4r,W5,W6
PROGRAMS ?= floor,floor-by-tag,antipode,regsync,crane,oras$(if $(shell command -v skopeo),$(comma)skopeo)
RTT ?= 0s,50ms
RUNS ?= 3
RESULTS ?= $(CURDIR)/bench.jsonl
comma := ,

.PHONY: bench
bench: tools build $(foreach tool,$(PEERS),$(call stamp,$(tool))) ## Measure the pair beside other copiers: WORKLOADS=W1,...,W6 PROGRAMS=... RTT=0s,50ms RUNS=3 PROFILE=1
	@ANTIPODE_BENCH_WORKLOADS=$(WORKLOADS) ANTIPODE_BENCH_PROGRAMS=$(PROGRAMS) ANTIPODE_BENCH_RTT=$(RTT) \
		ANTIPODE_BENCH_RUNS=$(RUNS) ANTIPODE_BENCH_BANDWIDTH=$(BANDWIDTH) ANTIPODE_BENCH_SCALE=$(SCALE) ANTIPODE_BENCH_RESULTS=$(RESULTS) \
		$(if $(PROFILE),ANTIPODE_BENCH_DAEMONS=bin/profiled ANTIPODE_BENCH_PROFILES=$(CURDIR)/bin/profiled) \
		go test ./bench -v -run '^$$' -bench Copy -benchtime 1x -timeout 12h

ifdef PROFILE
bench: profiled
endif

.PHONY: profiled
profiled: ## Build the daemons so that `make bench PROFILE=1` gets their CPU profiles, in bin/profiled
	@echo "build $(DAEMONS) with profiles"
	@mkdir -p bin/profiled
	@for daemon in $(DAEMONS); do \
		printf '{"Replace":{"%s":"%s"}}' "$(CURDIR)/$$daemon/profile.go" "$(CURDIR)/bench/testdata/profile.go" \
			> bin/profiled/overlay.json; \
		go build -overlay bin/profiled/overlay.json -o bin/profiled/ ./$$daemon; \
	done

.PHONY: bench-report
bench-report: ## Make the tables and plots of docs/performance.md from RESULTS
	@cmp -s $(RESULTS) bench/testdata/results.jsonl || cp $(RESULTS) bench/testdata/results.jsonl
	@ANTIPODE_DOCS=write go test ./bench -count=1 -run Reported

.PHONY: torture
torture: $(DEMO_STAMPS) ## Random work and faults against a whole pair; SEED=1 DURATION=2m DATABASE=sqlite|postgres
	@go run ./torture -seed '$(or $(SEED),1)' -duration '$(or $(DURATION),2m)' -database '$(or $(DATABASE),sqlite)'

.PHONY: clean
clean: ## Remove what was built; the tools in .tools/ stay
	@rm -rf bin .demo
