package server

import (
	"context"
	"net"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
)

// Bounds of streams of blocks.
const (
	// maxWatchers is how many of other processes are open at once; maxOfAddress how many of one
	// address, so that few cannot keep all others out. Those of this process, such as its gateway's,
	// take nobody's room and find theirs.
	maxWatchers  = 1024
	maxOfAddress = 128
	// stallTime is how long a reader may take for a block, and for every stallBytes of it.
	stallTime  = 30 * time.Second
	stallBytes = 1 << 20
)

// watchers are the open streams of blocks by address.
type watchers struct {
	mu   sync.Mutex // guards both
	all  int
	from map[string]int
}

// enter counts a stream, until leave is called.
func (w *watchers) enter(address string) (leave func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case address != own && w.all >= maxWatchers:
		return nil, fault.New(fault.ResourceExhausted, ledger.ReasonTooManyWatchers,
			"%d streams of blocks are open, no more are served; try again later", maxWatchers)
	case w.from[address] >= maxOfAddress:
		return nil, fault.New(fault.ResourceExhausted, ledger.ReasonTooManyWatchers,
			"%d streams of blocks are open from this address, no more are served", maxOfAddress)
	}
	if w.from[address]++; address != own {
		w.all++
	}
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if address != own {
			w.all--
		}
		if w.from[address]--; w.from[address] == 0 {
			delete(w.from, address)
		}
	}, nil
}

// own is the address of all calls from this process.
const own = ""

// addressOf returns whose share a call is of: that of an rpc.Origin, or own.
func addressOf(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return own
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return own
	}
	return rpc.Origin(host)
}

// WatchBlocks implements the service.
func (s *Server) WatchBlocks(r *ledgerv1.WatchBlocksRequest,
	stream ledgerv1.LedgerService_WatchBlocksServer) error {
	c, err := s.chain(r.GetChain())
	if err != nil {
		return err
	}
	of, filtered, err := watched(r)
	if err != nil {
		return err
	}
	leave, err := s.watchers.enter(addressOf(stream.Context()))
	if err != nil {
		return err
	}
	defer leave()
	from := r.GetFrom()
	if r.GetAfterHead() {
		from = c.Head().Height + 1
	}
	send := func(found *ledger.Found, meant []uint32) error {
		m, err := blockMessage(found, r.GetBodies() && len(found.Raw) <= maxBlock)
		if err != nil {
			return err
		}
		return sendBlock(stream, &ledgerv1.WatchBlocksResponse{
			Hash: found.Hash[:], Block: m, Transactions: meant,
		})
	}
	if filtered {
		return c.WatchList(stream.Context(), of, from, send)
	}
	return c.Watch(stream.Context(), from, func(found *ledger.Found) error {
		return send(found, nil)
	})
}

// watched returns the list that a stream follows; false for all blocks.
func watched(r *ledgerv1.WatchBlocksRequest) (of ledger.ListID, filtered bool, err error) {
	switch {
	case len(r.GetAccount()) > 0 && len(r.GetEscrow()) > 0:
		return of, false, bad("account and escrow are not watched together")
	case len(r.GetAccount()) > 0:
		of.List = ledger.ListAccount
		of.ID, err = id[ledger.Hash](r.GetAccount(), "account")
	case len(r.GetEscrow()) > 0:
		of.List = ledger.ListEvents
		of.ID, err = id[ledger.Hash](r.GetEscrow(), "escrow")
	default:
		return of, false, nil
	}
	return of, true, err
}

// sendBlock waits for a reader only so long. One that stalls is told where to go on; what waits
// for it in the send ends with the stream, which is when this has returned, not before.
func sendBlock(stream ledgerv1.LedgerService_WatchBlocksServer,
	m *ledgerv1.WatchBlocksResponse,
) error {
	sent := make(chan error, 1)
	go func() { sent <- stream.Send(m) }()
	patience := stallTime * time.Duration(1+proto.Size(m)/stallBytes)
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-sent:
		return err
	case <-timer.C:
	}
	height := strconv.FormatUint(m.GetBlock().GetHeader().GetHeight(), 10)
	return fault.New(fault.ResourceExhausted, ledger.ReasonStalled,
		"block %s was not taken within %s; go on after the last block that came, or from it",
		height, patience).With("resume", height)
}
