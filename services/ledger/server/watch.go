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
	from := r.GetFrom()
	if r.GetAfterHead() {
		from = c.Head().Height + 1
	}
	next := from
	send := func(found *ledger.Found, meant []uint32) error {
		m, err := blockMessage(found, r.GetBodies() && len(found.Raw) <= maxBlock)
		if err != nil {
			return err
		}
		err = sendBlock(ctx, stream, &ledgerv1.WatchBlocksResponse{
			Hash: found.Hash[:], Block: m, Transactions: meant,
		})
		if err == nil {
			next = found.Block.Header.Height + 1
		}
		return err
	}
	if filtered {
		err = c.WatchList(ctx, of, from, send)
	} else {
		err = c.Watch(ctx, from, func(found *ledger.Found) error { return send(found, nil) })
	}
	if told := fault.From(context.Cause(ctx)); told != nil && told.Reason() == ledger.ReasonGaveWay {
		return told.With(resume, strconv.FormatUint(next, 10))
	}
	return err
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

// sendBlock waits for a reader only so long. One that stalls is told where to go on; what waits
// for it in the send ends with the stream, which is when this has returned, not before.
func sendBlock(ctx context.Context, stream ledgerv1.LedgerService_WatchBlocksServer,
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
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
	}
	height := strconv.FormatUint(m.GetBlock().GetHeader().GetHeight(), 10)
	return fault.New(fault.ResourceExhausted, ledger.ReasonStalled,
		"block %s was not taken within %s; go on after the last block that came, or from it",
		height, patience).With(resume, height)
}
