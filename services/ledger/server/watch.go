package server

import (
	"context"
	"errors"
	"strconv"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/rpc"
	"github.com/united-containers/ucn/kit/share"
	ledgerv1 "github.com/united-containers/ucn/proto/ucn/ledger/v1"
	"github.com/united-containers/ucn/services/ledger"
)

// Bounds of streams of blocks.
const (
	// maxWatchers is how many of other processes are open at once; maxOfAddress how many of one
	// address. When all are taken, the newest of the address with most gives way to one with fewer,
	// down to keptOfAddress: it takes 64 addresses to keep others out. Those of this process, such as
	// its gateway's in its own name, take nobody's room and find theirs.
	maxWatchers   = 1024
	maxOfAddress  = 128
	keptOfAddress = 16
	// stallTime is how long a reader may take for a block, and for every stallBytes of it.
	stallTime  = 30 * time.Second
	stallBytes = 1 << 20
	// gaveWayRetry is when a reader that had to give way may try again.
	gaveWayRetry = 5 * time.Second
)

// watchers are the open streams of blocks of other processes, and of this one.
type watchers struct{ others, own *share.Places }

func newWatchers() watchers {
	return watchers{
		others: share.New(share.Bounds{Most: maxWatchers, Each: maxOfAddress, Keep: keptOfAddress}),
		own:    share.New(share.Bounds{Most: maxOfAddress, Each: maxOfAddress, Keep: maxOfAddress}),
	}
}

// enter counts a stream, until its place is given back. Leave is called when it must be.
func (w *watchers) enter(address string, leave func()) (*share.Place, error) {
	of := w.others
	if address == own {
		of = w.own
	}
	place, err := of.Take(address, leave)
	switch {
	case errors.Is(err, share.ErrEach):
		return nil, fault.New(fault.ResourceExhausted, ledger.ReasonTooManyWatchers,
			"%d streams of blocks are open from this address, no more are served", maxOfAddress)
	case err != nil:
		return nil, fault.New(fault.ResourceExhausted, ledger.ReasonTooManyWatchers,
			"%d streams of blocks are open, no more are served; try again later", maxWatchers)
	}
	return place, nil
}

// own is the rpc.CallOrigin of calls from this process that are in nobody else's name.
const own = ""

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
	ctx, leave := context.WithCancelCause(stream.Context())
	defer leave(nil)
	place, err := s.watchers.enter(rpc.CallOrigin(ctx), func() { leave(gaveWay()) })
	if err != nil {
		return err
	}
	defer place.Give()
	w := &watching{server: s, chain: c, stream: stream, bodies: r.GetBodies(), next: r.GetFrom()}
	if r.GetAfterHead() {
		w.next = c.Head().Height + 1
	}
	if filtered {
		err = c.WatchList(ctx, of, w.next, func(height uint64, meant []uint32) error {
			return w.send(ctx, height, meant)
		})
	} else {
		err = c.Watch(ctx, w.next, func(height uint64) error { return w.send(ctx, height, nil) })
	}
	if told := fault.From(context.Cause(ctx)); told != nil && told.Reason() == ledger.ReasonGaveWay {
		return told.With(resume, strconv.FormatUint(w.next, 10))
	}
	return err
}

// watching is a stream of blocks.
type watching struct {
	server *Server
	chain  *ledger.Chain
	stream ledgerv1.LedgerService_WatchBlocksServer
	bodies bool
	next   uint64 // height to go on from
	sent   int    // bytes of the message before
}

// send sends a block. It waits until its reader has taken the one before and there is room, and
// only then reads the block: a reader that takes nothing costs no more than what was sent to it.
func (w *watching) send(ctx context.Context, height uint64, meant []uint32) error {
	size, err := w.chain.BlockSize(ctx, height)
	if err != nil {
		return err
	}
	room := size
	if !w.bodies || size > maxBlock {
		room = 0
	}
	if err := w.reserve(ctx, height, room); err != nil {
		return err
	}
	done, err := w.server.builds.begin(ctx, size)
	if err != nil {
		return err
	}
	defer done()
	m, err := w.message(ctx, height, meant)
	if err != nil {
		return err
	}
	if rpc.CallOrigin(ctx) == own {
		done() // it has reserved nothing, so it may wait below
	}
	w.sent = proto.Size(m)
	if err := sendBlock(ctx, w.stream, m, patience(w.sent)); err != nil {
		return err
	}
	w.next = height + 1
	return nil
}

// reserve waits for room, for as long as a reader may take for what was sent before.
func (w *watching) reserve(ctx context.Context, height uint64, room int) error {
	late := stalled(height, patience(w.sent))
	ctx, cancel := context.WithTimeoutCause(ctx, patience(w.sent), late)
	defer cancel()
	err := rpc.Reserve(ctx, room)
	if f := fault.From(err); errors.Is(err, rpc.ReasonAnswers) {
		return f.With(resume, strconv.FormatUint(height, 10))
	}
	return err
}

func (w *watching) message(ctx context.Context, height uint64, meant []uint32) (
	*ledgerv1.WatchBlocksResponse, error,
) {
	found, err := w.chain.Block(ctx, height)
	if err != nil {
		return nil, err
	}
	m, err := blockMessage(found, w.bodies && len(found.Raw) <= maxBlock)
	if err != nil {
		return nil, err
	}
	return &ledgerv1.WatchBlocksResponse{Hash: found.Hash[:], Block: m, Transactions: meant}, nil
}

// resume is the metadata of a fault that names the height to go on from.
const resume = "resume"

func gaveWay() error {
	return fault.New(fault.ResourceExhausted, ledger.ReasonGaveWay,
		"all streams of blocks were taken, and this address had most of them: the newest ended for "+
			"another's; go on in a moment, with fewer").WithRetry(gaveWayRetry)
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

// patience is how long a reader may take for so many bytes.
func patience(n int) time.Duration { return stallTime * time.Duration(1+n/stallBytes) }

// sendBlock waits for a reader only so long. One that stalls is told where to go on; what waits
// for it in the send ends with the stream, which is when this has returned, not before.
func sendBlock(ctx context.Context, stream ledgerv1.LedgerService_WatchBlocksServer,
	m *ledgerv1.WatchBlocksResponse, patience time.Duration,
) error {
	sent := make(chan error, 1)
	go func() { sent <- stream.Send(m) }()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-sent:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	return stalled(m.GetBlock().GetHeader().GetHeight(), patience)
}

func stalled(height uint64, patience time.Duration) error {
	text := strconv.FormatUint(height, 10)
	return fault.New(fault.ResourceExhausted, ledger.ReasonStalled,
		"block %s was not taken within %s; go on after the last block that came, or from it",
		text, patience).With(resume, text)
}
