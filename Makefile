# UCN: the United Container Network. `make help` lists what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BIN := $(CURDIR)/bin
TOOLS := $(CURDIR)/.cache/tools
export GOFLAGS ?= -buildvcs=false
PACKAGES := ./... ./proto/...
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)

.PHONY: help
help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  \033[1m%-11s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## Install what is missing on this machine (podman, runc, ...) through apt
	@tools/setup.sh

.PHONY: build
build: ## Build the ucn binary into bin/
	@mkdir -p $(BIN)
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ucn ./cmd/ucn

.PHONY: cross
cross: ## Build for linux/amd64 and linux/arm64
	@for arch in amd64 arm64; do \
	  echo "build linux/$$arch"; mkdir -p $(BIN)/$$arch; \
	  CGO_ENABLED=0 GOOS=linux GOARCH=$$arch go build -trimpath -ldflags '$(LDFLAGS)' \
	    -o $(BIN)/$$arch/ ./cmd/ucn ./services/*/cmd/*; \
	done

.PHONY: demo
demo: setup build ## Set up, start a local network, run a rendering job on it, show the bill, stop
	@examples/render/demo.sh

.PHONY: up
up: setup build ## Start a local network in the background and say what to try
	@$(BIN)/ucn up --detach

.PHONY: down
down: build ## Stop the network that `make up` started
	@$(BIN)/ucn down

.PHONY: manual
manual: build ## Write docs/cli from the commands
	@rm -rf docs/cli && $(BIN)/ucn man --markdown docs/cli

.PHONY: test
test: setup $(TOOLS)/gotestsum ## Set up and run every test with the race detector
	@tools/test.sh

.PHONY: adversaries
adversaries: ## Play every attack on the rules of money; print what it gained and its bound
	@go test -count=1 -v -run '^TestAdversaries$$' ./test/adversary | \
	  awk '/^attack  /{on=1} /^---|^PASS|^FAIL/{on=0} on; /FAIL/{print}'

.PHONY: check
check: generated lint ## Everything that needs no running network: generated code, lint, house rules
	go vet $(PACKAGES)
	go test ./test/archtest

.PHONY: lint
lint: $(TOOLS)/staticcheck $(TOOLS)/errcheck $(TOOLS)/buf ## gofmt, buf lint, staticcheck, errcheck
	@bad=$$(gofmt -l $$(git ls-files '*.go' | grep -vE '\.pb(\.gw)?\.go$$')); \
	  [ -z "$$bad" ] || { echo "not gofmt'd:"; echo "$$bad"; exit 1; }
	cd proto && $(TOOLS)/buf lint && $(TOOLS)/buf format -d --exit-code
	$(TOOLS)/staticcheck $(PACKAGES)
	$(TOOLS)/errcheck -exclude tools/errcheck.txt -ignoregenerated -ignoretests $(PACKAGES)

GENERATORS := $(addprefix $(TOOLS)/,buf protoc-gen-go protoc-gen-go-grpc protoc-gen-grpc-gateway \
  protoc-gen-openapiv2)

.PHONY: generate
generate: $(GENERATORS) ## Regenerate code from proto/
	cd proto && PATH=$(TOOLS):$$PATH buf generate
	cd proto && PATH=$(TOOLS):$$PATH buf generate --template buf.gen.gateway.yaml

.PHONY: generated
generated: generate ## Fail when committed generated code is not what the protos give
	@git diff --exit-code --stat -- proto services/gateway/gen || \
	  { echo "generated code differs: run 'make generate' and commit"; exit 1; }
	@new=$$(git ls-files --others --exclude-standard -- proto services/gateway/gen); \
	  [ -z "$$new" ] || { echo "generated code is not committed:"; echo "$$new"; exit 1; }

.PHONY: audit
audit: $(TOOLS)/govulncheck ## Look for known vulnerabilities (needs the public database)
	$(TOOLS)/govulncheck $(PACKAGES)

.PHONY: bench
bench: setup ## Run the benchmarks; ONLY=prefix runs those whose names begin so
	@go run ./test/bench -only '$(ONLY)'

$(TOOLS)/%: tools/go.mod
	@mkdir -p $(TOOLS)
	@echo "build $*"
	@cd tools && GOWORK=off go build -o $@ "$$(GOWORK=off go list tool | grep -E '(^|/)$*$$')"
	@touch $@
