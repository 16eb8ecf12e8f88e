package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/keys"
	"github.com/united-containers/ucn/kit/network"
	"github.com/united-containers/ucn/wiring"
)

// AllInOne brings up the network of `ucn up` in this process. logs may be nil.
func AllInOne(ctx context.Context, logs io.Writer) (_ *Network, err error) {
	spans, err := newSpans(ctx)
	if err != nil {
		return nil, err
	}
	n := &Network{Spans: spans, Operators: map[string]sig.PrivateKey{}}
	n.closers = append(n.closers, spans.close)
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	if n.Dir, err = NewDir(); err != nil {
		return nil, err
	}
	cfg := wiring.Default()
	cfg.Data, cfg.API, cfg.REST, cfg.Bus = n.Dir, anyPort, anyPort, anyPort
	n.Engines = []string{filepath.Join(n.Dir, "engine")}
	n.StorageDir = filepath.Join(n.Dir, "storage")
	if err := n.start(ctx, cfg, wiring.Options{Logs: logs, Spans: spans}); err != nil {
		return nil, err
	}
	for _, name := range []string{wiring.Alpha, wiring.Beta} {
		path := filepath.Join(n.Dir, "operators", name+".key")
		if n.Operators[name], err = keys.LoadOrCreateSigning(path); err != nil {
			return nil, fmt.Errorf("operator %s: %w", name, err)
		}
	}
	if n.File, err = network.Load(network.Path(n.Dir)); err != nil {
		return nil, err
	}
	return n, n.openBank(ctx)
}

// anyPort lets the system choose.
const anyPort = "127.0.0.1:0"

// start runs the wired network until Close.
func (n *Network) start(ctx context.Context, cfg wiring.Config, o wiring.Options) error {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	w, err := wiring.New(life, cfg, o)
	if err != nil {
		stop()
		return fmt.Errorf("build the network: %w", err)
	}
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- w.Run(life, func() { close(ready) }) }()
	n.closers = append(n.closers, func() error {
		stop()
		return <-ended
	})
	select {
	case <-ready:
		return nil
	case err := <-ended:
		ended <- nil
		return fmt.Errorf("run the network: %w", err)
	case <-ctx.Done():
		return fmt.Errorf("run the network: %w", ctx.Err())
	}
}
