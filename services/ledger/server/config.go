package server

import (
	"errors"
	"log/slog"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/services/ledger"
)

// Bounds of one request and stream.
const (
	// MaxBatchBytes is the most bytes of transactions in one message of a stream.
	MaxBatchBytes = 2 << 20
	// window is how many batches of a stream wait for their block; then it is read no further.
	window = 8
)

// Scope is what a token must allow to submit.
const Scope = "ledger:submit"

// Public names the methods that need no token: reads of a chain are public.
func Public() []string {
	const service = "/ucn.ledger.v1.LedgerService/"
	return []string{
		service + "GetChain", service + "GetAccount", service + "GetEscrow", service + "GetLease",
		service + "GetLeases",
		service + "GetTransaction", service + "GetBlock", service + "ListTransactions",
		service + "ListEscrows", service + "ListEscrowEvents", service + "ListLeases",
		service + "ListCharges", service + "WatchBlocks", service + "Search",
		service + "GetSupply", service + "GetFees", service + "GetHistoryProof",
	}
}

// Config is the server's part of a ledger's configuration: nothing today.
type Config struct{}

// Deps are what a server needs from outside.
type Deps struct {
	// Chains it serves, at least one, by distinct names.
	Chains []*ledger.Chain
	// Faucet is the key of the chains' faucet account; zero for no faucet.
	Faucet sig.PrivateKey
	// Health is told when a chain stops because of a failure; nil for nobody.
	Health func(service string, serving bool)
	// Log, Tracers and Meters may be nil.
	Log     *slog.Logger
	Tracers trace.TracerProvider
	Meters  metric.MeterProvider
}

func (d Deps) validate() error {
	if len(d.Chains) == 0 {
		return errors.New("a ledger holds at least one chain")
	}
	seen := map[string]bool{}
	for _, c := range d.Chains {
		if seen[c.Name()] {
			return errors.New("two chains have the name " + c.Name())
		}
		seen[c.Name()] = true
	}
	return nil
}
