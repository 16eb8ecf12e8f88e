package server

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/united-containers/ucn/kit/fault"
	"github.com/united-containers/ucn/kit/share"
	"github.com/united-containers/ucn/services/gateway"
)

// Bounds of streams. One client may have half of them, of those of blocks an eighth, while they are
// free; when none is, the newest of who has most gives way, down to a small share.
const (
	// keptStreams of all are whose nobody gives way: it takes 64 clients to keep another one out.
	keptStreams = 64
	// Streams of blocks come from the ledger, to which all clients of a gateway that it does not
	// know may be one address, and which serves 128 of an address: fewer are open here, so that it
	// never refuses this gateway.
	maxBlockStreams      = 120
	maxBlockStreamsOfOne = maxBlockStreams / 8
	keptBlockStreams     = 3
	// leaveTime is how long the last write to who must give way may take.
	leaveTime = time.Second
)

func newStreams(most int) *share.Places {
	return share.New(share.Bounds{Most: most, Each: max(most/shareOfOne, 1),
		Keep: max(most/keptStreams, 1)})
}

func newBlockStreams() *share.Places {
	return share.New(share.Bounds{Most: maxBlockStreams, Each: maxBlockStreamsOfOne,
		Keep: keptBlockStreams})
}

// beginStream takes the places of a stream, for a watch of blocks two. The request that it returns
// ends when the gateway stops or the stream must give way; end gives everything back.
func (s *Server) beginStream(w http.ResponseWriter, r *http.Request, route string) (
	stream *http.Request, end func(), err error,
) {
	ctx, cancel := s.untilDrain(r.Context())
	ctx, giveWay := context.WithCancelCause(ctx)
	hurry := hurried(ctx, w)
	taken := make([]*share.Place, 0, 2)
	end = func() {
		hurry()
		for _, place := range taken {
			place.Give()
		}
		giveWay(nil)
		cancel()
	}
	take := func(from *share.Places, what string) error {
		place, err := from.Take(addressOf(r), func() { giveWay(gaveWay()) })
		switch {
		case errors.Is(err, share.ErrEach):
			return busyOf(what)
		case err != nil:
			return busy(what)
		}
		taken = append(taken, place)
		return nil
	}
	err = take(s.streams, "streams")
	if err == nil && route == gateway.WatchBlocks {
		err = take(s.blocks, "streams of blocks")
	}
	if err != nil {
		end()
		return nil, nil, err
	}
	return r.WithContext(ctx), end, nil
}

// hurried has a client that must give way take what is written soon, until it is called.
func hurried(ctx context.Context, w http.ResponseWriter) (until func()) {
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		if errors.Is(context.Cause(ctx), gateway.ReasonGaveWay) {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(leaveTime))
		}
	})
	return func() {
		if !stop() {
			<-done // it must not touch the connection's next answer
		}
	}
}

func gaveWay() error {
	return fault.New(fault.ResourceExhausted, gateway.ReasonGaveWay,
		"all streams were taken, and this address had most of them: the newest ended for another "+
			"client; go on from where it ended in a moment, with fewer").WithRetry(gaveWayRetry)
}

// gaveWayRetry is when a client that had to give way may try again.
const gaveWayRetry = 5 * time.Second
